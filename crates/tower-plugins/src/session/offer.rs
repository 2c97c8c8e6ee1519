//! What the plugin may call.

use std::convert::Infallible;
use std::future::Future;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tower_plugins_proto::go_plugin::broker::{Accepted, Io};

use crate::embed::respond::Dialect;
use crate::transport::{InProcess, Pinned, Transport};
use crate::{Body, Error};

/// Connections at once to one offer; a plugin needs one, as calls share it. Those beyond wait.
const CONNECTIONS: usize = 64;

/// Calls at once on one connection; those beyond wait in the plugin.
const STREAMS: u32 = 1_000;

// A large body is not to wait for window updates.
const STREAM_WINDOW: u32 = 2 << 20;
const CONNECTION_WINDOW: u32 = 5 << 20;

/// A service that is offered to the process of a [`Session`](super::Session), until this is dropped, or the process ends.
///
/// Dropping it closes its connections, and drops the calls that are under way; [`finish`](Self::finish) lets those end.
#[derive(Debug)]
pub struct Offer {
    id: u32,
    finish: CancellationToken,
    task: JoinHandle<()>,
}

impl Offer {
    pub(super) fn new(accepted: Accepted, service: InProcess, pinned: Pinned) -> Self {
        let (id, finish) = (accepted.id(), CancellationToken::new());
        let accept = accept(accepted, service, finish.clone());
        let task = tokio::spawn(async move {
            let _in_use = pinned.in_use();
            tokio::select! {
                () = accept => {}
                _ = pinned.ended() => {}
            }
        });
        Self { id, finish, task }
    }

    /// What the plugin has to be told, in a call.
    #[must_use]
    pub const fn id(&self) -> u32 {
        self.id
    }

    /// Accepts no further call, and waits for those that are under way. Dropping the future drops them.
    pub async fn finish(mut self) {
        self.finish.cancel();
        self.ended().await;
    }

    /// Waits until it is offered no more, because the process has ended. Dropping the future changes nothing.
    pub async fn ended(&mut self) {
        // One that was cut off has ended, too.
        if !self.task.is_finished() {
            drop((&mut self.task).await);
        }
    }
}

impl Drop for Offer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(mut accepted: Accepted, service: InProcess, finish: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = finish.cancelled() => break,
            Some(_) = connections.join_next() => {}
            io = accepted.next(), if connections.len() < CONNECTIONS => match io {
                Some(io) => {
                    connections.spawn(serve(io, service.clone(), finish.clone()));
                }
                None => break,
            },
        }
    }
    drop(accepted);
    while connections.join_next().await.is_some() {}
}

async fn serve(io: Io, service: InProcess, finish: CancellationToken) {
    let calls = CancellationToken::new();
    let _end = calls.clone().drop_guard();
    let connection = http2::Builder::new(Within(calls))
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(STREAMS)
        .serve_connection(
            TokioIo::new(io),
            service_fn(move |request| {
                let service = service.clone();
                async move { Ok::<_, Infallible>(answer(&service, request).await) }
            }),
        );
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = finish.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a plugin's connection to a callback ended");
    }
}

async fn answer(service: &InProcess, request: Request<Incoming>) -> Response<Body> {
    let dialect = Dialect::of(&request);
    match service.call(request.map(Body::new)).await {
        Ok(response) => response,
        Err(error) => dialect.respond(&Error::from_stack(error), None),
    }
}

/// Runs what hyper spawns for a connection, and no longer than that is there.
#[derive(Clone)]
struct Within(CancellationToken);

impl<F> Executor<F> for Within
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, future: F) {
        tokio::spawn(self.0.clone().run_until_cancelled_owned(future));
    }
}
