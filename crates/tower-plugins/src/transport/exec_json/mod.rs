//! Lines of JSON on the standard streams of a process, as plugins written for go-plugins speak them.

mod call;

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ::http::request::Parts;
use ::http::{Request, Response};
use bytes::Bytes;
use tokio::io::Join;
use tokio::net::unix::pipe;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout, timeout_at};
use tower_plugins_layers::{BoxError, Reason, Refused};

use self::call::Call;
use super::error::{at, lost, request_broken, too_large};
use super::lines::{Broken, Failed, Lines, collect, limit};
use super::subprocess::{Dialect, InUse, Launch, Start, Stdin, Supervisor};
use super::{EndFuture, ProbeFuture, ResponseFuture, Transport};
use crate::Body;
use crate::config::{ConnectionSpec, ProcessSpec};

/// How long the end of an answer may take to come out of the pipe, and the end of a process to be known, when the other
/// is there.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How often a line may not go out to a process that has answered before, until the call fails.
const USED_TRIES: u32 = 3;

const OUT_OF_STEP: &str = "it had not answered when the call was over, and what it says next would be taken for another answer";
const NO_ANSWER: &str = "what it wrote was no answer to what it was asked";

/// The streams of one process. A call takes them.
type Streams = Lines<Join<pipe::Receiver, pipe::Sender>>;
type Session = Mutex<Option<Streams>>;

/// A process that is sent lines speaks when it is spoken to.
struct Json;

impl Dialect for Json {
    type Session = Session;
    type Prepared = ();

    fn prepare(&self) -> Result<(Start, ()), BoxError> {
        let start = Start {
            stdin: Stdin::Piped,
            ..Start::default()
        };
        Ok((start, ()))
    }

    async fn begin(
        &self,
        (): (),
        streams: super::subprocess::Streams,
    ) -> Result<Session, BoxError> {
        let stdin = streams.stdin.ok_or("it has no standard input")?;
        let lines = Lines::new(tokio::io::join(streams.stdout, stdin));
        Ok(Mutex::new(Some(lines)))
    }

    /// The end of its standard input, which comes next, is all there is to say.
    async fn end(&self, _: &Session) -> bool {
        false
    }
}

/// One process that is sent lines of JSON on its standard input, and answers with lines on its standard output. What is in
/// a line is said in [`tower_plugins_proto::exec`].
///
/// # Calls
///
/// A request becomes a line of the method `execute`, with its body, which must be JSON, as `payload`; without a body that
/// is `null`. Nothing of the HTTP method and the path is sent: the wire has no place for them. `id`, and
/// `context.request_id`, is the header `x-request-id`, or one that is made; all other headers that are not about HTTP
/// itself go into `context.headers`, their names in lower case. `context.timeout` is what is left of the time the call or
/// the attempt has, in nanoseconds.
///
/// The answer's `result` becomes the body of a 200. An answer with an `error` is a 422, whose body is JSON with the
/// plugin's words in `error`.
///
/// A request that is [`Enveloped`](super::Enveloped), as those of the codec [`Envelope`](crate::call::Envelope) are, has
/// its envelope taken off, and its response has one, as over [`UnixJson`](super::UnixJson).
///
/// # The process
///
/// It is started when a call needs it, within a tokio runtime, and serves one call at a time; calls beyond wait their turn
/// for at most [`connection_timeout`](ConnectionSpec::connection_timeout), which bounds the wait for a process that is
/// being started too. One that has not answered when its call is over, because the call was dropped or its time was over,
/// is killed with its group, and a new one is made: no call is ever answered with what was meant for another. When this is
/// dropped, the process's standard input is closed and its group gets a SIGTERM, and a SIGKILL after
/// [`stop_timeout`](ProcessSpec::stop_timeout).
///
/// # Errors
///
/// - [`Unsent`](tower_plugins_layers::Unsent) with [`Reason::ConnectFailed`], [`Reason::PoolExhausted`] or [`Reason::ConnectionLost`] if the plugin cannot
///   have understood the line, because there is no process, it is busy, or the line's end was not sent. The request is in
///   it.
/// - [`Reason::ConnectionLost`] if the process ended later, with an [`Exited`](super::subprocess::Exited) in its chain, or
///   what it wrote is no answer: no JSON, or one with another `id`.
/// - [`Reason::ResponseTooLarge`] if the answer is longer than
///   [`max_response_body`](ConnectionSpec::max_response_body), or 16 MiB without one.
/// - [`Reason::RequestBroken`] if the request's body failed, is not JSON or is larger than 16 MiB, or a header is not UTF-8.
///
/// ```no_run
/// use http::Request;
/// use tower_plugins::Body;
/// use tower_plugins::config::{ConnectionSpec, ProcessSpec};
/// use tower_plugins::transport::{ExecJson, Transport};
///
/// # async fn example() -> Result<(), tower_plugins_layers::BoxError> {
/// let (process, connection) = (ProcessSpec::default(), ConnectionSpec::default());
/// let files = ExecJson::new("files", "/usr/libexec/files-plugin", &process, &connection);
/// let request = Request::post("/").body(Body::from(r#"{"operation":"list"}"#))?;
/// let response = files.call(request).await?;
/// # Ok(()) }
/// ```
pub struct ExecJson {
    name: Arc<str>,
    supervisor: Supervisor<Json>,
    /// One call at a time.
    turn: Semaphore,
    /// The longest wait for it, and for a process.
    wait: Duration,
    /// The longest answer.
    limit: usize,
}

