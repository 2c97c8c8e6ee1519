//! Services of this program.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Full};
use tower::service_fn;
use tower_plugins::Body;
use tower_plugins::transport::{InProcess, Transport};
use tower_plugins_layers::{BoxError, Reason};
use tower_service::Service;

use super::server::{chain, get};

fn assert_panicked(error: &BoxError, text: &str) {
    assert_eq!(Reason::of(&**error), Some(Reason::Panicked));
    let chain = chain(error);
    assert!(
        chain.contains(text) && chain.contains("in-process service s"),
        "{chain}"
    );
}

#[tokio::test]
async fn a_service_of_the_program_is_called_like_any_endpoint() {
    let service = service_fn(|request: Request<Body>| async move {
        Ok::<_, Infallible>(Response::new(Full::new(
            request.uri().path().to_owned().into(),
        )))
    });
    let service: InProcess = InProcess::new("s", service);
    let transport: &dyn Transport = &service;
    let response = Service::call(&mut &*transport, get("/path")).await.unwrap();
    let body: Bytes = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, "/path");
}

/// Counts how often it was asked, and answers only what was asked first.
#[derive(Clone)]
struct Fussy {
    ready: bool,
    asked: Arc<AtomicUsize>,
}

impl Service<Request<Body>> for Fussy {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        if self.asked.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        assert!(
            std::mem::take(&mut self.ready),
            "called without being ready"
        );
        std::future::ready(Ok(Response::new(Body::from("ready"))))
    }
}

#[tokio::test]
async fn each_call_drives_a_clone_of_its_own_to_readiness() {
    let transport = InProcess::new(
        "s",
        Fussy {
            ready: false,
            asked: Arc::default(),
        },
    );
    for _ in 0..3 {
        assert_eq!(transport.call(get("/")).await.unwrap().status(), 200);
    }
}

#[tokio::test]
async fn a_panic_is_the_error_of_the_one_call() {
    let transport = InProcess::new(
        "s",
        service_fn(|request: Request<Body>| {
            let path = request.uri().path().to_owned();
            assert_ne!(path, "/call", "in call");
            async move {
                assert_ne!(path, "/future", "in the future");
                Ok::<_, Infallible>(Response::new(Body::from("fine")))
            }
        }),
    );
    let mut fine = transport.call(get("/fine"));
    for (path, text) in [("/call", "in call"), ("/future", "in the future")] {
        let error = transport.call(get(path)).await.unwrap_err();
        assert_panicked(&error, text);
    }
    let response = (&mut fine).await.unwrap();
    assert_eq!(
        response.into_body().collect().await.unwrap().to_bytes(),
        "fine"
    );
}

struct Broken;

impl http_body::Body for Broken {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        panic!("in the {}", "body")
    }
}

#[tokio::test]
async fn a_panic_in_the_body_is_the_bodys_error() {
    for boxed in [false, true] {
        let transport = InProcess::new(
            "s",
            service_fn(move |_: Request<Body>| async move {
                let broken = if boxed {
                    Body::new(Body::new(Broken))
                } else {
                    Body::new(Broken)
                };
                Ok::<_, Infallible>(Response::new(broken))
            }),
        );
        let mut body = transport.call(get("/")).await.unwrap().into_body();
        assert_panicked(&body.frame().await.unwrap().unwrap_err(), "in the body");
        assert!(body.frame().await.is_none());
    }
}

#[derive(Clone)]
struct CountsItself(Arc<()>);

impl Service<Request<Body>> for CountsItself {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        let held = self.0.clone();
        Box::pin(async move {
            let _held = held;
            panic!("with something held")
        })
    }
}

#[tokio::test]
async fn what_a_panicked_call_held_is_dropped() {
    let counted = Arc::new(());
    let transport = InProcess::new("s", CountsItself(Arc::clone(&counted)));
    let before = Arc::strong_count(&counted);
    let mut call = transport.call(get("/"));
    assert!((&mut call).await.is_err());
    assert_eq!(Arc::strong_count(&counted), before);
    drop(call);
}

#[test]
fn services_are_equal_by_name() {
    async fn answer(_: Request<Body>) -> Result<Response<Body>, Infallible> {
        Ok(Response::new(Body::empty()))
    }
    let (a, b) = (
        InProcess::new("a", service_fn(answer)),
        InProcess::new("b", service_fn(answer)),
    );
    assert_eq!(a, InProcess::new("a", service_fn(answer)));
    assert_ne!(a, b);
    assert_eq!(a.name(), "a");
}
