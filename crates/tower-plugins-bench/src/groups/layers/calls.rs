//! The same calls for whatever is measured.

use std::convert::Infallible;
use std::fmt::Debug;
use std::future::{Ready, ready};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderValue, Method, Uri};
use http_body_util::Full;
use tower::ServiceExt;
use tower_service::Service;

use crate::Result;
use crate::groups::full;
use crate::harness::{Run, in_turn, runtime, thread_cpu};

pub(super) type Request = http::Request<Full<Bytes>>;
pub(super) type Response = http::Response<Full<Bytes>>;

/// Answers at once, by value and by reference. What it is asked does not matter.
#[derive(Clone, Copy, Debug)]
pub(super) struct Null;

macro_rules! answer {
    ($service:ty) => {
        impl<B> Service<http::Request<B>> for $service {
            type Response = Response;
            type Error = Infallible;
            type Future = Ready<Result<Response, Infallible>>;

            fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
                Poll::Ready(Ok(()))
            }

            fn call(&mut self, _: http::Request<B>) -> Self::Future {
                ready(Ok(answer()))
            }
        }
    };
}

answer!(Null);
answer!(&Null);

/// Answers every call with an error, which opens a breaker.
#[derive(Clone, Copy, Debug)]
pub(super) struct Broken;

impl<B> Service<http::Request<B>> for Broken {
    type Response = Response;
    type Error = std::io::Error;
    type Future = Ready<Result<Response, std::io::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), std::io::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Request<B>) -> Self::Future {
        ready(Err(std::io::ErrorKind::ConnectionReset.into()))
    }
}

/// Refuses every call, as cheaply as can be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Refusing;

impl<B> Service<http::Request<B>> for Refusing {
    type Response = Response;
    type Error = ();
    type Future = Ready<Result<Response, ()>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Request<B>) -> Self::Future {
        ready(Err(()))
    }
}

pub(super) fn answer() -> Response {
    http::Response::new(Full::new(Bytes::from_static(b"a short answer")))
}

/// A method, a URI, a header and a body.
pub(super) fn request() -> Request {
    let mut request = Request::new(Full::new(Bytes::from_static(b"a short question")));
    // One that may be repeated, so that retry and hedge have something to do.
    *request.method_mut() = Method::PUT;
    *request.uri_mut() = Uri::from_static("/v1/items?limit=10");
    let accept = HeaderValue::from_static("application/json");
    request.headers_mut().insert(http::header::ACCEPT, accept);
    request
}

/// What can be called as everything in tower is: made ready, then called, by value.
pub(super) trait Call<B>:
    Service<Request, Response = http::Response<B>, Error: Debug> + 'static
{
}

impl<S, B> Call<B> for S where
    S: Service<Request, Response = http::Response<B>, Error: Debug> + 'static
{
}

async fn call<S: Call<B>, B>(service: &mut S) -> Result<http::Response<B>> {
    let error = |error: S::Error| format!("{error:?}");
    let ready = service.ready().await.map_err(error)?;
    Ok(ready.call(request()).await.map_err(error)?)
}

/// Calls that are answered, and their bodies read.
pub(super) fn answered<S, B>(make: impl FnOnce() -> Result<S>) -> Result<Run>
where
    S: Call<B>,
    B: http_body::Body<Error: Into<crate::BoxError>> + Unpin,
{
    let runtime = runtime()?;
    let mut service = runtime.block_on(async { make() })?;
    Ok(in_turn(runtime, async move || {
        full::drain(call(&mut service).await?).await
    }))
}

/// Calls that are refused, after those that are needed for that.
pub(super) fn refused<S, B>(before: u64, make: impl AsyncFnOnce() -> Result<S>) -> Result<Run>
where
    S: Call<B>,
{
    let runtime = runtime()?;
    let mut service = runtime.block_on(async {
        let mut service = make().await?;
        for _ in 0..before {
            // Whether they are answered or not.
            let _ = call(&mut service).await;
        }
        Ok::<_, crate::BoxError>(service)
    })?;
    Ok(in_turn(runtime, async move || {
        match service
            .ready()
            .await
            .map_err(|error| format!("{error:?}"))?
            .call(request())
            .await
        {
            Ok(_) => Err("a call was let through".into()),
            Err(error) => {
                std::hint::black_box(error);
                Ok(())
            }
        }
    }))
}

/// Calls with `filled` calls in the window, give or take a quarter: the service is made anew when
/// there are more. Making and filling it counts for nothing.
pub(super) fn windowed<S, B>(filled: u64, make: impl Fn() -> Result<S> + 'static) -> Result<Run>
where
    S: Call<B>,
    B: http_body::Body<Error: Into<crate::BoxError>> + Unpin,
{
    let runtime = runtime()?;
    let mut service: Option<(S, u64)> = None;
    Ok(Box::new(move |mut calls| {
        let mut time = std::time::Duration::ZERO;
        while calls > 0 {
            let (mut one, room) = match service.take() {
                Some((one, room)) if room > 0 => (one, room),
                _ => {
                    let filling = || runtime.block_on(fill(make()?, filled));
                    (crate::harness::uncounted(filling)??, filled / 4)
                }
            };
            let now = calls.min(room);
            let begun = thread_cpu();
            runtime.block_on(async {
                for _ in 0..now {
                    full::drain(call(&mut one).await?).await?;
                }
                Ok::<_, crate::BoxError>(())
            })?;
            time += thread_cpu() - begun;
            service = Some((one, room - now));
            calls -= now;
        }
        Ok(Some(time.into()))
    }))
}

async fn fill<S, B>(mut service: S, calls: u64) -> Result<S>
where
    S: Call<B>,
    B: http_body::Body<Error: Into<crate::BoxError>> + Unpin,
{
    for _ in 0..calls {
        full::drain(call(&mut service).await?).await?;
    }
    Ok(service)
}

/// Calls by reference that are answered.
///
/// A macro, as a bound on all references to a type parameter makes the compiler look at references
/// to everything there is.
macro_rules! by_reference {
    ($stack:expr) => {{
        let runtime = runtime()?;
        let stack = runtime.block_on(async { Ok::<_, crate::BoxError>($stack) })?;
        Ok(in_turn(runtime, async move || {
            full::drain((&stack).call(request()).await?).await
        }))
    }};
}
pub(super) use by_reference;
