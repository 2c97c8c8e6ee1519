use http::{
    Extensions, HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version, header, request,
};
use smallvec::SmallVec;

use crate::CallContext;
use crate::deadline::is_of_type;
use crate::header::GRPC_ATTEMPTS;

/// A copy of a request's head that allocates for headers only if there are many, where a `HeaderMap`
/// allocates twice, and for extensions only if there are any but the call's context.
pub(super) struct Head {
    method: Method,
    uri: Uri,
    version: Version,
    headers: SmallVec<[(HeaderName, HeaderValue); INLINE_HEADERS]>,
    context: Option<CallContext>,
    extensions: Extensions,
}

/// Headers that are kept without an allocation of their own.
const INLINE_HEADERS: usize = 4;

impl Head {
    #[inline]
    pub(super) fn of(parts: &request::Parts) -> Self {
        let context = parts.extensions.get::<CallContext>();
        let alone = parts.extensions.len() == usize::from(context.is_some());
        let headers = parts.headers.iter();
        Self {
            method: parts.method.clone(),
            uri: parts.uri.clone(),
            version: parts.version,
            headers: headers
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect(),
            context: context.cloned(),
            extensions: if alone {
                Extensions::new()
            } else {
                parts.extensions.clone()
            },
        }
    }

    pub(super) fn request<B>(&self, body: B) -> Request<B> {
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.version_mut() = self.version;
        let mut headers = HeaderMap::with_capacity(self.headers.len());
        for (name, value) in &self.headers {
            headers.append(name, value.clone());
        }
        *request.headers_mut() = headers;
        *request.extensions_mut() = self.extensions.clone();
        if let Some(context) = &self.context {
            request.extensions_mut().insert(context.clone());
        }
        request
    }
}

/// Tells the other side how many attempts there were before: `grpc-previous-rpc-attempts` in gRPC
/// (gRFC A6), and in a header of that name, if there is one.
pub(super) fn count_attempts(headers: &mut HeaderMap, before: u32, name: Option<&HeaderName>) {
    let is_grpc = headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| is_of_type(kind.as_bytes(), b"application/grpc"));
    if is_grpc {
        headers.insert(&GRPC_ATTEMPTS, before.into());
    }
    if let Some(name) = name {
        headers.insert(name, before.into());
    }
}
