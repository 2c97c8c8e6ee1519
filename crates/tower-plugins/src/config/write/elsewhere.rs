//! `split` and `shadow`.

use super::super::tree::Node;
use super::super::{ShadowSpec, SplitSpec};
use super::balance::key;
use super::values::{bool, duration, integer, list, number, table, text};

pub(super) fn split(spec: &SplitSpec) -> Node<'static> {
    let hash_on = ("hash_on", spec.hash_on.as_ref().and_then(key));
    if let [one] = &spec.targets[..] {
        return table([
            ("to", text(one.plugin.as_str())),
            ("percent", number(one.percent)),
            hash_on,
        ]);
    }
    let targets = spec.targets.iter().map(|target| {
        table([
            ("plugin", text(target.plugin.as_str())),
            ("percent", number(target.percent)),
        ])
    });
    table([("targets", Some(list(targets.collect()))), hash_on])
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
