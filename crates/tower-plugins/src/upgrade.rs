//! What is left of a call that was upgraded: its connection.
//!
//! A request with `connection: upgrade` and `upgrade: websocket`, or another protocol of its own, goes to a plugin over
//! HTTP/1.1 as one that asks for an upgrade. If the plugin answers 101 the call is over, and its connection is the
//! caller's: [`on`] gives it, as a stream of bytes. Behind a [`Route`](crate::embed::Route) both sides are joined
//! without a further word.
//!
//! ```no_run
//! use http::{Request, header};
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//! use tower::ServiceExt;
//! use tower_plugins::{Body, Plugin, upgrade};
//!
//! # async fn talk(plugin: Plugin) -> Result<(), Box<dyn std::error::Error>> {
//! let request = Request::get("/talk")
//!     .header(header::CONNECTION, "upgrade")
//!     .header(header::UPGRADE, "my-protocol")
//!     .body(Body::empty())?;
//! let mut response = plugin.oneshot(request).await?;
//! assert_eq!(response.status(), 101);
//! let mut connection = upgrade::on(&mut response).await?;
//! connection.write_all(b"hello").await?;
//! let mut answer = [0; 5];
//! connection.read_exact(&mut answer).await?;
//! # Ok(()) }
//! ```
//!
//! # How long it lives
//! The connection is one of the endpoint's `max_connections`, and holds its plugin as a call does: a drain waits for it,
//! and after `drain_timeout` it is cut with [`Reason::DrainCancelled`]. Of the plugin's limits of time only
//! `stream_idle_timeout` is for it: without a byte in either direction for so long it is cut with
//! [`Reason::StreamIdle`]. Dropping it closes it.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::Response;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};
use tower_plugins_layers::Reason;
use tower_plugins_layers::drain::DrainHold;

use crate::error::{Error, Kind};

/// The connection of the call that was answered with `response`: it resolves once the other side is through with the
/// answer's head.
///
/// # Errors
/// Its future fails where the answer was no upgrade, where its connection is somebody else's already, and where it broke.
pub fn on<B>(response: &mut Response<B>) -> OnUpgrade {
    let extensions = response.extensions_mut();
    extensions.remove().unwrap_or_else(OnUpgrade::nothing)
}

/// The future of [`on`], which stands in the extensions of a 101 as well.
///
/// Of its clones, the first that resolves has the connection. Dropping all closes it.
#[derive(Clone)]
#[must_use = "futures do nothing unless polled"]
pub struct OnUpgrade(Arc<Mutex<Option<Waiting>>>);

struct Waiting {
    connection: hyper::upgrade::OnUpgrade,
    terms: Terms,
}

/// What an upgraded connection holds, and what may end it.
struct Terms {
    /// Its place at the endpoint.
    _lease: Box<dyn Any + Send>,
    owner: Option<Owner>,
}

/// The node that a connection belongs to.
pub(crate) struct Owner {
    pub(crate) plugin: Arc<str>,
    pub(crate) _node: Arc<dyn Any + Send + Sync>,
    pub(crate) drain: DrainHold,
    pub(crate) stream_idle: Option<Duration>,
}

impl OnUpgrade {
    /// What `connection` resolves to, which holds `lease` as long as it lives.
    pub(crate) fn new(connection: hyper::upgrade::OnUpgrade, lease: impl Any + Send) -> Self {
        let terms = Terms {
            _lease: Box::new(lease),
            owner: None,
        };
        Self(Arc::new(Mutex::new(Some(Waiting { connection, terms }))))
    }

    fn nothing() -> Self {
        Self(Arc::default())
    }

    /// Makes the connection one of `owner`.
    pub(crate) fn belongs_to(&self, owner: Owner) {
        if let Some(waiting) = &mut *self.lock() {
            waiting.terms.owner = Some(owner);
        }
    }

