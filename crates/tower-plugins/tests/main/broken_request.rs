//! Callers that go away in the middle of their request's body.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;
use http_body_util::BodyExt;
use tower_plugins::config::{Config, PluginName, PluginSpec};
use tower_plugins::{Blame, Body, Plugins, Reason};

use crate::support::{Server, call, channel, data, echo, get, ours, post, read, within};
use crate::transport::server::EVERY;

/// A body that begins and then fails.
fn broken() -> Body {
    let (sender, body) = channel();
    sender.send(data("some")).unwrap();
    let body = body.map_err(|_| "unused");
    Body::new(body.with_trailers(async { Some(Err::<HeaderMap, _>("the sender went away")) }))
}

#[tokio::test]
async fn callers_that_go_away_open_no_breaker() {
    for (socket, protocol) in EVERY {
        let server = Server::start(socket, protocol, async |request| {
            let _ = request.into_body().collect().await;
            http::Response::new(Body::empty())
        });
        let server = server.await;
        let name = PluginName::new("p").unwrap();
        let mut spec = PluginSpec::new(name, server.address.clone());
        spec.upstream.connection.protocol = protocol;
        let threshold = spec.policy.breaker.as_ref().unwrap().failure_threshold;
        let config = Config::new().with(spec);
        let plugins = Plugins::builder().start(config).await.unwrap();
        let plugin = plugins.plugin("p");
        for _ in 0..=threshold.unwrap() {
            let error = call(&plugin, post("/", broken())).await.unwrap_err();
            assert_eq!(error.reason(), Some(Reason::RequestBroken), "{protocol:?}");
            assert_eq!(error.blame(), Blame::Caller);
        }
        assert_eq!(call(&plugin, get("/")).await.unwrap().status(), 200);
    }
}

/// A body of a program that has a bug.
struct Panics;

impl http_body::Body for Panics {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        panic!("out of cheese")
    }
}

#[tokio::test]
async fn a_request_body_that_panics_is_that_calls_error_and_no_other_s() {
    for (socket, protocol) in EVERY {
        let server = Server::start(socket, protocol, echo).await;
        let name = PluginName::new("p").unwrap();
        let mut spec = PluginSpec::new(name, server.address.clone());
        spec.upstream.connection.protocol = protocol;
        let config = Config::new().with(spec);
        let plugins = Plugins::builder().start(config).await.unwrap();
        let plugin = plugins.plugin("p");
        let (sender, body) = channel();
        sender.send(data("be")).unwrap();
        let beside = call(&plugin, post("/", body)).await.unwrap();
        let error = match call(&plugin, post("/", Body::new(Panics))).await {
            Ok(response) => {
                let error = within(response.into_body().collect()).await.unwrap_err();
                ours(&*error).reason()
            }
            Err(error) => error.reason(),
        };
        assert_eq!(error, Some(Reason::RequestBroken), "{protocol:?}");
        sender.send(data("side")).unwrap();
        drop(sender);
        assert_eq!(read(beside).await, "beside");
    }
}
