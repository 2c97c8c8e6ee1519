//! The doors for lines of JSON: one line there, one line back, one call at a time.

mod reader;
mod wire;

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::ops::AsyncFn;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::FusedFuture;
use http::Request;
use http_body_util::BodyExt;
use serde_json::value::RawValue;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tower_service::Service;

use self::reader::{Line, Reader};
use self::wire::{Exec, Wire};
use super::Router;
use super::error::{CallError, Kind};

/// What a line, or a message of gRPC, may have beside its payload, in bytes.
pub(super) const BESIDE: usize = 64 << 10;

/// How long the answer to a call whose time is up is held back, for its caller to give up by itself.
const LATE: Duration = Duration::from_millis(100);

/// How long a peer may take to read its answer, when the server stops.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

impl<S: Send + Sync + 'static> Router<S> {
    /// Answers the lines of JSON that come by `input`, on `output`, one after the other, until `input` ends. It is
    /// what a process with `transport: exec-json` does with `tokio::io::stdin` and `tokio::io::stdout`, and
    /// must then write nothing else on its standard output: its log is its standard error.
    ///
    /// The wire names no method: a line finds its own as the [module](super) says. A method that answers with a stream is
    /// refused. A line that is too long, or is no request, is answered with an error, and the next is read.
    ///
    /// # Errors
    /// Of `input` and `output`.
    ///
    /// # Cancellation
    /// Dropping the future drops the handler that runs; a line may then have been answered in part.
    ///
    /// ```no_run
    /// use tower_plugins_sdk::router::{Input, Output, Router};
    ///
    /// # #[derive(serde::Deserialize)] struct Text { text: String }
    /// # async fn example() -> std::io::Result<()> {
    /// let router = Router::new().method("upper", async |Input(asked): Input<Text>| asked.text.to_uppercase());
    /// router.serve_lines(tokio::io::stdin(), tokio::io::stdout()).await
    /// # }
    /// ```
    pub async fn serve_lines<R, W>(self, input: R, mut output: W) -> io::Result<()>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let max = self.max_request.saturating_add(BESIDE);
        let lines = Reader::new(input, max);
        // The end of the input says that nothing more is asked, and not that nobody reads.
        let stays = async |_: &W| false;
        serve::<Exec, _, _>(
            self.into_axum(),
            lines,
            &mut output,
            std::future::pending(),
            stays,
        )
        .await
    }
}

#[cfg(unix)]
mod socket {
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::io::Interest;
    use tokio::net::unix::OwnedWriteHalf;
    use tokio::net::{UnixListener, UnixStream};
    use tokio::sync::{Semaphore, watch};
    use tokio::task::JoinSet;

    use super::wire::Unix;
    use super::{BESIDE, Future, Reader, Router, io, serve};

    /// The most connections that are served at once; others wait to be accepted.
    const MAX_CONNECTIONS: usize = 1024;

    /// The pause after a connection that could not be accepted, as when there are no descriptors left.
    const PAUSE: Duration = Duration::from_millis(100);

    impl<S: Send + Sync + 'static> Router<S> {
        /// Answers the lines of JSON that come over connections to `listener`, one call at a time on each, as
        /// `transport: unix-json` sends them, until `until` is over and what was under way then is answered: a handler is waited for,
        /// and a peer that does not read its answer for 5 s.
        ///
        /// A line finds its method as the [module](super::super) says; `info`, `health` and `ping` are answered too.
        /// At most 1024 connections are served at once. A connection that its peer closes drops the handler that
        /// runs for it.
        ///
        /// # Errors
        /// None today: what goes wrong with a connection ends that connection.
        ///
        /// # Cancellation
        /// Dropping the future closes all connections, and drops the handlers that run.
        ///
        /// ```no_run
        /// # async fn example(router: tower_plugins_sdk::router::Router) -> std::io::Result<()> {
        /// let listener = tokio::net::UnixListener::bind("/run/files.sock")?;
        /// router.serve_unix(listener, std::future::pending()).await
        /// # }
        /// ```
        pub async fn serve_unix(
            self,
            listener: UnixListener,
            until: impl Future<Output = ()>,
        ) -> io::Result<()> {
            let max = self.max_request.saturating_add(BESIDE);
            let app = self.into_axum();
            let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
            let (stop, stopped) = watch::channel(());
            let mut connections = JoinSet::new();
            let mut until = std::pin::pin!(until);
            loop {
                while connections.try_join_next().is_some() {}
                let next = async {
                    let place = Arc::clone(&places).acquire_owned().await;
                    (place, listener.accept().await)
                };
                let (place, stream) = tokio::select! {
                    () = &mut until => break,
                    next = next => next,
                };
                let Ok((stream, _)) = stream else {
                    tokio::time::sleep(PAUSE).await;
                    continue;
                };
                let (app, mut stopped) = (app.clone(), stopped.clone());
                connections.spawn(async move {
                    let _place = place;
                    let stop = async { drop(stopped.changed().await) };
                    // Whoever asked is gone.
                    let _ = connection(app, stream, max, stop).await;
                });
            }
            drop((listener, stop));
            while connections.join_next().await.is_some() {}
            Ok(())
        }
    }

    async fn connection(
        app: axum::Router,
        stream: UnixStream,
        max: usize,
        stop: impl Future<Output = ()>,
    ) -> io::Result<()> {
        let (input, mut output) = stream.into_split();
        let lines = Reader::new(input, max);
        // A peer that only said all it has to say still reads.
        let is_gone = async |output: &OwnedWriteHalf| {
            let ready = output.ready(Interest::WRITABLE).await;
            ready.is_ok_and(|ready| ready.is_write_closed())
        };
        serve::<Unix, _, _>(app, lines, &mut output, stop, is_gone).await
    }
}

