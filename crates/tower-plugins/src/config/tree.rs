//! A config as it was written: untyped values, each with the place where it stands.

use std::borrow::Cow;

use figment::Figment;
use figment::value::{self, Dict, Empty, Tag};
use serde::ser::{Serialize, SerializeMap, Serializer};

/// Bytes of a text, as far as they are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    start: u32,
    end: u32,
}

/// A value.
#[derive(Clone, Debug)]
pub(super) struct Node<'t> {
    pub(super) value: Value<'t>,
    pub(super) at: Span,
}

#[derive(Clone, Debug)]
pub(super) enum Value<'t> {
    Null,
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(Cow<'t, str>),
    /// TOML has dates; no key takes one.
    Date,
    List(Vec<Node<'t>>),
    Table(Vec<Entry<'t>>),
}

/// A key with its value. No table has two of the same key.
#[derive(Clone, Debug)]
pub(super) struct Entry<'t> {
    pub(super) key: Cow<'t, str>,
    pub(super) at: Span,
    pub(super) node: Node<'t>,
}

impl Span {
    /// Of a value whose place is not known.
    pub(super) const NONE: Self = Self {
        start: u32::MAX,
        end: u32::MAX,
    };

    pub(super) fn new(start: usize, end: usize) -> Self {
        match (u32::try_from(start), u32::try_from(end)) {
            (Ok(start), Ok(end)) if start < u32::MAX => Self { start, end },
            _ => Self::NONE,
        }
    }

    /// Of the value of the environment variable with this number.
    pub(super) const fn of_variable(number: u32) -> Self {
        Self {
            start: u32::MAX,
            end: number,
        }
    }

    pub(super) const fn variable(self) -> Option<usize> {
        if self.start == u32::MAX && self.end != u32::MAX {
            Some(self.end as usize)
        } else {
            None
        }
    }

    /// This span, counted from a beginning that is `by` bytes before.
    pub(super) fn shifted(self, by: usize) -> Self {
        match self.bytes() {
            Some(bytes) => Self::new(bytes.start + by, bytes.end + by),
            None => self,
        }
    }

    /// The bytes, if they are known.
    pub(super) fn bytes(self) -> Option<std::ops::Range<usize>> {
        (self.start != u32::MAX).then(|| self.start as usize..(self.end.max(self.start)) as usize)
    }
}

impl<'t> Node<'t> {
    pub(super) const fn new(value: Value<'t>, at: Span) -> Self {
        Self { value, at }
    }

    pub(super) const fn unplaced(value: Value<'t>) -> Self {
        Self::new(value, Span::NONE)
    }

    pub(super) fn text(text: impl Into<Cow<'t, str>>) -> Self {
        Self::unplaced(Value::Text(text.into()))
    }

    pub(super) fn entries(&self) -> Option<&[Entry<'t>]> {
        match &self.value {
            Value::Table(entries) => Some(entries),
            _ => None,
        }
    }

    /// The value of `key`, if this is a table that has it.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        let entry = self.entries()?.iter().find(|entry| entry.key == key)?;
        Some(&entry.node)
    }

    /// How deep it nests: a scalar not at all.
    pub(super) fn depth(&self) -> usize {
        let nested = match &self.value {
            Value::List(items) => items.iter().map(Node::depth).max(),
            Value::Table(entries) => entries.iter().map(|entry| entry.node.depth()).max(),
            _ => return 0,
        };
        1 + nested.unwrap_or(0)
    }

    /// Nodes in it, itself among them.
    pub(super) fn size(&self) -> usize {
        1 + match &self.value {
            Value::List(items) => items.iter().map(Node::size).sum(),
            Value::Table(entries) => entries.iter().map(|entry| entry.node.size()).sum(),
            _ => 0,
        }
    }
}

impl Entry<'_> {
    /// Of a key that was not written.
    pub(super) fn unplaced<'t>(key: &'t str, node: Node<'t>) -> Entry<'t> {
        Entry {
            key: key.into(),
            at: Span::NONE,
            node,
        }
    }
}

/// What the layers of a figment say together. The place of each value is the number of its tag.
pub(super) struct Merged {
    pub(super) root: Node<'static>,
    pub(super) tags: Vec<Tag>,
}

impl Merged {
    pub(super) fn of(figment: &Figment) -> Result<Self, Box<figment::Error>> {
        let mut tags = Vec::new();
        let root = from_figment(figment.find_value("").map_err(Box::new)?, &mut tags);
        Ok(Self { root, tags })
    }
}

fn from_figment(value: value::Value, tags: &mut Vec<Tag>) -> Node<'static> {
    let tag = value.tag();
    let number = tags.iter().rposition(|known| *known == tag);
    let number = number.unwrap_or_else(|| {
        tags.push(tag);
        tags.len() - 1
    });
    let at = Span::new(number, number);
    let value = match value {
        value::Value::String(_, text) => Value::Text(text.into()),
        value::Value::Char(_, char) => Value::Text(char.to_string().into()),
        value::Value::Bool(_, bool) => Value::Bool(bool),
        value::Value::Empty(..) => Value::Null,
        value::Value::Num(_, number) => from_number(number),
        value::Value::Array(_, items) => Value::List(
            items
                .into_iter()
                .map(|item| from_figment(item, tags))
                .collect(),
        ),
        value::Value::Dict(_, dict) => {
            let entry = |(key, value): (String, _)| {
                let node = from_figment(value, tags);
                Entry {
                    key: key.into(),
                    at: node.at,
                    node,
                }
            };
            Value::Table(dict.into_iter().map(entry).collect())
        }
    };
    Node::new(value, at)
}

fn from_number(number: value::Num) -> Value<'static> {
    let whole = number.to_i128().map(i64::try_from);
    let whole = whole.or_else(|| number.to_u128().map(i64::try_from));
    match whole {
        Some(Ok(whole)) => Value::Integer(whole),
        _ => Value::Float(number.to_f64().unwrap_or(f64::INFINITY)),
    }
}

impl Node<'_> {
    /// What figment makes of it.
    pub(super) fn to_figment(&self) -> value::Value {
        match &self.value {
            // Figment has no dates. Nothing is refused by every key; a text would be some password.
            Value::Null | Value::Date => value::Value::Empty(Tag::Default, Empty::Unit),
            Value::Bool(bool) => (*bool).into(),
            Value::Integer(whole) => (*whole).into(),
            Value::Float(number) => (*number).into(),
            Value::Text(text) => text.as_ref().into(),
            Value::List(items) => items
                .iter()
                .map(Node::to_figment)
                .collect::<Vec<_>>()
                .into(),
            Value::Table(_) => self.to_dict().unwrap_or_default().into(),
        }
    }

    pub(super) fn to_dict(&self) -> Option<Dict> {
        let entries = self.entries()?.iter();
        Some(
            entries
                .map(|entry| (entry.key.clone().into_owned(), entry.node.to_figment()))
                .collect(),
        )
    }
}

impl Serialize for Node<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.value {
            Value::Null | Value::Date => serializer.serialize_unit(),
            Value::Bool(bool) => serializer.serialize_bool(*bool),
            Value::Integer(whole) => serializer.serialize_i64(*whole),
            Value::Float(number) => serializer.serialize_f64(*number),
            Value::Text(text) => serializer.serialize_str(text),
            Value::List(items) => serializer.collect_seq(items),
            Value::Table(entries) => {
                let mut map = serializer.serialize_map(Some(entries.len()))?;
                for entry in entries {
                    map.serialize_entry(&*entry.key, &entry.node)?;
                }
                map.end()
            }
        }
    }
}