    /// What the connection is counted by.
    pub(crate) fn drain(&self) -> Option<DrainHold> {
        let waiting = self.lock();
        let owner = waiting.as_ref()?.terms.owner.as_ref()?;
        Some(owner.drain.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Option<Waiting>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Future for OnUpgrade {
    type Output = io::Result<Upgraded>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<Upgraded>> {
        let mut waiting = self.lock();
        let Some(Waiting { connection, .. }) = &mut *waiting else {
            let why = "the answer was no upgrade, or somebody else has its connection";
            return Poll::Ready(Err(io::Error::other(why)));
        };
        let connection = ready!(Pin::new(connection).poll(cx));
        let Some(Waiting { terms, .. }) = waiting.take() else {
            return Poll::Pending;
        };
        Poll::Ready(match connection {
            Ok(connection) => Ok(Upgraded::new(connection, terms)),
            Err(error) => Err(io::Error::other(error)),
        })
    }
}

impl fmt::Debug for OnUpgrade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnUpgrade").finish_non_exhaustive()
    }
}

/// The connection of an upgraded call.
///
/// Where it was cut from this side, reading and writing fail with an [`Error`] inside the [`io::Error`], that has the
/// [`Reason`].
pub struct Upgraded {
    io: TokioIo<hyper::upgrade::Upgraded>,
    terms: Terms,
    last_byte: Instant,
    reading: Cut,
    writing: Cut,
}

#[derive(Clone, Copy)]
enum Direction {
    Reading,
    Writing,
}

/// What ends one direction that waits. Each has its own, for each has its own task.
#[derive(Default)]
struct Cut {
    cancelled: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    silent: Option<Pin<Box<Sleep>>>,
}

impl Upgraded {
    fn new(connection: hyper::upgrade::Upgraded, terms: Terms) -> Self {
        Self {
            io: TokioIo::new(connection),
            terms,
            last_byte: Instant::now(),
            reading: Cut::default(),
            writing: Cut::default(),
        }
    }

    /// Does `work` in one direction, unless the connection is to end.
    fn go<T>(
        &mut self,
        direction: Direction,
        cx: &mut Context<'_>,
        work: impl FnOnce(
            Pin<&mut TokioIo<hyper::upgrade::Upgraded>>,
            &mut Context<'_>,
        ) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if let Some(owner) = &self.terms.owner
            && owner.drain.is_cancelled()
        {
            // Looked at first, or a connection that is always busy would outlive its end.
            return Poll::Ready(Err(owner.cut(Reason::DrainCancelled)));
        }
        if let Poll::Ready(done) = work(Pin::new(&mut self.io), cx) {
            self.last_byte = Instant::now();
            return Poll::Ready(done);
        }
        let Some(owner) = &self.terms.owner else {
            return Poll::Pending;
        };
        let cut = match direction {
            Direction::Reading => &mut self.reading,
            Direction::Writing => &mut self.writing,
        };
        let reason = ready!(cut.poll(owner, self.last_byte, cx));
        Poll::Ready(Err(owner.cut(reason)))
    }
}

impl Owner {
    fn cut(&self, reason: Reason) -> io::Error {
        let kind = match reason {
            Reason::StreamIdle => io::ErrorKind::TimedOut,
            _ => io::ErrorKind::ConnectionAborted,
        };
        let error = Error::new(Kind::Refused(reason)).of_plugin(&self.plugin);
        io::Error::new(kind, error)
    }
}

impl Cut {
    /// Why a direction that waits is to end.
    fn poll(&mut self, owner: &Owner, last_byte: Instant, cx: &mut Context<'_>) -> Poll<Reason> {
        let cancelled = self.cancelled.get_or_insert_with(|| {
            let drain = owner.drain.clone();
            Box::pin(async move { drain.cancelled().await })
        });
        if cancelled.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Reason::DrainCancelled);
        }
        // A time too far for the clock never comes.
        let Some(end) = owner
            .stream_idle
            .and_then(|idle| last_byte.checked_add(idle))
        else {
            return Poll::Pending;
        };
        let silent = self
            .silent
            .get_or_insert_with(|| Box::pin(sleep_until(end)));
        if silent.deadline() < end {
            silent.as_mut().reset(end);
        }
        ready!(silent.as_mut().poll(cx));
        Poll::Ready(Reason::StreamIdle)
    }
}

impl AsyncRead for Upgraded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.go(Direction::Reading, cx, |io, cx| io.poll_read(cx, buf))
    }
}

impl AsyncWrite for Upgraded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.go(Direction::Writing, cx, |io, cx| io.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.go(Direction::Writing, cx, |io, cx| {
            io.poll_write_vectored(cx, bufs)
        })
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

impl fmt::Debug for Upgraded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plugin = self.terms.owner.as_ref().map(|owner| &*owner.plugin);
        f.debug_struct("Upgraded")
            .field("plugin", &plugin)
            .finish_non_exhaustive()
    }
}
