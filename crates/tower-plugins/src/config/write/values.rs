//! The values of a written config.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::tree::{Entry, Node, Value};
use super::super::{FileContents, Number, expand, units};

pub(super) fn list(items: Vec<Node<'static>>) -> Node<'static> {
    Node::unplaced(Value::List(items))
}

/// The table of those keys that have a value.
pub(super) fn table<const N: usize>(
    keys: [(&'static str, Option<Node<'static>>); N],
) -> Node<'static> {
    let entries = keys.into_iter().filter_map(|(key, node)| {
        let node = node?;
        Some(Entry::unplaced(key, node))
    });
    Node::unplaced(Value::Table(entries.collect()))
}

pub(super) fn text(text: &str) -> Option<Node<'static>> {
    Some(Node::text(expand::escape(text).into_owned()))
}

pub(super) fn duration(duration: Duration) -> Option<Node<'static>> {
    Some(Node::text(units::write_duration(duration)))
}

pub(super) fn duration_or_off(time: Option<Duration>) -> Option<Node<'static>> {
    time.map_or_else(|| text("off"), duration)
}

pub(super) fn size(bytes: u64) -> Option<Node<'static>> {
    Some(Node::text(units::write_size(bytes)))
}

pub(super) fn integer(whole: u32) -> Option<Node<'static>> {
    Some(Node::unplaced(Value::Integer(whole.into())))
}

pub(super) fn number(number: Number) -> Option<Node<'static>> {
    Some(Node::unplaced(Value::Float(number.get())))
}

pub(super) fn bool(bool: bool) -> Option<Node<'static>> {
    Some(Node::unplaced(Value::Bool(bool)))
}

pub(super) fn off() -> Option<Node<'static>> {
    text("off")
}

pub(super) fn file(file: &FileContents) -> Option<Node<'static>> {
    text(file.path().to_str()?)
}

pub(super) fn word<T: PartialEq>(words: &[(&str, T)], meaning: &T) -> Option<Node<'static>> {
    let (word, _) = words.iter().find(|(_, known)| known == meaning)?;
    text(word)
}

/// A table with names of its own.
pub(super) fn named<T>(
    values: &BTreeMap<String, T>,
    write: impl Fn(&T) -> Option<Node<'static>>,
) -> Option<Node<'static>> {
    let entry = |(name, value): (&String, &T)| {
        Some(Entry {
            key: name.clone().into(),
            ..Entry::unplaced("", write(value)?)
        })
    };
    let entries = values.iter().filter_map(entry).collect();
    Some(Node::unplaced(Value::Table(entries)))
}

pub(super) fn texts(texts: &[String]) -> Option<Node<'static>> {
    Some(list(texts.iter().filter_map(|item| text(item)).collect()))
}

pub(super) fn header_or_off(name: Option<&http::HeaderName>) -> Option<Node<'static>> {
    name.map_or_else(off, |name| text(name.as_str()))
}
