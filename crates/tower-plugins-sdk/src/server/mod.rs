//! Connections, and the calls on them, until the plugin ends.

use std::convert::Infallible;
use std::io;
use std::time::Duration;

use axum::Router;
use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_service::Service;

pub(crate) mod accept;
mod call;
#[cfg(feature = "tls")]
pub(crate) mod tls;

use self::accept::Accept;
use self::call::CallBody;
use crate::about::Reported;
use crate::plugin::Signal;

/// The pause after the system could not give a connection, for one: too many descriptors are open.
const PAUSE: Duration = Duration::from_millis(50);

/// Who connects has this long to agree on TLS.
#[cfg(feature = "tls")]
const TLS_TIMEOUT: Duration = Duration::from_secs(10);

/// The calls of one connection at once. Beyond, a peer waits.
const STREAMS: u32 = 1_024;

/// What is left of a connection, when its calls are over, has this long to be said.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);

/// When the plugin is to end, and what it waits for. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ending {
    /// Take nothing new, and finish what is there.
    pub(crate) begin: CancellationToken,
    /// The calls of the plugin's own are over, or have had their time: end what has no end of itself.
    pub(crate) calls_over: CancellationToken,
    calls: TaskTracker,
}

impl Ending {
    /// Serves until somebody says that it is over, or `serving` ends by itself. Calls under way are finished, within `limits`; after them
    /// `close` ends what they may have needed.
    pub(crate) async fn run(
        &self,
        serving: impl Future<Output = ()>,
        told: impl Future<Output = ()>,
        health: &Reported,
        limits: Limits,
        close: impl Future<Output = ()>,
    ) {
        // What others serve ends with this, however it ends.
        let _begin = self.begin.clone().drop_guard();
        let _calls_over = self.calls_over.clone().drop_guard();
        let serving = async {
            serving.await;
            self.begin.cancel();
        };
        let told = async {
            tokio::select! {
                () = told => self.begin.cancel(),
                () = self.begin.cancelled() => {}
            }
        };
        let wind_down = async {
            self.begin.cancelled().await;
            health.ending().await;
            let over = async {
                if let Some(hook) = limits.on_shutdown {
                    hook.await;
                }
                self.calls.close();
                self.calls.wait().await;
            };
            let limit = limits.drain_timeout;
            if timeout(limit, over).await.is_err() {
                let left = self.calls.len();
                tracing::warn!(
                    left,
                    "calls are cut: they took longer than {limit:?} to end"
                );
            }
            close.await;
            self.calls_over.cancel();
        };
        tokio::join!(serving, told, wind_down);
    }
}

/// What there is to do when the plugin ends, and how long that may take.
pub(crate) struct Limits {
    pub(crate) drain_timeout: Duration,
    pub(crate) on_shutdown: Option<Signal>,
}

/// What is served on each connection.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) router: Router,
    /// Whether HTTP/1.1 is spoken beside HTTP/2.
    pub(crate) http1: bool,
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<tokio_rustls::TlsAcceptor>,
    pub(crate) ending: Ending,
}

impl Server {
    /// Serves who connects, until the ending, or until nobody can connect any more. It returns when the last connection is closed: once the
    /// calls are over, each has half a second for that.
    pub(crate) async fn serve<A: Accept>(self, mut accept: A) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                () = self.ending.begin.cancelled() => break,
                Some(_) = connections.join_next() => {}
                accepted = accept.accept() => match accepted {
                    Ok(Some(stream)) => {
                        connections.spawn(self.clone().connection(stream));
                    }
                    Ok(None) => break,
                    // It went away before it was taken.
                    Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                    Err(error) => {
                        tracing::warn!("no connection can be taken, trying again: {error}");
                        sleep(PAUSE).await;
                    }
                }
            }
        }
        // Nobody connects to what is ending; a socket's file goes, too.
        drop(accept);
        let all_closed = async { while connections.join_next().await.is_some() {} };
        tokio::select! {
            () = all_closed => {}
            () = async { self.ending.calls_over.cancelled().await; sleep(CLOSE_TIMEOUT).await } => {}
        }
        connections.shutdown().await;
    }

    #[cfg(feature = "tls")]
    async fn connection<T>(self, stream: T)
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let Some(tls) = self.tls.clone() else {
            return self.http(stream).await;
        };
        match timeout(TLS_TIMEOUT, tls.accept(stream)).await {
            Ok(Ok(stream)) => self.http(stream).await,
            // A probe connects, and says nothing.
            Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {}
            Ok(Err(error)) => tracing::warn!("a connection is refused by TLS: {error}"),
            Err(_) => tracing::warn!("a connection is refused: no TLS within {TLS_TIMEOUT:?}"),
        }
    }

    #[cfg(not(feature = "tls"))]
    async fn connection<T>(self, stream: T)
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        self.http(stream).await;
    }

    async fn http<T>(self, stream: T)
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let ending = self.ending.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let guard = CallBody::guard(request.uri().path(), &self.ending);
            let answer = self.router.clone().call(request);
            async move {
                let answer = match answer.await {
                    Ok(answer) => answer,
                    Err(never) => match never {},
                };
                Ok::<_, Infallible>(answer.map(|body| guard.around(body)))
            }
        });
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new());
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS);
        if !self.http1 {
            builder = builder.http2_only();
        }
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = ending.begin.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!("a connection ended early: {error}");
        }
    }
}
