//! The lines of JSON that a plugin behind a Unix socket is sent, and answers with.
//!
//! A host connects to the plugin's socket and writes a [`Request`], and a newline; the plugin writes a
//! [`Response`], and a newline. Then the next request may come on the same connection: there is never
//! more than one under way.
//!
//! ```
//! use tower_plugins_proto::line::{Kind, Request, Response};
//!
//! let mut request = Request::new(Kind::Execute, "r-1", 7);
//! request.timeout_ms = Some(5_000);
//! let sent = serde_json::to_string(&request)?;
//! assert_eq!(sent, r#"{"type":"execute","request_id":"r-1","data":7,"timeout_ms":5000}"#);
//!
//! let answer = r#"{"type":"execute","request_id":"r-1","success":true,"data":14}"#;
//! let answer: Response<u32> = serde_json::from_str(answer)?;
//! assert_eq!(answer.request_id, "r-1");
//! assert_eq!(answer.into_result(), Ok(Some(14)));
//! # Ok::<(), serde_json::Error>(())
//! ```

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use crate::envelope::Map;

/// What a line asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Kind {
    /// One call: `data` is what the caller asks.
    Execute,
    /// Whether the plugin is well. `data` is null.
    Health,
    /// What the plugin is: name, version, capabilities. `data` is null.
    Info,
    /// Any answer at all. `data` is null.
    Ping,
}

/// What a plugin is sent. A key it does not know is skipped.
///
/// Where there is nothing to ask, `data` is `null`: `T` is an [`Option`] or `()`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request<'a, T> {
    /// What is asked for.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// Names the call; its answer has it too. Absent is empty.
    #[serde(default)]
    pub request_id: Cow<'a, str>,
    /// What the caller asks.
    pub data: T,
    /// What goes with the call. Left out if empty.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: Map<'a>,
    /// How long the caller still waits, in milliseconds. Left out if it set no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

impl<'a, T> Request<'a, T> {
    /// A request without headers, and without a limit of time.
    #[must_use]
    pub fn new(kind: Kind, request_id: impl Into<Cow<'a, str>>, data: T) -> Self {
        Self {
            kind,
            request_id: request_id.into(),
            data,
            headers: Map::new(),
            timeout_ms: None,
        }
    }
}

/// What a plugin answers. A key that is unknown is skipped; `null` is the same as absent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(bound(deserialize = "T: Deserialize<'de>"))]
pub struct Response<T> {
    /// The request's own, as a rule. A host does not check it.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// The request's own: an answer with another one is not its answer.
    #[serde(default)]
    pub request_id: String,
    /// Whether the plugin did what it was asked. Absent is `false`.
    #[serde(default)]
    pub success: bool,
    /// What the plugin found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<T>,
    /// What went wrong, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What goes with the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headers: Option<BTreeMap<String, String>>,
}

/// The plugin did not do what it was asked, and said so in these words, if in any.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the plugin answered with an error: {0}")]
pub struct Failure(pub String);

impl<T> Response<T> {
    /// The answer to `request` of a plugin that did what it was asked.
    #[must_use]
    pub fn success<R>(request: &Request<'_, R>, data: T) -> Self {
        Self {
            success: true,
            data: Some(data),
            ..Self::to(request)
        }
    }

    /// The answer to `request` of a plugin that did not. `error` says what went wrong.
    #[must_use]
    pub fn failure<R>(request: &Request<'_, R>, error: impl Into<String>) -> Self {
        Self {
            error: Some(error.into()),
            ..Self::to(request)
        }
    }

    fn to<R>(request: &Request<'_, R>) -> Self {
        let kind = match request.kind {
            Kind::Execute => "execute",
            Kind::Health => "health",
            Kind::Info => "info",
            Kind::Ping => "ping",
        };
        Self {
            kind: kind.to_owned(),
            request_id: request.request_id.clone().into_owned(),
            success: false,
            data: None,
            error: None,
            headers: None,
        }
    }