/// The streams of a process during a call. Unless the call is completed the process is discarded.
struct Lease {
    running: InUse<Session>,
    lines: Option<Streams>,
    why: &'static str,
}

impl Lease {
    fn complete(mut self) {
        let lines = self.lines.take();
        if let Some(lines) = lines.filter(Lines::is_in_step) {
            let session = self.running.session.lock();
            *session.unwrap_or_else(PoisonError::into_inner) = Some(lines);
        } else {
            self.running.discard(NO_ANSWER);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.lines.is_some() {
            self.running.discard(self.why);
        }
    }
}

impl ExecJson {
    /// A process of the program at `executable`, for `plugin`. Nothing is started yet.
    #[must_use]
    pub fn new(
        plugin: &str,
        executable: impl Into<PathBuf>,
        process: &ProcessSpec,
        connection: &ConnectionSpec,
    ) -> Self {
        let executable = executable.into();
        let name = format!("exec-json:{}", executable.display());
        Self::named(plugin, name, executable, process, connection)
    }

    /// The same, as an endpoint that is called `name`.
    pub(crate) fn named(
        plugin: &str,
        name: String,
        executable: PathBuf,
        process: &ProcessSpec,
        connection: &ConnectionSpec,
    ) -> Self {
        let name: Arc<str> = name.into();
        let launch = Launch::new(executable, process);
        Self {
            supervisor: Supervisor::new(plugin, Arc::clone(&name), launch, process, Json),
            name,
            turn: Semaphore::new(1),
            wait: connection.connection_timeout,
            limit: limit(connection),
        }
    }

    async fn run(
        &self,
        request: Request<Body>,
        deadline: Option<Instant>,
    ) -> Result<Response<Body>, BoxError> {
        let (head, body) = collect(request, &self.name).await?;
        let answered = self.ask(&head, &body, deadline).await;
        answered.map_err(|failed| failed.of(head, body))
    }

    async fn ask(
        &self,
        head: &Parts,
        body: &[u8],
        deadline: Option<Instant>,
    ) -> Result<Response<Body>, Failed> {
        let name = &self.name;
        let unfit = |why: String| Failed::Other(request_broken(name, why));
        let call = Call::of(head, body).map_err(unfit)?;
        let mut tries = 0;
        loop {
            let (_turn, mut lease) = self.lease().await.map_err(Failed::Unsent)?;
            let line = match call.line(deadline) {
                Ok(line) => line,
                Err(why) => {
                    lease.complete();
                    return Err(unfit(why));
                }
            };
            let broken = match self.exchange(&mut lease, &line).await {
                Ok(answer) => return self.answer(&call, &answer, lease),
                Err(broken) => broken,
            };
            match broken {
                // It had ended and that was not known: the next one gets the line.
                Broken::Unsent(_) if lease.running.is_used() && tries < USED_TRIES => {
                    lease.running.exited(LAST_WORDS).await;
                    tries += 1;
                }
                broken => return Err(self.broken(broken, lease).await),
            }
        }
    }

