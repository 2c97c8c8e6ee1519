use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header};

use super::handle::Cancelled;
use super::hold::Hold;
use super::{DrainLayer, ResponseBody};
use crate::deadline::is_of_type;
use crate::{BoxError, Reason, Refused};

/// What of a request its response depends on. Small, as each call has it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    /// Seconds after which to come again.
    answer: Option<u32>,
    flags: u8,
}

const CLOSE_CONNECTIONS: u8 = 1;
const HTTP1: u8 = 2;
const GRPC: u8 = 4;
const CONNECT: u8 = 8;
const UPGRADE: u8 = 16;

impl Seen {
    pub(super) fn of<B>(layer: &DrainLayer, request: &Request<B>) -> Self {
        let kind = || request.headers().get(header::CONTENT_TYPE);
        let is_grpc = |kind: &HeaderValue| is_of_type(kind.as_bytes(), b"application/grpc");
        let flags = [
            (CLOSE_CONNECTIONS, layer.close_connections),
            (HTTP1, request.version() < Version::HTTP_2),
            (GRPC, layer.answer.is_some() && kind().is_some_and(is_grpc)),
            (CONNECT, *request.method() == Method::CONNECT),
            (UPGRADE, request.headers().contains_key(header::UPGRADE)),
        ];
        Self {
            answer: layer.answer,
            flags: flags
                .into_iter()
                .filter(|(_, is_so)| *is_so)
                .fold(0, |flags, (flag, _)| flags | flag),
        }
    }

    const fn is(self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Whether its connection may live on without it.
    pub(super) const fn is_upgrade(self) -> bool {
        self.is(CONNECT | UPGRADE)
    }

    /// The response's head has come.
    pub(super) fn at_head<B>(self, hold: &Hold, response: &mut Response<B>) {
        let is_upgraded = response.status() == StatusCode::SWITCHING_PROTOCOLS
            || self.is(CONNECT) && response.status().is_success();
        if is_upgraded {
            if let Hold::Shared(hold) = hold {
                response.extensions_mut().insert(hold.clone());
            }
        } else if self.is(CLOSE_CONNECTIONS) && self.is(HTTP1) && hold.calls().is_closed() {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(header::CONNECTION, close);
        }
    }

    /// The end of a call that got no response.
    pub(super) fn refuse<B>(self, reason: Reason) -> Result<Response<ResponseBody<B>>, BoxError> {
        let Some(seconds) = self.answer else {
            return Err(Refused::new(reason).into());
        };
        let mut response = Response::new(ResponseBody {
            inner: None,
            cancelled: Cancelled::default(),
        });
        let headers = response.headers_mut();
        if self.is(GRPC) {
            let kind = HeaderValue::from_static("application/grpc");
            headers.insert(header::CONTENT_TYPE, kind);
            headers.insert(
                crate::header::GRPC_STATUS.clone(),
                HeaderValue::from_static("14"),
            );
            let message = HeaderValue::from_static(reason.as_str());
            headers.insert("grpc-message", message);
            return Ok(response);
        }
        headers.insert(header::RETRY_AFTER, seconds.into());
        if self.is(HTTP1) {
            let close = HeaderValue::from_static("close");
            headers.insert(header::CONNECTION, close);
        }
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        Ok(response)
    }
}