    /// The data, which may be none.
    ///
    /// # Errors
    ///
    /// [`Failure`] unless `success` is true.
    pub fn into_result(self) -> Result<Option<T>, Failure> {
        if self.success {
            return Ok(self.data);
        }
        let said = self.error.filter(|error| !error.is_empty());
        Err(Failure(
            said.unwrap_or_else(|| "it said no more than that".to_owned()),
        ))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{from_str, json, to_string};

    use super::*;

    #[test]
    fn a_request_is_written_in_these_bytes() {
        let mut request = Request::new(Kind::Execute, "r-1", json!({"path": "/tmp"}));
        assert_eq!(
            to_string(&request).unwrap(),
            r#"{"type":"execute","request_id":"r-1","data":{"path":"/tmp"}}"#
        );
        request.headers = Map::from([("X-B".into(), "2".into()), ("X-A".into(), "1".into())]);
        request.timeout_ms = Some(1_500);
        assert_eq!(
            to_string(&request).unwrap(),
            r#"{"type":"execute","request_id":"r-1","data":{"path":"/tmp"},"headers":{"X-A":"1","X-B":"2"},"timeout_ms":1500}"#
        );
        for (kind, text) in [
            (Kind::Health, "health"),
            (Kind::Info, "info"),
            (Kind::Ping, "ping"),
        ] {
            assert_eq!(
                to_string(&Request::new(kind, "", ())).unwrap(),
                format!(r#"{{"type":"{text}","request_id":"","data":null}}"#)
            );
        }
    }

    #[test]
    fn a_request_is_read_back_and_may_leave_out_most() {
        let mut request = Request::new(Kind::Execute, "r-1", 7);
        request.headers = Map::from([("X-A".into(), "1".into())]);
        request.timeout_ms = Some(9);
        let text = to_string(&request).unwrap();
        assert_eq!(from_str::<Request<'_, u32>>(&text).unwrap(), request);
        let ping: Request<'_, Option<u32>> = from_str(r#"{"type":"ping","later":1}"#).unwrap();
        assert_eq!(ping, Request::new(Kind::Ping, "", None));
        assert!(from_str::<Request<'_, ()>>(r#"{"type":"stop","data":null}"#).is_err());
    }

    #[test]
    fn a_request_of_go_plugins_is_read() {
        let text = "{\"type\":\"execute\",\"request_id\":\"req_1757930400000000000\",\
                    \"data\":{\"text\":\"a \\u003c b\"},\"headers\":{\"X-Tenant\":\"seven\"},\"timeout_ms\":5000}\n";
        let mut request = Request::new(
            Kind::Execute,
            "req_1757930400000000000",
            json!({"text": "a < b"}),
        );
        request.headers = Map::from([("X-Tenant".into(), "seven".into())]);
        request.timeout_ms = Some(5_000);
        assert_eq!(from_str::<Request<'_, _>>(text).unwrap(), request);
    }

    #[test]
    fn a_response_is_written_in_these_bytes() {
        let request = Request::new(Kind::Execute, "r-1", ());
        let mut response = Response::success(&request, 7);
        assert_eq!(
            to_string(&response).unwrap(),
            r#"{"type":"execute","request_id":"r-1","success":true,"data":7}"#
        );
        response.headers = Some(BTreeMap::from([("cache".into(), "hit".into())]));
        assert_eq!(
            to_string(&response).unwrap(),
            r#"{"type":"execute","request_id":"r-1","success":true,"data":7,"headers":{"cache":"hit"}}"#
        );
        assert_eq!(
            to_string(&Response::<u32>::failure(&request, "no such file")).unwrap(),
            r#"{"type":"execute","request_id":"r-1","success":false,"error":"no such file"}"#
        );
    }

    #[test]
    fn success_alone_decides_and_what_is_absent_is_false() {
        let read = |text| from_str::<Response<u32>>(text).unwrap().into_result();
        assert_eq!(
            read(r#"{"success":true,"data":7,"error":"odd"}"#),
            Ok(Some(7))
        );
        assert_eq!(read(r#"{"success":true,"data":null}"#), Ok(None));
        let failed = |text: &str| Err(Failure(text.to_owned()));
        assert_eq!(read(r#"{"data":7,"error":"broken"}"#), failed("broken"));
        assert_eq!(
            read(r#"{"success":false,"error":""}"#),
            failed("it said no more than that")
        );
    }
}
