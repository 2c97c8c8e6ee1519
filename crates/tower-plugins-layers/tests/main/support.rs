//! What the tests share.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame};
use http_body_util::Full;
use tokio::time::Instant;
use tower::{Service, service_fn};
use tower_plugins_layers::{BoxError, EndOfStream, OnEnd, Reason, Refused};

pub(crate) const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

pub(crate) const fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

pub(crate) fn request() -> Request<()> {
    Request::new(())
}

/// The reason of a result that must be an error.
pub(crate) fn reason<T>(result: Result<T, BoxError>) -> Option<Reason> {
    Reason::of(&*result.err().expect("an error"))
}

pub(crate) fn retry_after<T>(result: Result<T, BoxError>) -> Option<Duration> {
    let error = result.err().expect("an error");
    Refused::find(&*error).expect("a refusal").wait()
}

/// What `future` ends in, and how long it took.
pub(crate) async fn timed<T>(future: impl Future<Output = T>) -> (T, Duration) {
    let start = Instant::now();
    let output = future.await;
    (output, start.elapsed())
}

/// Polls once and says whether it is pending.
pub(crate) async fn is_pending(future: &mut (impl Future + Unpin)) -> bool {
    std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut *future).poll(cx).is_pending())).await
}

/// A body that has a frame whenever it is asked.
#[derive(Debug)]
pub(crate) struct Endless;

impl Body for Endless {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"more")))))
    }
}

/// A count of what is alive, and the most that ever was.
#[derive(Debug, Default)]
pub(crate) struct Census {
    alive: AtomicUsize,
    most: AtomicUsize,
}

impl Census {
    pub(crate) fn alive(&self) -> usize {
        self.alive.load(Ordering::SeqCst)
    }

    pub(crate) fn most(&self) -> usize {
        self.most.load(Ordering::SeqCst)
    }

    pub(crate) fn count(self: &Arc<Self>) -> Counted {
        let alive = self.alive.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(alive, Ordering::SeqCst);
        Counted(Arc::clone(self))
    }
}

/// One that is alive.
#[derive(Debug)]
pub(crate) struct Counted(Arc<Census>);

impl OnEnd for Counted {}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.alive.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A service that takes a few turns of the scheduler, and counts what is alive of its calls.
pub(crate) fn counting(
    census: &Arc<Census>,
) -> impl Service<
    Request<()>,
    Response = Response<EndOfStream<Full<Bytes>, Counted>>,
    Error = BoxError,
    Future: Send,
> + Clone
+ Send
+ 'static {
    let census = Arc::clone(census);
    service_fn(move |_| {
        let counted = census.count();
        async move {
            for _ in 0..fastrand::u32(0..3) {
                tokio::task::yield_now().await;
            }
            let body = Full::new(Bytes::from_static(b"all"));
            Ok(Response::new(EndOfStream::new(body, counted)))
        }
    })
}

/// A runtime on one thread, in paused time.
pub(crate) fn paused() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
}