    fn answer(
        &self,
        call: &Call<'_>,
        answer: &Bytes,
        mut lease: Lease,
    ) -> Result<Response<Body>, Failed> {
        match call.respond(answer) {
            Ok(response) => {
                lease.running.has_answered();
                lease.complete();
                Ok(response)
            }
            Err(why) => {
                lease.why = NO_ANSWER;
                Err(Failed::Other(lost(&self.name, why).into()))
            }
        }
    }

    async fn broken(&self, broken: Broken, mut lease: Lease) -> Failed {
        let name = &self.name;
        let (error, was_sent) = match broken {
            Broken::TooLong => {
                lease.why = "its answer was longer than max_response_body";
                let why = format!("it is longer than {} bytes", self.limit);
                return Failed::Other(too_large(name, why));
            }
            Broken::Unsent(error) => (error, false),
            Broken::Lost(error) => (error, true),
        };
        lease.why = "it closed its standard input or output";
        // As a rule its streams end because it does.
        let error = match lease.running.exited(LAST_WORDS).await {
            Some(exited) => lost(name, (*exited).clone()),
            None => lost(name, error),
        };
        match was_sent {
            true => Failed::Other(error.into()),
            false => Failed::Unsent(error),
        }
    }

    /// A process that is in step, for one call.
    async fn lease(&self) -> Result<(SemaphorePermit<'_>, Lease), Refused> {
        let (limit, until) = (self.wait, Instant::now() + self.wait.min(FOREVER));
        let Ok(Ok(turn)) = timeout_at(until, self.turn.acquire()).await else {
            let cause = format!("it was busy with other calls for {limit:?}");
            let cause = at(&self.name, "waiting for", cause);
            return Err(Refused::new(Reason::PoolExhausted).caused_by(cause));
        };
        loop {
            let running = self.supervisor.running(until).await?;
            let session = running.session.lock();
            let lines = session.unwrap_or_else(PoisonError::into_inner).take();
            if lines.is_some() {
                let why = OUT_OF_STEP;
                return Ok((
                    turn,
                    Lease {
                        running,
                        lines,
                        why,
                    },
                ));
            }
            // It was left without them: it is of no use to anybody.
            running.discard(OUT_OF_STEP);
        }
    }

    async fn exchange(&self, lease: &mut Lease, line: &[u8]) -> Result<Bytes, Broken> {
        let gone = || std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
        let Some(lines) = &mut lease.lines else {
            return Err(Broken::Lost(gone()));
        };
        let mut exchange = std::pin::pin!(lines.exchange(line, self.limit));
        tokio::select! {
            biased;
            answer = &mut exchange => answer,
            // What it wrote before its end is in the pipe; what has left its group may hold that open.
            () = lease.running.gone() => match timeout(LAST_WORDS, exchange).await {
                Ok(answer) => answer,
                Err(_) => Err(Broken::Lost(gone())),
            },
        }
    }
}

/// Longer than any program runs, and short enough to be added to any instant.
const FOREVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

impl Transport for ExecJson {
    fn call(&self, request: Request<Body>) -> ResponseFuture<'_> {
        self.call_until(request, None)
    }

    fn call_until(&self, request: Request<Body>, deadline: Option<Instant>) -> ResponseFuture<'_> {
        Box::pin(self.run(request, deadline))
    }

    fn revive(&self) {
        self.supervisor.revive();
    }

    fn end(&self) -> EndFuture {
        Box::pin(self.supervisor.end())
    }

    /// Whether the process lives; it is started if need be, unless it was stopped as nobody needed it.
    fn probe(&self) -> ProbeFuture<'_> {
        Box::pin(async {
            let until = Instant::now() + self.wait.min(FOREVER);
            Ok(self.supervisor.probe(until).await?)
        })
    }
}

impl fmt::Debug for ExecJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExecJson")
            .field("address", &self.name)
            .finish_non_exhaustive()
    }
}
