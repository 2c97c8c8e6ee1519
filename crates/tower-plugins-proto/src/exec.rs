//! The lines of JSON that a plugin is sent on its standard input, and answers with on its standard output.
//!
//! A host starts the plugin's program and writes a [`Request`], and a newline; the plugin writes a
//! [`Response`], and a newline. Then the next request may come: there is never more than one under way.
//! What the plugin writes to its standard error is its log.
//!
//! ```
//! use tower_plugins_proto::exec::{Request, Response};
//!
//! let request = Request::new("r-1", 7);
//! let sent = serde_json::to_string(&request)?;
//! assert_eq!(
//!     sent,
//!     r#"{"id":"r-1","method":"execute","payload":7,"context":{"request_id":"r-1","timeout":0,"max_retries":0}}"#
//! );
//!
//! let answer: Response<u32> = serde_json::from_str(r#"{"id":"r-1","result":14}"#)?;
//! assert_eq!(answer.into_result(), Ok(Some(14)));
//! # Ok::<(), serde_json::Error>(())
//! ```

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use crate::envelope::Map;
pub use crate::line::Failure;

/// The only method there is.
pub const EXECUTE: &str = "execute";

/// What a plugin is sent. A key it does not know is skipped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request<'a, T> {
    /// Names the call; its answer has it too.
    #[serde(default)]
    pub id: Cow<'a, str>,
    /// [`EXECUTE`].
    #[serde(default)]
    pub method: Cow<'a, str>,
    /// What the caller asks.
    pub payload: T,
    /// What goes with the call.
    #[serde(default)]
    pub context: Context<'a>,
}

/// What goes with a call.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Context<'a> {
    /// The same as the request's `id`.
    #[serde(default)]
    pub request_id: Cow<'a, str>,
    /// How long the caller still waits, in nanoseconds; zero says that it set no limit.
    #[serde(default)]
    pub timeout: u64,
    /// How often the host may ask again: it does so by itself, and says 0.
    #[serde(default)]
    pub max_retries: u32,
    /// The call's own headers. Left out if empty.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: Map<'a>,
    /// Anything else that is about the call. Left out if empty.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: Map<'a>,
}

impl<'a, T> Request<'a, T> {
    /// A request without headers, and without a limit of time.
    #[must_use]
    pub fn new(id: impl Into<Cow<'a, str>>, payload: T) -> Self {
        let id = id.into();
        Self {
            method: EXECUTE.into(),
            payload,
            context: Context {
                request_id: id.clone(),
                ..Context::default()
            },
            id,
        }
    }
}

/// What a plugin answers. A key that is unknown is skipped; `null` is the same as absent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(bound(deserialize = "T: Deserialize<'de>"))]
pub struct Response<T> {
    /// The request's own: an answer with another one is not its answer.
    #[serde(default)]
    pub id: String,
    /// What the plugin found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<T>,
    /// What went wrong, for people. Absent if nothing did; an empty text is a failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl<T> Response<T> {
    /// The answer of a plugin that did what it was asked.
    #[must_use]
    pub fn success(id: impl Into<String>, result: T) -> Self {
        Self {
            id: id.into(),
            result: Some(result),
            error: None,
        }
    }

    /// The answer of a plugin that did not. `error` says what went wrong.
    #[must_use]
    pub fn failure(id: impl Into<String>, error: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            result: None,
            error: Some(error.into()),
        }
    }

    /// The result, which may be none.
    ///
    /// # Errors
    ///
    /// [`Failure`] if there is an error, even beside a result.
    pub fn into_result(self) -> Result<Option<T>, Failure> {
        match self.error {
            None => Ok(self.result),
            Some(said) if said.is_empty() => Err(Failure("it said no more than that".to_owned())),
            Some(said) => Err(Failure(said)),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{from_str, json, to_string};

    use super::*;

    #[test]
    fn a_request_is_written_in_these_bytes_and_read_back() {
        let mut request = Request::new("r-1", json!({"path": "/tmp"}));
        request.context.timeout = 1_500_000_000;
        request.context.headers = Map::from([("x-a".into(), "1".into())]);
        request.context.metadata = Map::from([("m".into(), "2".into())]);
        let text = to_string(&request).unwrap();
        assert_eq!(
            text,
            r#"{"id":"r-1","method":"execute","payload":{"path":"/tmp"},"context":{"request_id":"r-1","timeout":1500000000,"max_retries":0,"headers":{"x-a":"1"},"metadata":{"m":"2"}}}"#
        );
        assert_eq!(
            from_str::<Request<'_, serde_json::Value>>(&text).unwrap(),
            request
        );
    }

    #[test]
    fn an_error_decides_whatever_is_beside_it() {
        let read = |text| from_str::<Response<u32>>(text).unwrap().into_result();
        let failed = |text: &str| Err(Failure(text.to_owned()));
        assert_eq!(read(r#"{"id":"a","result":7}"#), Ok(Some(7)));
        assert_eq!(read(r#"{"id":"a","result":7,"error":null}"#), Ok(Some(7)));
        assert_eq!(read(r#"{"id":"a","result":null}"#), Ok(None));
        assert_eq!(
            read(r#"{"id":"a","result":7,"error":"odd"}"#),
            failed("odd")
        );
        assert_eq!(
            read(r#"{"id":"a","error":""}"#),
            failed("it said no more than that")
        );
        let answers = [
            Response::success("a", 7),
            Response::<u32>::failure("a", "no"),
        ];
        let texts = answers.map(|answer| to_string(&answer).unwrap());
        assert_eq!(
            texts,
            [r#"{"id":"a","result":7}"#, r#"{"id":"a","error":"no"}"#]
        );
    }
}
