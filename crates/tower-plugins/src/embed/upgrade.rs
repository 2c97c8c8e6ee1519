//! Both sides of an upgraded connection, joined.

use std::hash::{BuildHasher, RandomState};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::ext::Protocol;
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;
use tower_plugins_layers::BoxError;
use tower_plugins_layers::drain::DrainHold;

use super::respond::Dialect;
use crate::Body;
use crate::upgrade::{OnUpgrade, on};

/// The caller's side of a request that asks for an upgrade.
#[derive(Debug)]
pub(super) struct Caller {
    connection: hyper::upgrade::OnUpgrade,
    is_http2: bool,
    /// What the program itself counts the call by, if it has a drain around the route.
    drain: Option<DrainHold>,
}

impl Caller {
    /// That of `request`, if it asks for an upgrade and came over a connection that can be upgraded. A WebSocket over
    /// HTTP/2 is made one over HTTP/1.1.
    pub(super) fn of<B>(request: &mut Request<B>) -> Option<Self> {
        let is_http2 = from_http2(request);
        if !request.headers().contains_key(UPGRADE) {
            return None;
        }
        let extensions = request.extensions();
        Some(Self {
            connection: extensions.get().cloned()?,
            is_http2,
            drain: extensions.get().cloned(),
        })
    }

    /// If `response` grants the upgrade with a connection: joins the two, in a task that is counted with the plugin's
    /// calls, and with those of a [`Drain`](tower_plugins_layers::Drain) around the route, and ends when one of them is
    /// cancelled.
    pub(super) fn join(self, response: &mut Response<Body>) {
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            if self.is_http2 && response.status().is_success() {
                // To a `CONNECT` it would say that there is a tunnel.
                let message = "the plugin answered, and opened no WebSocket";
                *response = Dialect::http().say(StatusCode::BAD_GATEWAY, 0, message);
            }
            return;
        }
        if self.is_http2 {
            to_http2(response);
        }
        if response.extensions().get::<OnUpgrade>().is_none() {
            // A service of this program has taken the caller's side itself.
            return;
        }
        let plugin = on(response);
        let drains = [plugin.drain(), self.drain];
        let talk = async {
            let mut caller = TokioIo::new(self.connection.await?);
            let mut plugin = plugin.await?;
            copy_bidirectional(&mut caller, &mut plugin).await?;
            Ok::<_, BoxError>(())
        };
        tokio::spawn(async move {
            // Dropped when it is cancelled: a side that takes no bytes must not hold it up.
            let [plugins, programs] = drains;
            match kept(programs, kept(plugins, talk)).await.flatten() {
                Some(Ok(())) => {}
                Some(Err(error)) => tracing::debug!(%error, "an upgraded connection broke"),
                None => tracing::debug!("an upgraded connection was cut: it outlived its drain"),
            }
        });
    }
}

/// Makes a request for a WebSocket over HTTP/2 (RFC 8441, section 5) one of HTTP/1.1; says whether it was one.
fn from_http2<B>(request: &mut Request<B>) -> bool {
    let is_websocket = |protocol: &Protocol| protocol.as_str() == "websocket";
    if *request.method() != Method::CONNECT || !request.extensions().get().is_some_and(is_websocket)
    {
        return false;
    }
    request.extensions_mut().remove::<Protocol>();
    *request.method_mut() = Method::GET;
    let headers = request.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    // It is there so that no server of another protocol takes the request for its own, and is no secret.
    let nonce = [0, 1].map(|half| RandomState::new().hash_one(half).to_ne_bytes());
    if let Ok(key) = HeaderValue::try_from(BASE64_STANDARD.encode(nonce.as_flattened())) {
        headers.insert(SEC_WEBSOCKET_KEY, key);
    }
    true
}

/// Makes the answer that grants it one of HTTP/2.
fn to_http2<B>(response: &mut Response<B>) {
    *response.status_mut() = StatusCode::OK;
    for name in [CONNECTION, UPGRADE, SEC_WEBSOCKET_ACCEPT] {
        response.headers_mut().remove(name);
    }
}

/// Does `work` while `drain` counts it; `None` if that cancels it.
async fn kept<F: Future>(drain: Option<DrainHold>, work: F) -> Option<F::Output> {
    match drain {
        Some(drain) => drain.keep(work).await,
        None => Some(work.await),
    }
}
