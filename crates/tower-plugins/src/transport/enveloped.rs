//! What a request's body and headers are to a wire that is JSON as a whole.

use std::borrow::Cow;

use http::{HeaderMap, HeaderValue};
use tower_plugins_proto::envelope::Map;

/// Says in a request's extensions that its body is the envelope of [`tower_plugins_proto::envelope`], and
/// that the response's is to be one: the codec [`Envelope`](crate::call::Envelope) says so.
///
/// A transport whose wire has places of its own for what is in an envelope takes it off.
#[derive(Clone, Copy, Debug)]
pub struct Enveloped;

/// `headers` as JSON has them, but those that `skip` names. Several of one name are one, as HTTP has it.
pub(crate) fn as_map(headers: &HeaderMap, skip: impl Fn(&str) -> bool) -> Result<Map<'_>, String> {
    let mut map = Map::new();
    for (name, value) in headers {
        let name = name.as_str();
        if skip(name) {
            continue;
        }
        let value = as_text(name, value)?;
        let comma = if name == "cookie" { "; " } else { ", " };
        map.entry(name.into())
            .and_modify(|all: &mut Cow<'_, str>| *all = format!("{all}{comma}{value}").into())
            .or_insert_with(|| value.into());
    }
    Ok(map)
}

pub(crate) fn as_text<'a>(name: &str, value: &'a HeaderValue) -> Result<&'a str, String> {
    std::str::from_utf8(value.as_bytes())
        .map_err(|_| format!("its header {name} is not UTF-8, as JSON is"))
}
