//! One request and its response, whatever the protocol.

use std::sync::Arc;

use ::http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use tower_plugins_layers::{BoxError, Reason, Refused, Unsent};

use super::body::{Hold, ResponseBody};
use super::error::{at, connect_failed, lost, request_broken, unanswered};
use super::head::{strip_response, strip_upgrade};
use super::pool::{Endpoint, Lease, Pool};
use super::upload::Upload;
use crate::Body;
use crate::transport::ResponseFuture;
use crate::upgrade::OnUpgrade;

/// How often a request may come back unsent from a used connection before it gets a new one.
const USED_TRIES: u32 = 3;

enum Failed {
    Unsent(Box<Request<Body>>, Refused),
    Other(BoxError),
}

/// Sends at once if a connection is ready, which makes hyper's future all there is to box.
pub(super) fn call<P: Pool>(pool: &Arc<P>, mut request: Request<Body>) -> ResponseFuture<'_> {
    let endpoint = pool.endpoint();
    let upgrades = match endpoint.origin.address(&mut request) {
        Ok(upgrades) => upgrades,
        Err(error) => {
            let error = at(&endpoint.name, "addressing a request to", error);
            return Box::pin(std::future::ready(Err(error)));
        }
    };
    let mut upload = Upload::of(&mut request);
    let Some(mut lease) = pool.checkout() else {
        return Box::pin(wherever_possible(pool, request, upload, upgrades, 0));
    };
    let sent = lease.send(request);
    Box::pin(async move {
        match conclude(pool.endpoint(), lease, &mut upload, upgrades, sent.await) {
            Ok(response) => Ok(response),
            // Out of line: its state is larger than this one's, and seldom needed.
            Err(Failed::Unsent(request, _)) => {
                Box::pin(wherever_possible(pool, *request, upload, upgrades, 1)).await
            }
            Err(Failed::Other(error)) => Err(error),
        }
    })
}

async fn wherever_possible<P: Pool>(
    pool: &Arc<P>,
    mut request: Request<Body>,
    mut upload: Upload,
    upgrades: bool,
    mut tries: u32,
) -> Result<Response<Body>, BoxError> {
    loop {
        let fresh = tries >= USED_TRIES;
        let mut lease = match pool.acquire(fresh).await {
            Ok(lease) => lease,
            Err(refused) => return Err(unsent(pool.endpoint(), Some(request), upload, refused)),
        };
        let outcome = lease.send(request).await;
        match conclude(pool.endpoint(), lease, &mut upload, upgrades, outcome) {
            Ok(response) => return Ok(response),
            Err(Failed::Unsent(back, lost)) if fresh => {
                return Err(unsent(pool.endpoint(), Some(*back), upload, lost));
            }
            Err(Failed::Unsent(back, _)) => request = *back,
            Err(Failed::Other(error)) => return Err(error),
        }
        tries += 1;
    }
}

fn unsent(
    endpoint: &Endpoint,
    mut request: Option<Request<Body>>,
    mut upload: Upload,
    cause: Refused,
) -> BoxError {
    if let Some(request) = &mut request {
        upload.release();
        endpoint.origin.release(request);
    }
    Unsent::new(request, cause).into()
}

fn conclude<L: Lease>(
    endpoint: &Endpoint,
    lease: L,
    upload: &mut Upload,
    upgrades: bool,
    outcome: Result<Response<Incoming>, TrySendError<Request<Body>>>,
) -> Result<Response<Body>, Failed> {
    let mut error = match outcome {
        Ok(response) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
            return upgrade(endpoint, lease.into(), upgrades, response).map_err(Failed::Other);
        }
        Ok(response) => {
            let upload = std::mem::take(upload);
            return respond(endpoint, lease.into(), upload, response).map_err(Failed::Other);
        }
        Err(error) => error,
    };
    if let Some(why) = lease.refusal() {
        // It would refuse the next connection too.
        let refused = connect_failed(&endpoint.name, why);
        let upload = std::mem::take(upload);
        let unsent = unsent(endpoint, error.take_message(), upload, refused);
        return Err(Failed::Other(unsent));
    }
    if let Some(request) = error.take_message() {
        let lost = lost(&endpoint.name, error.into_error());
        return Err(Failed::Unsent(Box::new(request), lost));
    }
    Err(Failed::Other(match upload.failure() {
        Some(failure) => request_broken(&endpoint.name, failure),
        None => unanswered(&endpoint.name, error.into_error()),
    }))
}

/// A call that is over, and its connection is not: that holds its place from now on.
fn upgrade(
    endpoint: &Endpoint,
    hold: Hold,
    asked: bool,
    mut response: Response<Incoming>,
) -> Result<Response<Body>, BoxError> {
    if !asked {
        let cause = "it switched to another protocol, which nobody asked for";
        let cause = at(&endpoint.name, "calling", cause);
        return Err(Refused::new(Reason::ConnectionLost).caused_by(cause).into());
    }
    strip_upgrade(response.headers_mut());
    let connection = hyper::upgrade::on(&mut response);
    let (mut head, _) = response.into_parts();
    head.extensions.insert(OnUpgrade::new(connection, hold));
    Ok(Response::from_parts(head, Body::empty()))
}

fn respond(
    endpoint: &Endpoint,
    hold: Hold,
    upload: Upload,
    mut response: Response<Incoming>,
) -> Result<Response<Body>, BoxError> {
    strip_response(response.headers_mut());
    let (head, body) = response.into_parts();
    let body = ResponseBody::wrap(endpoint, hold, upload, body)?;
    Ok(Response::from_parts(head, body))
}
