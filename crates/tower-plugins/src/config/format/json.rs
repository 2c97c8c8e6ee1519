//! JSON, read by `serde_json`; and by the reader of YAML where places are wanted, which
//! `serde_json` has not.

use std::borrow::Cow;
use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::super::tree::{Entry, Node, Span, Value};
use super::{MAX_DEPTH, Syntax, yaml};

pub(super) fn parse(text: &str) -> Result<Node<'_>, Syntax> {
    let mut json = serde_json::Deserializer::from_str(text);
    let parsed = Tree::deserialize(&mut json).and_then(|tree| json.end().map(|()| tree));
    match parsed {
        // It reads twice as deep as the others.
        Ok(Tree(node)) if node.depth() > MAX_DEPTH => Err(Syntax::too_deep(Span::NONE)),
        Ok(Tree(node)) => Ok(node),
        Err(error) => Err(syntax(text, &error)),
    }
}

/// JSON is YAML, for all that a config needs. Where it is not, as with the key `<<`, the places are
/// missing: the values are those of JSON in any case.
pub(super) fn parse_with_places(text: &str) -> Result<Node<'_>, Syntax> {
    let node = parse(text)?;
    let mut placed = node.clone();
    match yaml::parse(text) {
        // All or none: a line is shown with what is secret hidden, which takes the places of all.
        Ok(places) if take_places(&mut placed, &places) => Ok(placed),
        _ => Ok(node),
    }
}

/// Gives `node` the places of `other`; whether the two are of the same shape.
fn take_places(node: &mut Node<'_>, other: &Node<'_>) -> bool {
    node.at = other.at;
    match (&mut node.value, &other.value) {
        (Value::Table(entries), Value::Table(others)) => {
            entries.len() == others.len()
                && entries.iter_mut().zip(others).all(|(entry, other)| {
                    entry.at = other.at;
                    entry.key == other.key && take_places(&mut entry.node, &other.node)
                })
        }
        (Value::List(items), Value::List(others)) => {
            items.len() == others.len()
                && items
                    .iter_mut()
                    .zip(others)
                    .all(|(item, other)| take_places(item, other))
        }
        (Value::Table(_) | Value::List(_), _) | (_, Value::Table(_) | Value::List(_)) => false,
        _ => true,
    }
}

fn syntax(text: &str, error: &serde_json::Error) -> Syntax {
    let message = error.to_string();
    // The place is told apart from the message.
    let message = match message.rsplit_once(" at line ") {
        Some((message, _)) => message.to_owned(),
        None => message,
    };
    if message.starts_with(TWICE) {
        // Both places, from the reader that knows them.
        if let Err(twice) = yaml::parse(text)
            && twice.first.is_some()
        {
            return twice;
        }
    }
    let at = place(text, error.line(), error.column());
    let rest = at.bytes().and_then(|bytes| text.get(bytes.start..));
    if rest.is_some_and(|rest| rest.starts_with(['/', '#'])) {
        return Syntax::new("it has no comments, remove them", at);
    }
    Syntax::new(message, at)
}

/// `column` counts bytes, and is of the last byte that was read.
fn place(text: &str, line: usize, column: usize) -> Span {
    let before: usize = text
        .split_inclusive('\n')
        .take(line.saturating_sub(1))
        .map(str::len)
        .sum();
    let mut start = (before + column.saturating_sub(1)).min(text.len());
    while !text.is_char_boundary(start) {
        start -= 1;
    }
    Span::new(start, start)
}

const TWICE: &str = "the key ";

struct Tree<'t>(Node<'t>);

impl<'de> Deserialize<'de> for Tree<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = deserializer.deserialize_any(TreeVisitor)?;
        Ok(Self(Node::unplaced(value)))
    }
}

/// A key, borrowed where the text has it as it is.
struct Key<'t>(Cow<'t, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TreeVisitor).map(|value| {
            Self(match value {
                Value::Text(text) => text,
                _ => Cow::default(),
            })
        })
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Value<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, bool: bool) -> Result<Self::Value, E> {
        Ok(Value::Bool(bool))
    }

    fn visit_i64<E>(self, whole: i64) -> Result<Self::Value, E> {
        Ok(Value::Integer(whole))
    }

    fn visit_u64<E>(self, whole: u64) -> Result<Self::Value, E> {
        #[allow(clippy::cast_precision_loss)] // larger than any key allows
        let float = whole as f64;
        Ok(i64::try_from(whole).map_or(Value::Float(float), Value::Integer))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Self::Value, E> {
        Ok(Value::Float(number))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Value::Text(text.into()))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Value::Text(text.to_owned().into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Tree(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut table: Vec<Entry<'de>> = Vec::new();
        let mut keys = yaml::Keys::default();
        while let Some(Key(key)) = entries.next_key()? {
            if keys.first(&table, &key).is_some() {
                return Err(de::Error::custom(format_args!(
                    "{TWICE}{key:?} is there twice"
                )));
            }
            let Tree(node) = entries.next_value()?;
            let at = Span::NONE;
            table.push(Entry { key, at, node });
        }
        Ok(Value::Table(table))
    }
}
