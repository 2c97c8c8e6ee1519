//! What every layer keeps to, as functions that panic where it does not.
//!
//! Each takes a layer that lets a plain call through. The layer is applied anew for every call, as
//! axum does, wherever the contract is not about one service.

#![allow(clippy::expect_used)] // a test that fails panics

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use tower_layer::Layer;
use tower_service::Service;

use super::{Answer, Probe};
use crate::BoxError;

/// The request body of the contract's calls.
pub type RequestBody = Full<Bytes>;

/// A service that a layer made of a [`Probe`], usable in both call forms.
pub trait Layered<RB>:
    Service<Request<RequestBody>, Response = Response<RB>, Error = BoxError, Future: Send>
    + Clone
    + Send
    + Sync
    + 'static
{
}

impl<S, RB> Layered<RB> for S where
    S: Service<Request<RequestBody>, Response = Response<RB>, Error = BoxError, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static
{
}

fn request() -> Request<RequestBody> {
    Request::new(Full::new(Bytes::from_static(b"ask")))
}

async fn ready<S, R>(service: &mut S) -> Result<(), S::Error>
where
    S: Service<R>,
{
    poll_fn(|cx| service.poll_ready(cx)).await
}

/// One call of `service`, made ready before.
///
/// # Errors
/// Those of `service`.
pub async fn call<S, RB>(mut service: S) -> Result<Response<RB>, BoxError>
where
    S: Service<Request<RequestBody>, Response = Response<RB>, Error = BoxError>,
{
    ready(&mut service).await?;
    service.call(request()).await
}

