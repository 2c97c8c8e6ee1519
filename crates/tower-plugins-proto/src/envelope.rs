//! The JSON that a plugin behind plain HTTP is sent, and answers with.
//!
//! A host posts a [`Request`] to the plugin's URL, exactly as configured, and the plugin answers 200
//! with a [`Response`], whether it succeeded or failed; any other status says that the plugin never
//! came to an answer, and its body is no envelope.
//!
//! ```
//! use std::time::Duration;
//! use tower_plugins_proto::envelope::{Failure, Request, Response};
//!
//! let request = Request::new("r-1", Duration::from_secs(30), 7);
//! let sent = serde_json::to_string(&request)?;
//! assert_eq!(sent, r#"{"data":7,"request_id":"r-1","timeout":"30s"}"#);
//!
//! let answer: Response<u32> = serde_json::from_str(r#"{"error":"no such user","request_id":"r-1"}"#)?;
//! assert_eq!(answer.into_result(), Err(Failure::Plugin("no such user".into())));
//! # Ok::<(), serde_json::Error>(())
//! ```

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::duration;

/// Names and values that travel beside the data, written in the order of their names.
pub type Map<'a> = BTreeMap<Cow<'a, str>, Cow<'a, str>>;

/// What a plugin is sent. A key it does not know is skipped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request<'a, T> {
    /// What the caller asks.
    pub data: T,
    /// Names the call in logs on both sides; also the `X-Request-ID` header. Absent is empty.
    #[serde(default)]
    pub request_id: Cow<'a, str>,
    /// How long the caller still waits, as text; zero, the default, says that it set no limit.
    #[serde(default, with = "duration")]
    pub timeout: Duration,
    /// The call's own headers. Left out if empty.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: Map<'a>,
    /// Anything else that is about the call. Left out if empty.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: Map<'a>,
}

impl<'a, T> Request<'a, T> {
    /// A request without headers and metadata.
    #[must_use]
    pub fn new(request_id: impl Into<Cow<'a, str>>, timeout: Duration, data: T) -> Self {
        Self {
            data,
            request_id: request_id.into(),
            timeout,
            headers: Map::new(),
            metadata: Map::new(),
        }
    }
}

/// What a plugin answers. A key that is unknown is skipped; `null` is the same as absent.
///
/// It follows that data which is itself written as `null`, such as `()`, reads back as no data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(bound(deserialize = "T: Deserialize<'de>"))]
pub struct Response<T> {
    /// What the plugin found; absent if it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<T>,
    /// What went wrong, for people; absent or empty if nothing did.
    #[serde(default, skip_serializing_if = "is_none_or_empty")]
    pub error: Option<String>,
    /// The request's own, repeated. A host does not check it.
    #[serde(default)]
    pub request_id: String,
    /// Anything else that is about the answer. Absent if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<BTreeMap<String, String>>,
}

fn is_none_or_empty(error: &Option<String>) -> bool {
    error.as_deref().is_none_or(str::is_empty)
}

/// Why a [`Response`] holds no data.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// The plugin said so, in these words.
    #[error("the plugin answered with an error: {0}")]
    Plugin(String),
    /// The answer has neither data nor an error.
    #[error("the plugin's answer has neither `data` nor `error`: it must have one of them")]
    Empty,
}

impl<T> Response<T> {
    /// The answer of a plugin that succeeded.
    #[must_use]
    pub fn success(request_id: impl Into<String>, data: T) -> Self {
        Self {
            data: Some(data),
            error: None,
            request_id: request_id.into(),
            metadata: None,
        }
    }

    /// The answer of a plugin that failed. `error` says what went wrong; it must not be empty, or the
    /// answer reads as one without data.
    #[must_use]
    pub fn failure(request_id: impl Into<String>, error: impl Into<String>) -> Self {
        Self {
            data: None,
            error: Some(error.into()),
            request_id: request_id.into(),
            metadata: None,
        }
    }

    /// The data, or why there is none.
    ///
    /// # Errors
    ///
    /// [`Failure::Plugin`] if there is an error that is not empty, even beside data;
    /// [`Failure::Empty`] if there is neither.
    pub fn into_result(self) -> Result<T, Failure> {
        match (self.error, self.data) {
            (Some(error), _) if !error.is_empty() => Err(Failure::Plugin(error)),
            (_, Some(data)) => Ok(data),
            (_, None) => Err(Failure::Empty),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{from_str, json, to_string};

    use super::*;

    #[test]
    fn a_request_is_written_in_these_bytes() {
        let mut request = Request::new("r-1", Duration::from_secs(30), json!({"user": "ann"}));
        assert_eq!(
            to_string(&request).unwrap(),
            r#"{"data":{"user":"ann"},"request_id":"r-1","timeout":"30s"}"#
        );
        request.timeout = Duration::from_millis(1_500);
        request.headers = Map::from([("X-B".into(), "2".into()), ("X-A".into(), "1".into())]);
        request.metadata = Map::from([("tenant".into(), "t".into())]);
        assert_eq!(
            to_string(&request).unwrap(),
            r#"{"data":{"user":"ann"},"request_id":"r-1","timeout":"1.5s","headers":{"X-A":"1","X-B":"2"},"metadata":{"tenant":"t"}}"#
        );
    }

    #[test]
    fn a_request_is_read_back() {
        let mut request = Request::new("r-1", Duration::from_millis(100), 7);
        request.headers = Map::from([("X-A".into(), "1".into())]);
        assert_eq!(
            from_str::<Request<'_, u32>>(&to_string(&request).unwrap()).unwrap(),
            request
        );
    }

    #[test]
    fn a_request_may_leave_out_all_but_the_data() {
        let request: Request<'_, u32> = from_str(r#"{"data":7,"later":true}"#).unwrap();
        assert_eq!(request, Request::new("", Duration::ZERO, 7));
    }

    #[test]
    fn a_timeout_that_is_a_number_is_refused() {
        let error = from_str::<Request<'_, u32>>(r#"{"data":7,"timeout":30}"#).unwrap_err();
        assert!(error.to_string().contains("\"30s\""), "{error}");
    }

    #[test]
    fn a_response_is_written_in_these_bytes() {
        let mut response = Response::success("r-1", 7);
        assert_eq!(
            to_string(&response).unwrap(),
            r#"{"data":7,"request_id":"r-1"}"#
        );
        response.metadata = Some(BTreeMap::from([("cache".into(), "hit".into())]));
        assert_eq!(
            to_string(&response).unwrap(),
            r#"{"data":7,"request_id":"r-1","metadata":{"cache":"hit"}}"#
        );
        let response = Response::<u32>::failure("r-1", "no such user");
        assert_eq!(
            to_string(&response).unwrap(),
            r#"{"error":"no such user","request_id":"r-1"}"#
        );
    }

    #[test]
    fn an_error_wins_over_data_and_an_empty_one_is_none() {
        let read = |text| from_str::<Response<u32>>(text).unwrap().into_result();
        let broken = Err(Failure::Plugin("broken".into()));
        assert_eq!(
            read(r#"{"data":7,"request_id":"r","metadata":null}"#),
            Ok(7)
        );
        assert_eq!(read(r#"{"data":7,"error":""}"#), Ok(7));
        assert_eq!(read(r#"{"data":7,"error":"broken"}"#), broken);
        assert_eq!(read(r#"{"data":null,"error":"broken"}"#), broken);
        assert_eq!(read("{}"), Err(Failure::Empty));
    }
}
