//! Both sides of an upgraded connection, joined.

use std::hash::{BuildHasher, RandomState};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::ext::Protocol;
use hyper_util::rt::TokioIo;
use sha1::{Digest, Sha1};
use tokio::io::copy_bidirectional;
use tower_plugins_layers::BoxError;
use tower_plugins_layers::drain::DrainHold;

use super::respond::Dialect;
use crate::Body;
use crate::error::{Error, Kind};
use crate::upgrade::{OnUpgrade, on};

/// What a server puts after a WebSocket's key before it takes the SHA-1 of both (RFC 6455, section 1.3).
const AFTER_KEY: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The caller's side of a request that asks for an upgrade.
#[derive(Debug)]
pub(super) struct Caller {
    connection: hyper::upgrade::OnUpgrade,
    /// Of a WebSocket over HTTP/2: what the answer to the key that stands in its place must be.
    accept: Option<String>,
    /// What the program itself counts the call by, if it has a drain around the route.
    drain: Option<DrainHold>,
}

impl Caller {
    /// That of `request`, if it asks for an upgrade and came over a connection that can be upgraded. A WebSocket over
    /// HTTP/2 is made one over HTTP/1.1.
    pub(super) fn of<B>(request: &mut Request<B>) -> Option<Self> {
        let accept = from_http2(request);
        if !request.headers().contains_key(UPGRADE) {
            return None;
        }
        let extensions = request.extensions();
        Some(Self {
            connection: extensions.get().cloned()?,
            accept,
            drain: extensions.get().cloned(),
        })
    }

    /// If `response` grants the upgrade with a connection: joins the two, in a task that is counted with the plugin's
    /// calls, and with those of a [`Drain`](tower_plugins_layers::Drain) around the route, and ends when one of them is
    /// cancelled.
    ///
    /// # Errors
    /// If the key was made here, and `response` does not answer to it: whoever sent it is no server of WebSockets. What
    /// answers to a caller's own key is the caller's to check.
    pub(super) fn join(self, response: &mut Response<Body>) -> Result<(), Error> {
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            if self.accept.is_some() && response.status().is_success() {
                // To a `CONNECT` it would say that there is a tunnel.
                let message = "the plugin answered, and opened no WebSocket";
                *response = Dialect::http().say(StatusCode::BAD_GATEWAY, 0, message);
            }
            return Ok(());
        }
        if let Some(accept) = &self.accept {
            let answered = response.headers().get(SEC_WEBSOCKET_ACCEPT);
            if answered.is_none_or(|answered| answered.as_bytes() != accept.as_bytes()) {
                let why = "its 101 has no `sec-websocket-accept` that answers to the key: it does not speak WebSocket";
                return Err(Error::caused_by(Kind::Other, why));
            }
            to_http2(response);
        }
        if response.extensions().get::<OnUpgrade>().is_none() {
            // A service of this program has taken the caller's side itself.
            return Ok(());
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
        Ok(())
    }
}

/// Makes a request for a WebSocket over HTTP/2 (RFC 8441, section 5) one of HTTP/1.1, with a key: gives what a server must
/// answer to that. `None` if it is none.
fn from_http2<B>(request: &mut Request<B>) -> Option<String> {
    let is_websocket = |protocol: &Protocol| protocol.as_str() == "websocket";
    if *request.method() != Method::CONNECT || !request.extensions().get().is_some_and(is_websocket)
    {
        return None;
    }
    request.extensions_mut().remove::<Protocol>();
    *request.method_mut() = Method::GET;
    let headers = request.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    // It is there so that no server of another protocol takes the request for its own, and is no secret.
    let nonce = [0, 1].map(|half| RandomState::new().hash_one(half).to_ne_bytes());
    let key = BASE64_STANDARD.encode(nonce.as_flattened());
    let accept = accept_of(&key);
    headers.insert(SEC_WEBSOCKET_KEY, HeaderValue::try_from(key).ok()?);
    Some(accept)
}

fn accept_of(key: &str) -> String {
    let hash = Sha1::new().chain_update(key).chain_update(AFTER_KEY);
    BASE64_STANDARD.encode(hash.finalize())
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
