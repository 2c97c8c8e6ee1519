use http::header::HeaderName;
use http::{HeaderMap, Response, Uri};

use super::FilterPolicy;
use crate::BoxError;

/// What becomes of a call.
#[derive(Debug)]
pub enum Decision<B> {
    /// It goes on with these changes.
    Continue(Change),
    /// It ends with this answer.
    Answer(Response<B>),
    /// The filter could not tell: the call is refused, or goes on where that is asked for.
    Failed(BoxError),
}

/// How a request is changed before it goes on.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// Headers to set, in the place of what has their names.
    pub set: HeaderMap,
    /// Headers to take off, before others are set.
    pub remove: Vec<HeaderName>,
    /// Where it goes instead.
    pub uri: Option<Uri>,
}

/// Reads a filter's answer.
///
/// A closure that takes the answer and gives a [`Decision`] is one.
pub trait Decide<B>: Clone {
    /// What the answer says of the call.
    fn decide(&self, answer: Response<B>, policy: &FilterPolicy) -> Decision<B>;
}

impl<B, F: Fn(Response<B>) -> Decision<B> + Clone> Decide<B> for F {
    fn decide(&self, answer: Response<B>, _: &FilterPolicy) -> Decision<B> {
        self(answer)
    }
}

/// The usual reading: 2xx goes on, with the headers of [`FilterPolicy::copy_headers`]; 5xx is a failure of
/// the filter; another status is the call's answer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Http;

impl<B> Decide<B> for Http {
    fn decide(&self, answer: Response<B>, policy: &FilterPolicy) -> Decision<B> {
        let status = answer.status();
        if status.is_server_error() {
            return Decision::Failed(format!("it answered with status {status}").into());
        }
        if !status.is_success() {
            return Decision::Answer(answer);
        }
        let mut set = HeaderMap::new();
        for name in &policy.copy_headers {
            for value in answer.headers().get_all(name) {
                set.append(name, value.clone());
            }
        }
        Decision::Continue(Change {
            set,
            ..Change::default()
        })
    }
}

impl Change {
    pub(super) fn apply(self, uri: &mut Uri, headers: &mut HeaderMap) {
        for name in &self.remove {
            headers.remove(name);
        }
        // Each value after the first of a name comes without it.
        headers.extend(self.set);
        if let Some(new) = self.uri {
            *uri = new;
        }
    }
}
