//! One request and its response, whatever the protocol.

use std::sync::Arc;

use ::http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use tower_plugins_layers::{BoxError, Reason, Refused, Unsent};

use super::body::{Hold, ResponseBody};
use super::error::{
    TurnedAway, at, connect_failed, hinted, lost, request_broken, turned_away, unanswered,
};
use super::gunzip;
use super::head::{Asked, strip_response, strip_upgrade};
use super::pool::{Endpoint, Lease, Pool};
use super::upload::Upload;
use crate::Body;
use crate::transport::ResponseFuture;
use crate::upgrade::OnUpgrade;

/// How often a request may come back unsent from a used connection before it gets a new one.
const USED_TRIES: u32 = 3;

/// How often a request may meet a peer that goes away without taking it.
const LEFT_TRIES: u32 = 8;

enum Failed {
    Unsent(Box<Request<Body>>, Refused),
    /// It came too late for a peer that goes away.
    Left(Box<Request<Body>>, Refused),
    Other(BoxError),
}

/// How often a request went nowhere.
#[derive(Default)]
struct Tries {
    unsent: u32,
    left: u32,
}

/// Sends at once if a connection is ready, which makes hyper's future all there is to box.
pub(super) fn call<P: Pool>(pool: &Arc<P>, mut request: Request<Body>) -> ResponseFuture<'_> {
    let endpoint = pool.endpoint();
    let asked = match endpoint.origin.address(&mut request) {
        Ok(asked) => asked,
        Err(error) => {
            let error = at(&endpoint.name, "addressing a request to", error);
            return Box::pin(std::future::ready(Err(error)));
        }
    };
    let mut upload = Upload::of(&mut request);
    let Some(mut lease) = pool.checkout() else {
        return Box::pin(wherever_possible(
            pool,
            request,
            upload,
            asked,
            Tries::default(),
        ));
    };
    let sent = match lease.send(request) {
        Ok(sent) => sent,
        Err(request) => {
            let tries = Tries { unsent: 1, left: 0 };
            return Box::pin(wherever_possible(pool, *request, upload, asked, tries));
        }
    };
    Box::pin(async move {
        match conclude(pool.endpoint(), lease, &mut upload, asked, sent.await) {
            Ok(response) => Ok(response),
            // Out of line: its state is larger than this one's, and seldom needed.
            Err(Failed::Unsent(request, _)) => {
                let tries = Tries { unsent: 1, left: 0 };
                Box::pin(wherever_possible(pool, *request, upload, asked, tries)).await
            }
            Err(Failed::Left(request, _)) => {
                let tries = Tries { unsent: 0, left: 1 };
                Box::pin(wherever_possible(pool, *request, upload, asked, tries)).await
            }
            Err(Failed::Other(error)) => Err(error),
        }
    })
}

async fn wherever_possible<P: Pool>(
    pool: &Arc<P>,
    mut request: Request<Body>,
    mut upload: Upload,
    asked: Asked,
    mut tries: Tries,
) -> Result<Response<Body>, BoxError> {
    loop {
        let fresh = tries.unsent >= USED_TRIES;
        let mut lease = match pool.acquire(fresh).await {
            Ok(lease) => lease,
            Err(refused) => {
                return Err(unsent(
                    pool.endpoint(),
                    Some(request),
                    upload,
                    asked,
                    refused,
                ));
            }
        };
        let concluded = match lease.send(request) {
            Ok(sent) => conclude(pool.endpoint(), lease, &mut upload, asked, sent.await),
            Err(back) => {
                let lost = lost(&pool.endpoint().name, "the connection closed");
                Err(Failed::Unsent(back, lost))
            }
        };
        match concluded {
            Ok(response) => return Ok(response),
            Err(Failed::Unsent(back, lost)) => {
                if fresh {
                    return Err(unsent(pool.endpoint(), Some(*back), upload, asked, lost));
                }
                tries.unsent += 1;
                request = *back;
            }
            Err(Failed::Left(back, lost)) => {
                tries.left += 1;
                if tries.left >= LEFT_TRIES {
                    return Err(unsent(pool.endpoint(), Some(*back), upload, asked, lost));
                }
                request = *back;
            }
            Err(Failed::Other(error)) => return Err(error),
        }
    }
}

fn unsent(
    endpoint: &Endpoint,
    mut request: Option<Request<Body>>,
    mut upload: Upload,
    asked: Asked,
    cause: Refused,
) -> BoxError {
    if let Some(request) = &mut request {
        upload.release(request);
        endpoint.origin.release(request, asked);
    }
    Unsent::new(request, cause).into()
}

fn conclude<L: Lease>(
    endpoint: &Endpoint,
    lease: L,
    upload: &mut Upload,
    asked: Asked,
    outcome: Result<Response<Incoming>, TrySendError<Request<Body>>>,
) -> Result<Response<Body>, Failed> {
    let mut error = match outcome {
        Ok(response) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
            return upgrade(endpoint, lease.into(), asked.upgrade, response).map_err(Failed::Other);
        }
        Ok(response) => {
            let mut upload = std::mem::take(upload);
            upload.forget();
            return respond(endpoint, lease.into(), upload, asked.gzip, response)
                .map_err(Failed::Other);
        }
        Err(error) => error,
    };
    if let Some(why) = lease.refusal() {
        // It would refuse the next connection too.
        let refused = connect_failed(&endpoint.name, why);
        let upload = std::mem::take(upload);
        let unsent = unsent(endpoint, error.take_message(), upload, asked, refused);
        return Err(Failed::Other(unsent));
    }
    if let Some(request) = error.take_message() {
        let lost = lost(&endpoint.name, hinted(lease.hint(), error.into_error()));
        return Err(Failed::Unsent(Box::new(request), lost));
    }
    if let Some(failure) = upload.failure() {
        return Err(Failed::Other(request_broken(&endpoint.name, failure)));
    }
    let error = error.into_error();
    if !lease.wrote() && !error.is_user() && !error.is_parse() {
        let lost = lost(&endpoint.name, hinted(lease.hint(), error));
        return Err(match upload.again() {
            Some(mut request) => {
                *upload = Upload::of(&mut request);
                Failed::Unsent(Box::new(request), lost)
            }
            None => Failed::Other(unsent(endpoint, None, std::mem::take(upload), asked, lost)),
        });
    }
    let Some(turned_away) = turned_away(&error) else {
        let error = unanswered(&endpoint.name, lease.hint(), error);
        return Err(Failed::Other(error));
    };
    let again = upload.again();
    let lost = lost(&endpoint.name, error);
    Err(match (again, turned_away) {
        (Some(mut request), TurnedAway::Leaving) => {
            *upload = Upload::of(&mut request);
            Failed::Left(Box::new(request), lost)
        }
        // One that refuses may have too much to do: whether to ask it again is for retries to say.
        (request, _) => Failed::Other(unsent(
            endpoint,
            request,
            std::mem::take(upload),
            asked,
            lost,
        )),
    })
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
    gzip: bool,
    mut response: Response<Incoming>,
) -> Result<Response<Body>, BoxError> {
    strip_response(response.headers_mut());
    let gzip = gzip && gunzip::take(response.headers_mut());
    let (head, body) = response.into_parts();
    let body = ResponseBody::wrap(endpoint, hold, upload, body, gzip)?;
    Ok(Response::from_parts(head, body))
}