/// Answers line after line, until there are no more, or until `stop` is over between two of them. When the input has
/// ended under a call, `is_gone` says whether anybody waits for its answer.
async fn serve<L: Wire, R, W>(
    mut app: axum::Router,
    mut lines: Reader<R>,
    output: &mut W,
    stop: impl Future<Output = ()>,
    is_gone: impl AsyncFn(&W) -> bool,
) -> io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut stop = std::pin::pin!(stop.fuse());
    while !stop.is_terminated() {
        let line = tokio::select! {
            line = lines.next() => line?,
            () = &mut stop => None,
        };
        let asked = match line {
            None => return Ok(()),
            Some(Line::TooLong) => Err("the line is longer than this plugin reads".to_owned()),
            Some(Line::Whole(line)) => L::read(&line),
        };
        let line = match asked {
            Err(error) => L::write(&L::unread(), BTreeMap::new(), Err(error)),
            Ok((asked, request)) => {
                let response = tokio::select! {
                    biased;
                    response = respond(&mut app, request) => response,
                    () = left(&mut lines, &*output, &is_gone) => return Ok(()),
                };
                answer::<L>(&asked, response).await
            }
        };
        let line = line?;
        let written = async {
            output.write_all(&line).await?;
            output.flush().await
        };
        let is_late = async {
            (&mut stop).await;
            tokio::time::sleep(READ_TIMEOUT).await;
        };
        tokio::select! {
            written = written => written?,
            () = is_late => return Ok(()),
        }
    }
    Ok(())
}

/// The response to `request`, and after a while if the caller's time is up: a line cannot say so, but only that the call
/// failed, and who has set the time knows better.
async fn respond(app: &mut axum::Router, request: Request<Body>) -> Response {
    let response = match app.call(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    };
    let error = response.extensions().get::<CallError>();
    if error.is_some_and(|error| error.kind() == Kind::DeadlineExceeded) {
        tokio::time::sleep(LATE).await;
    }
    response
}

/// Waits until the peer has gone.
async fn left<R, W>(lines: &mut Reader<R>, output: &W, is_gone: &impl AsyncFn(&W) -> bool)
where
    R: AsyncRead + Unpin,
{
    while lines.has_room() {
        match lines.fill().await {
            Ok(0) if is_gone(output).await => return,
            Ok(0) => break,
            Ok(_) => {}
            Err(_) => return,
        }
    }
    std::future::pending::<()>().await;
}

/// The line that says what `response` does.
async fn answer<L: Wire>(asked: &L::Asked, response: Response) -> serde_json::Result<Vec<u8>> {
    let headers = wire::headers(&response);
    let is_success = response.status().is_success();
    let failure = response.extensions().get::<CallError>();
    let failure = failure.map(ToString::to_string);
    let status = response.status();
    let body = response.into_body();
    let body = match body.collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => return L::write(asked, headers, Err(error.to_string())),
    };
    let outcome = if is_success {
        json(&body).map_err(|error| format!("the answer is no JSON, which lines carry: {error}"))
    } else {
        // What a layer answered, that has said no more than this.
        Err(failure.unwrap_or_else(|| format!("{status} {}", String::from_utf8_lossy(&body))))
    };
    L::write(asked, headers, outcome)
}

fn json(body: &Bytes) -> serde_json::Result<&RawValue> {
    let body: &[u8] = if body.is_empty() { b"null" } else { body };
    serde_json::from_slice(body)
}
