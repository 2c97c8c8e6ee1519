//! Lines of JSON on a Unix socket, as plugins written for go-plugins speak them.

mod call;
mod pool;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use ::http::request::Parts;
use ::http::{Request, Response};
use tokio::time::Instant;
use tower_plugins_layers::BoxError;

use self::call::Call;
use self::pool::Pool;
use super::error::{lost, request_broken, too_large};
use super::lines::{Broken, Failed, collect, limit};
use super::{ProbeFuture, ResponseFuture, Transport};
use crate::Body;
use crate::config::ConnectionSpec;

/// How often a line may not go out on a used connection before the call gets a new one.
const USED_TRIES: u32 = 3;

/// One plugin that is sent lines of JSON on a Unix socket, with its connections. What is in a line is
/// said in [`tower_plugins_proto::line`].
///
/// # Calls
///
/// A request becomes a line of the type `execute`, with its body, which must be JSON, as `data`;
/// without a body that is `null`. `GET /health`, `GET /info` and `GET /ping` become the types of those
/// names. Nothing else of the method and the path is sent: the wire has no place for them. `request_id`
/// is the header `x-request-id`, or one that is made; all other headers that are not about HTTP itself
/// go into `headers`, their names in lower case. `timeout_ms` is what is left of the
/// time the call or the attempt has.
///
/// The answer's `data` becomes the body of a 200, its `headers` headers. An answer without `success` is a
/// 422, whose body is JSON with the plugin's words in `error`.
///
/// A request that is [`Enveloped`](super::Enveloped), as those of the codec
/// [`Envelope`](crate::call::Envelope) are, has its envelope taken off, and its response has one:
/// always a 200, and what the plugin says went wrong is an error in the envelope. So a typed method with
/// that codec means the same here and over HTTP.
///
/// # Connections
///
/// They are opened when a call needs one, within a tokio runtime, and serve one call at a time. At most
/// [`max_connections`](ConnectionSpec::max_connections) are open; calls beyond wait their turn for at
/// most [`connection_timeout`](ConnectionSpec::connection_timeout). One that has had its answer is kept
/// for [`idle_timeout`](ConnectionSpec::idle_timeout), as
/// [`keep_alive`](ConnectionSpec::keep_alive) and
/// [`max_idle_connections`](ConnectionSpec::max_idle_connections) say. One that has not, because the
/// call was dropped or its time was over, is closed, and so is one on which more came than was asked
/// for: no call is ever answered with what was meant for another.
///
/// # Errors
///
/// - [`Unsent`](tower_plugins_layers::Unsent) with [`Reason::ConnectFailed`], [`Reason::PoolExhausted`] or
///   [`Reason::ConnectionLost`] if the plugin cannot have understood the line, because its end was not
///   sent. The request is in it.
/// - [`Reason::ConnectionLost`] if the connection broke later, or what came is no answer: no JSON, or
///   one with another `request_id`.
/// - [`Reason::ResponseTooLarge`] if the answer is longer than
///   [`max_response_body`](ConnectionSpec::max_response_body), or 16 MiB without one.
/// - [`Reason::RequestBroken`] if the request's body failed, is not JSON or is larger than 16 MiB, or a
///   header is not UTF-8.
///
/// A line that could not be sent because an idle connection had just been closed is sent again on
/// another, and in the end on a new one.
///
/// [`Reason::ConnectFailed`]: tower_plugins_layers::Reason::ConnectFailed
/// [`Reason::PoolExhausted`]: tower_plugins_layers::Reason::PoolExhausted
/// [`Reason::ConnectionLost`]: tower_plugins_layers::Reason::ConnectionLost
/// [`Reason::ResponseTooLarge`]: tower_plugins_layers::Reason::ResponseTooLarge
/// [`Reason::RequestBroken`]: tower_plugins_layers::Reason::RequestBroken
///
/// ```no_run
/// use http::Request;
/// use tower_plugins::Body;
/// use tower_plugins::config::ConnectionSpec;
/// use tower_plugins::transport::{Transport, UnixJson};
///
/// # async fn example() -> Result<(), tower_plugins_layers::BoxError> {
/// let files = UnixJson::new("/run/files.sock", &ConnectionSpec::default());
/// let request = Request::post("/").body(Body::from(r#"{"operation":"list"}"#))?;
/// let response = files.call(request).await?;
/// # Ok(()) }
/// ```
pub struct UnixJson {
    pool: Arc<Pool>,
    /// The longest answer.
    limit: usize,
}

impl UnixJson {
    /// The plugin behind the socket at `path`. No connection is opened yet.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>, connection: &ConnectionSpec) -> Self {
        let path = path.into();
        let name = format!("unix-json:{}", path.display()).into();
        Self {
            pool: Arc::new(Pool::new(name, path, connection.clone())),
            limit: limit(connection),
        }
    }

    async fn run(
        &self,
        request: Request<Body>,
        deadline: Option<Instant>,
    ) -> Result<Response<Body>, BoxError> {
        let (head, body) = collect(request, &self.pool.name).await?;
        let answered = self.ask(&head, &body, deadline).await;
        answered.map_err(|failed| failed.of(head, body))
    }

    async fn ask(
        &self,
        head: &Parts,
        body: &[u8],
        deadline: Option<Instant>,
    ) -> Result<Response<Body>, Failed> {
        let name = &self.pool.name;
        let unfit = |why: String| Failed::Other(request_broken(name, why));
        let call = Call::of(head, body).map_err(unfit)?;
        let mut tries = 0;
        loop {
            let fresh = tries >= USED_TRIES;
            let mut lease = self.pool.acquire(fresh).await.map_err(Failed::Unsent)?;
            let line = call.line(deadline).map_err(unfit)?;
            let error = match lease.lines.exchange(&line, self.limit).await {
                Ok(answer) => match call.respond(&answer) {
                    Ok(response) => {
                        lease.complete();
                        return Ok(response);
                    }
                    Err(why) => lost(name, why).into(),
                },
                Err(Broken::Unsent(_)) if lease.is_used => {
                    tries += 1;
                    continue;
                }
                Err(Broken::Unsent(error)) => return Err(Failed::Unsent(lost(name, error))),
                Err(Broken::Lost(error)) => lost(name, error).into(),
                Err(Broken::TooLong) => {
                    too_large(name, format!("it is longer than {} bytes", self.limit))
                }
            };
            return Err(Failed::Other(error));
        }
    }
}

impl Transport for UnixJson {
    fn call(&self, request: Request<Body>) -> ResponseFuture<'_> {
        self.call_until(request, None)
    }

    fn call_until(&self, request: Request<Body>, deadline: Option<Instant>) -> ResponseFuture<'_> {
        Box::pin(self.run(request, deadline))
    }

    /// Opens a connection beside those of the calls, and closes it.
    fn probe(&self) -> ProbeFuture<'_> {
        Box::pin(async {
            self.pool.connect().await?;
            Ok(())
        })
    }
}

impl fmt::Debug for UnixJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnixJson")
            .field("address", &self.pool.name)
            .finish_non_exhaustive()
    }
}