fn message(error: &BoxError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// Reads a probe's response to its end and looks at it.
pub async fn read_whole<RB>(response: Response<RB>)
where
    RB: Body<Data = Bytes, Error: Into<BoxError>>,
{
    let whole = response
        .into_body()
        .collect()
        .await
        .map_err(Into::into)
        .expect("a whole body");
    assert_eq!(
        whole
            .trailers()
            .and_then(|t| t.get("end"))
            .expect("trailers"),
        "here"
    );
    assert_eq!(whole.to_bytes(), "onetwo");
}

/// A call's response, frames and trailers come through; nothing is alive afterwards.
pub async fn passes_a_call_through<L, S, RB>(layer: L)
where
    L: Layer<Probe, Service = S>,
    S: Layered<RB>,
    RB: Body<Data = Bytes, Error: Into<BoxError>>,
{
    let probe = Probe::new(Answer::Frames);
    let journal = probe.journal();
    for n in 1..=3 {
        let response = call(layer.layer(probe.clone())).await.expect("a response");
        read_whole(response).await;
        assert_eq!(
            (journal.calls(), journal.under_way(), journal.bodies()),
            (n, 0, 0)
        );
    }
    let empty = call(layer.layer(Probe::new(Answer::Empty)))
        .await
        .expect("a response");
    assert_eq!(
        empty
            .into_body()
            .collect()
            .await
            .map_err(Into::into)
            .expect("a body")
            .to_bytes(),
        ""
    );
}

/// Only an instance that was ready is called, and a clone is not ready: the probe panics otherwise.
pub async fn calls_only_what_it_found_ready<L, S, RB>(layer: L)
where
    L: Layer<Probe, Service = S>,
    S: Layered<RB>,
    RB: Body<Data = Bytes, Error: Into<BoxError>>,
{
    let mut first = layer.layer(Probe::new(Answer::Frames));
    ready(&mut first).await.expect("ready");
    let second = first.clone();
    let under_way = first.call(request());
    read_whole(call(second).await.expect("a response")).await;
    read_whole(under_way.await.expect("a response")).await;
    ready(&mut first).await.expect("ready again");
    read_whole(first.call(request()).await.expect("a response")).await;
}

/// A service that was ready and is dropped without a call keeps nothing from the others.
pub async fn readiness_reserves_nothing<L, S, RB>(layer: L)
where
    L: Layer<Probe, Service = S>,
    S: Layered<RB>,
    RB: Body<Data = Bytes, Error: Into<BoxError>>,
{
    let service = layer.layer(Probe::new(Answer::Frames));
    let mut idle = Vec::new();
    for _ in 0..100 {
        let mut one = service.clone();
        ready(&mut one).await.expect("ready");
        idle.push(one);
    }
    read_whole(call(service).await.expect("a response")).await;
}

/// An error of the service inside reaches the caller, at the latest in the error's chain.
pub async fn an_inner_error_reaches_the_caller<L, S, RB>(layer: L)
where
    L: Layer<Probe, Service = S>,
    S: Layered<RB>,
    RB: Body<Data = Bytes, Error: Into<BoxError>>,
{
    let Err(error) = call(layer.layer(Probe::new(Answer::Error("inner broke")))).await else {
        panic!("no error from the call");
    };
    assert!(
        message(&error).contains("inner broke"),
        "{}",
        message(&error)
    );
    let Err(error) = call(layer.layer(Probe::never_ready("not today"))).await else {
        panic!("no error from readiness");
    };
    assert!(message(&error).contains("not today"), "{}", message(&error));
    let body = call(layer.layer(Probe::new(Answer::BodyError("body broke"))))
        .await
        .expect("a head");
    let Err(error) = body.into_body().collect().await.map_err(Into::into) else {
        panic!("no error from the body");
    };
    assert!(
        message(&error).contains("body broke"),
        "{}",
        message(&error)
    );
}

/// A call that is dropped is dropped inside too, whether its head has come or not.
pub async fn a_dropped_call_is_dropped_inside<L, S, RB>(layer: L)
where
    L: Layer<Probe, Service = S>,
    S: Layered<RB>,
    RB: Body<Data = Bytes, Error: Into<BoxError>>,
{
    let probe = Probe::new(Answer::Never);
    let journal = probe.journal();
    {
        let mut under_way = pin!(call(layer.layer(probe)));
        // Poll until the inner call has begun, and once more.
        for _ in 0..10 {
            poll_fn(|cx| Poll::Ready(under_way.as_mut().poll(cx).is_pending())).await;
        }
        assert_eq!((journal.calls(), journal.under_way()), (1, 1));
    }
    assert_eq!(journal.under_way(), 0);

    let probe = Probe::new(Answer::Silence);
    let journal = probe.journal();
    let response = call(layer.layer(probe)).await.expect("a head");
    assert_eq!(journal.bodies(), 1);
    drop(response);
    assert_eq!(journal.bodies(), 0);
}

/// What a layer holds for a call is given back however the call ends, so that a thousand calls of
/// each kind do not wear it out; between them a second goes by.
pub async fn holds_nothing_after_a_call<L, S, RB>(layer: L)
where
    L: Layer<Probe, Service = S>,
    S: Layered<RB>,
    RB: Body<Data = Bytes, Error: Into<BoxError>>,
{
    let silent = layer.layer(Probe::new(Answer::Silence));
    let never = layer.layer(Probe::new(Answer::Never));
    for _ in 0..1000 {
        drop(call(silent.clone()).await.expect("a head"));
        {
            let mut under_way = pin!(call(never.clone()));
            for _ in 0..10 {
                poll_fn(|cx| Poll::Ready(under_way.as_mut().poll(cx).is_pending())).await;
            }
        }
        drop(
            call(layer.layer(Probe::new(Answer::Frames)))
                .await
                .expect("a response"),
        );
        tokio::time::advance(Duration::from_secs(1)).await;
    }
}

/// Makes a module of tests: the whole contract, for one layer.
///
/// The layer must let two calls through at once and some a second, and is made once a test.
///
/// ```
/// tower_plugins_layers::contract!(identity, tower_layer::Identity::new());
/// ```
#[macro_export]
macro_rules! contract {
    ($name:ident, $layer:expr) => {
        mod $name {
            #[allow(unused_imports)]
            use super::*;

            $crate::contract!(@tests $layer;
                passes_a_call_through
                calls_only_what_it_found_ready
                readiness_reserves_nothing
                an_inner_error_reaches_the_caller
                a_dropped_call_is_dropped_inside
                holds_nothing_after_a_call
            );

            // Written out because the bound `for<'a> &'a S: Service` sends inference of a generic
            // function round in circles.
            #[tokio::test(start_paused = true)]
            async fn passes_a_call_through_by_reference() {
                use $crate::test_util::{Answer, Probe, contract};
                let probe = Probe::new(Answer::Frames);
                let journal = probe.journal();
                let service = ::tower_layer::Layer::layer(&$layer, probe);
                for n in 1..=3 {
                    let response = contract::call(&service).await.expect("a response");
                    contract::read_whole(response).await;
                    assert_eq!((journal.calls(), journal.under_way(), journal.bodies()), (n, 0, 0));
                }
            }
        }
    };
    (@tests $layer:expr; $($test:ident)*) => {
        $(
            #[tokio::test(start_paused = true)]
            async fn $test() {
                $crate::test_util::contract::$test($layer).await;
            }
        )*
    };
}
