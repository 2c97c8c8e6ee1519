//! TOML, read by `toml`.

use std::borrow::Cow;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::super::tree::{Entry, Node, Span, Value};
use super::{MAX_DEPTH, Syntax};

pub(super) fn parse(text: &str) -> Result<Node<'_>, Syntax> {
    let table = DeTable::parse(text).map_err(|error| {
        let at = error
            .span()
            .map_or(Span::NONE, |at| Span::new(at.start, at.end));
        Syntax::new(error.message().replace('\n', ", "), at)
    })?;
    let at = span(table.span());
    from_table(table.into_inner(), at, 1)
}

fn span(range: std::ops::Range<usize>) -> Span {
    Span::new(range.start, range.end)
}

fn from_table(table: DeTable<'_>, at: Span, depth: usize) -> Result<Node<'_>, Syntax> {
    if depth > MAX_DEPTH {
        return Err(Syntax::too_deep(at));
    }
    let mut entries = Vec::with_capacity(table.len());
    for (key, value) in table {
        entries.push(Entry {
            at: span(key.span()),
            key: key.into_inner(),
            node: from_value(value, depth)?,
        });
    }
    entries.sort_by_key(|entry| entry.at.bytes().map(|bytes| bytes.start));
    Ok(Node::new(Value::Table(entries), at))
}

fn from_value(value: Spanned<DeValue<'_>>, depth: usize) -> Result<Node<'_>, Syntax> {
    let at = span(value.span());
    let value = match value.into_inner() {
        DeValue::String(text) => Value::Text(text),
        DeValue::Integer(number) => integer(number.as_str(), number.radix()),
        DeValue::Float(number) => Value::Float(number.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(bool) => Value::Bool(bool),
        DeValue::Datetime(_) => Value::Date,
        DeValue::Array(items) => {
            if depth >= MAX_DEPTH {
                return Err(Syntax::too_deep(at));
            }
            let items = items.into_iter().map(|item| from_value(item, depth + 1));
            Value::List(items.collect::<Result<_, _>>()?)
        }
        DeValue::Table(table) => return from_table(table, at, depth + 1),
    };
    Ok(Node::new(value, at))
}

/// What does not fit is larger than any key allows, and so is the float it becomes.
fn integer(digits: &str, radix: u32) -> Value<'static> {
    let digits: Cow<'_, str> = digits.into();
    i64::from_str_radix(&digits, radix).map_or_else(
        |_| Value::Float(digits.parse().unwrap_or(f64::INFINITY)),
        Value::Integer,
    )
}
