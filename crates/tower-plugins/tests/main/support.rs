//! What the tests of the whole share.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::error::Error as StdError;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use http::{Request, Response};
use tower::ServiceExt;
use tower_plugins::config::{Config, Format};
use tower_plugins::{Body, Error, Plugin, Plugins};
use tower_service::Service;

pub(crate) use crate::transport::server::{
    Server, Socket, channel, data, echo, get, post, read, within,
};

/// The config that `yaml` says.
pub(crate) fn config(yaml: &str) -> Config {
    Config::parse(yaml, Format::Yaml).unwrap()
}

/// Calls `plugin`.
pub(crate) async fn call(plugin: &Plugin, request: Request<Body>) -> Result<Response<Body>, Error> {
    within(plugin.clone().oneshot(request)).await
}

/// Calls `plugin`, and reads the whole answer as text.
pub(crate) async fn text(plugin: &Plugin, request: Request<Body>) -> Result<String, Error> {
    let bytes = read(call(plugin, request).await?).await;
    Ok(String::from_utf8(bytes.to_vec()).unwrap())
}

/// An error and all its causes, in one line.
pub(crate) fn causes(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text = format!("{text}: {error}");
        next = error.source();
    }
    text
}

/// The error that a broken body ended with, as the library's own.
pub(crate) fn ours<'a>(error: &'a (dyn StdError + 'static)) -> &'a Error {
    error.downcast_ref().expect("bodies fail with `Error`")
}

/// A service that answers with the bodies it was given, one a call, and then with `hello`.
#[derive(Clone, Default)]
pub(crate) struct Shelf(Arc<Mutex<VecDeque<Body>>>);

impl Shelf {
    pub(crate) fn put(&self, body: Body) {
        self.0.lock().unwrap().push_back(body);
    }

    /// A set of plugins in which `shelf` names this service.
    pub(crate) async fn start(&self, yaml: &str) -> Plugins {
        Plugins::builder()
            .service("shelf", self.clone())
            .start(config(yaml))
            .await
            .unwrap()
    }
}

impl Service<Request<Body>> for Shelf {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        let body = self.0.lock().unwrap().pop_front();
        std::future::ready(Ok(Response::new(body.unwrap_or_else(|| "hello".into()))))
    }
}

/// Says that a test was skipped, because there is no `peer` here. With `TOWER_PLUGINS_REQUIRE_PEERS=1` that is a failure.
pub(crate) fn skipped(peer: &str) {
    eprintln!("skipped: no {peer} here");
    let required = std::env::var_os("TOWER_PLUGINS_REQUIRE_PEERS");
    assert!(
        required.is_none_or(|required| required != "1"),
        "TOWER_PLUGINS_REQUIRE_PEERS is 1, and there is no {peer} here"
    );
}
