//! `split` and `shadow`.

use super::super::tree::Node;
use super::super::{ShadowSpec, SplitSpec};
use super::balance::key;
use super::values::{bool, duration, integer, number, table, text};

pub(super) fn split(spec: &SplitSpec) -> Node<'static> {
    table([
        ("to", text(spec.to.as_str())),
        ("percent", number(spec.percent)),
        ("hash_on", spec.hash_on.as_ref().and_then(key)),
    ])
}

pub(super) fn shadow(spec: &ShadowSpec) -> Node<'static> {
    table([
        ("to", text(spec.to.as_str())),
        ("percent", number(spec.percent)),
        ("idempotent_only", bool(spec.idempotent_only)),
        ("max_concurrent", integer(spec.max_concurrent)),
        ("timeout", duration(spec.timeout)),
    ])
}
