//! YAML 1.2, from the events of `granit-parser`.
//!
//! The events carry their places, so that one reading gives both the values and where they stand.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use granit_parser::{BorrowedInput, Event, Parser, ScalarStyle, Tag};

use super::super::tree::{Entry, Node, Span, Value};
use super::{MAX_DEPTH, Syntax};

/// Values that aliases may stand for in all. A few lines of aliases of aliases would otherwise be
/// billions.
const MAX_REPLAYED: usize = 100_000;

pub(super) fn parse(text: &str) -> Result<Node<'_>, Syntax> {
    let options = granit_parser::options! { emit_comments: false, disallow_directives: true };
    let mut reader = Reader {
        events: Parser::new_from_str_with_options(text, options),
        anchors: HashMap::new(),
        replayed: 0,
    };
    loop {
        match reader.next()?.0 {
            Event::StreamStart => {}
            Event::DocumentStart(..) => break,
            _ => return Ok(Node::unplaced(Value::Null)),
        }
    }
    let root = reader.node(1)?;
    loop {
        match reader.next()? {
            (Event::DocumentEnd, _) => {}
            (Event::StreamEnd, _) => return Ok(root),
            (_, at) => {
                return Err(Syntax::new(
                    "a second document begins: a config is one",
                    span(&at),
                ));
            }
        }
    }
}

struct Reader<'t, I: BorrowedInput<'t>> {
    events: Parser<'t, I>,
    /// What anchors stand for, and how deep it nests.
    anchors: HashMap<usize, (Node<'t>, usize)>,
    replayed: usize,
}

fn span(at: &granit_parser::Span) -> Span {
    match (at.start.byte_offset(), at.end.byte_offset()) {
        (Some(start), Some(end)) => Span::new(start, end),
        _ => Span::NONE,
    }
}

impl<'t, I: BorrowedInput<'t>> Reader<'t, I> {
    fn next(&mut self) -> Result<(Event<'t>, granit_parser::Span), Syntax> {
        match self.events.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => {
                let start = error.marker().byte_offset();
                let at = start.map_or(Span::NONE, |start| Span::new(start, start));
                Err(Syntax::new(error.info(), at))
            }
            None => Err(Syntax::new("ends too early", Span::NONE)),
        }
    }

    fn node(&mut self, depth: usize) -> Result<Node<'t>, Syntax> {
        let (event, at) = self.next()?;
        self.node_of(event, &at, depth)
    }

    fn node_of(
        &mut self,
        event: Event<'t>,
        place: &granit_parser::Span,
        depth: usize,
    ) -> Result<Node<'t>, Syntax> {
        let at = span(place);
        let (anchor, value) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let tag = known(tag.as_deref(), place)?;
                (anchor, scalar(text, style, tag).ok_or_else(|| unfit(at))?)
            }
            Event::SequenceStart(_, anchor, tag) => {
                if !matches!(known(tag.as_deref(), place)?, None | Some("seq")) {
                    return Err(unfit(at));
                }
                (anchor, self.list(at, depth)?)
            }
            Event::MappingStart(_, anchor, tag) => {
                if !matches!(known(tag.as_deref(), place)?, None | Some("map")) {
                    return Err(unfit(at));
                }
                (anchor, self.table(at, depth)?)
            }
            Event::Alias(anchor) => {
                let mut node = self.alias(anchor, at, depth)?;
                node.at = at;
                return Ok(node);
            }
            _ => return Err(Syntax::new("a value is missing", at)),
        };
        // The end of a collection is known only now, and nobody needs it.
        let node = Node::new(value, at);
        self.anchor(anchor, &node)?;
        Ok(node)
    }

    /// Keeps `node` for aliases. What is kept counts like what they stand for.
    fn anchor(&mut self, anchor: usize, node: &Node<'t>) -> Result<(), Syntax> {
        if anchor > 0 {
            self.replay(node.size(), node.at)?;
            self.anchors.insert(anchor, (node.clone(), node.depth()));
        }
        Ok(())
    }

    fn replay(&mut self, values: usize, at: Span) -> Result<(), Syntax> {
        self.replayed += values;
        if self.replayed > MAX_REPLAYED {
            let message = format!("its aliases stand for more than {MAX_REPLAYED} values");
            return Err(Syntax::new(message, at));
        }
        Ok(())
    }

    fn alias(&mut self, anchor: usize, at: Span, depth: usize) -> Result<Node<'t>, Syntax> {
        let Some((node, nests)) = self.anchors.get(&anchor).cloned() else {
            return Err(Syntax::new("an alias stands in its own anchor", at));
        };
        if depth + nests > MAX_DEPTH {
            return Err(Syntax::too_deep(at));
        }
        self.replay(node.size(), at)?;
        Ok(node)
    }

    fn list(&mut self, at: Span, depth: usize) -> Result<Value<'t>, Syntax> {
        if depth >= MAX_DEPTH {
            return Err(Syntax::too_deep(at));
        }
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(Value::List(items)),
                (event, at) => items.push(self.node_of(event, &at, depth + 1)?),
            }
        }
    }

    fn table(&mut self, at: Span, depth: usize) -> Result<Value<'t>, Syntax> {
        if depth >= MAX_DEPTH {
            return Err(Syntax::too_deep(at));
        }
        let mut entries: Vec<Entry<'t>> = Vec::new();
        let mut merged: Vec<Entry<'t>> = Vec::new();
        let mut keys = Keys::default();
        let mut merges = None;
        loop {
            let (key, at, is_plain) = match self.next()? {
                (Event::MappingEnd, _) => break,
                (event, at) => {
                    let is_plain = matches!(event, Event::Scalar(_, ScalarStyle::Plain, ..));
                    let (key, at) = self.key(event, &at, depth)?;
                    (key, at, is_plain)
                }
            };
            let node = self.node(depth + 1)?;
            if key == "<<" && is_plain {
                if let Some(first) = merges.replace(at) {
                    return Err(Syntax::twice(&key, at, first));
                }
                merge(node, &mut merged)?;
                continue;
            }
            if let Some(first) = keys.first(&entries, &key) {
                return Err(Syntax::twice(&key, at, first));
            }
            entries.push(Entry { key, at, node });
        }
        // What is written here lies over what is merged, and of that the first.
        for entry in merged {
            if keys.first(&entries, &entry.key).is_none() {
                entries.push(entry);
            }
        }
        Ok(Value::Table(entries))
    }

    /// A key is the text of a scalar, whatever type it would have as a value.
    fn key(
        &mut self,
        event: Event<'t>,
        place: &granit_parser::Span,
        depth: usize,
    ) -> Result<(Cow<'t, str>, Span), Syntax> {
        let at = span(place);
        let wrong = || Syntax::new("a key is a text", at);
        match event {
            Event::Scalar(text, _, anchor, tag) => {
                known(tag.as_deref(), place)?;
                self.anchor(anchor, &Node::new(Value::Text(text.clone()), at))?;
                Ok((text, at))
            }
            event @ Event::Alias(_) => match self.node_of(event, place, depth)?.value {
                Value::Text(text) => Ok((text, at)),
                _ => Err(wrong()),
            },
            _ => Err(wrong()),
        }
    }
}

/// The keys of a table. A large one is looked up in a set.
#[derive(Default)]
pub(super) struct Keys<'t>(HashSet<Cow<'t, str>>);

impl<'t> Keys<'t> {
    /// Where `key` stands in `entries` already, to which it is added otherwise.
    pub(super) fn first(&mut self, entries: &[Entry<'t>], key: &str) -> Option<Span> {
        const FEW: usize = 16;
        if entries.len() > FEW {
            if self.0.is_empty() {
                self.0 = entries.iter().map(|entry| entry.key.clone()).collect();
            }
            if self.0.insert(key.to_owned().into()) {
                return None;
            }
        }
        let first = entries.iter().find(|entry| entry.key == *key)?;
        Some(first.at)
    }
}

/// `<<`: a table, or a list of them.
fn merge<'t>(node: Node<'t>, into: &mut Vec<Entry<'t>>) -> Result<(), Syntax> {
    let at = node.at;
    let mut add = |node: Node<'t>| match node.value {
        Value::Table(entries) => {
            into.extend(entries);
            Ok(())
        }
        _ => Err(Syntax::new("`<<` takes a table, or a list of tables", at)),
    };
    match node.value {
        Value::List(items) => items.into_iter().try_for_each(add),
        _ => add(node),
    }
}

/// The suffix of a tag of YAML's own. The message does not repeat another one: a password that
/// begins with `!` is one, without quotes.
fn known<'a>(tag: Option<&'a Tag>, place: &granit_parser::Span) -> Result<Option<&'a str>, Syntax> {
    let Some(tag) = tag else { return Ok(None) };
    // `!` alone says that a text is one.
    if tag.handle().is_empty() && tag.suffix() == "!" {
        return Ok(Some("str"));
    }
    match tag.core_suffix() {
        Some(suffix @ ("str" | "int" | "float" | "bool" | "null" | "seq" | "map")) => {
            Ok(Some(suffix))
        }
        _ => {
            let start = place.tag_start.unwrap_or(place.start).byte_offset();
            let at = start.map_or(Span::NONE, |start| Span::new(start, start + 1));
            Err(Syntax::new(
                "tags are not supported, and text that begins with `!` needs quotes",
                at,
            ))
        }
    }
}

fn unfit(at: Span) -> Syntax {
    Syntax::new("its tag says that it is of another type", at)
}

/// YAML 1.2.2, section 10.3.2: the core schema. `None` if the tag says something else.
fn scalar<'t>(text: Cow<'t, str>, style: ScalarStyle, tag: Option<&str>) -> Option<Value<'t>> {
    if tag == Some("str") || (style != ScalarStyle::Plain && tag.is_none()) {
        return Some(Value::Text(text));
    }
    let value = match &*text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        plain => match number(plain) {
            Some(number) => number,
            None => return tag.is_none().then_some(Value::Text(text)),
        },
    };
    match (tag, value) {
        #[allow(clippy::cast_precision_loss)] // a config needs no more than 53 bits
        (Some("float"), Value::Integer(whole)) => Some(Value::Float(whole as f64)),
        (None, value)
        | (Some("int"), value @ Value::Integer(_))
        | (Some("float"), value @ Value::Float(_))
        | (Some("bool"), value @ Value::Bool(_))
        | (Some("null"), value @ Value::Null) => Some(value),
        _ => None,
    }
}

fn number(text: &str) -> Option<Value<'static>> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let first = unsigned.bytes().next()?;
    if !first.is_ascii_digit() && first != b'.' {
        return None;
    }
    let radix = match unsigned.get(..2) {
        Some("0x") => Some(16),
        Some("0o") => Some(8),
        _ => None,
    };
    if let Some(radix) = radix {
        // Only without a sign.
        let digits = text.get(2..).filter(|_| unsigned.len() == text.len())?;
        let digits = Some(digits).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))?;
        return i64::from_str_radix(digits, radix).ok().map(Value::Integer);
    }
    if unsigned.bytes().all(|b| b.is_ascii_digit()) {
        // A number is not written with a leading zero: what is, is an identifier.
        if unsigned.len() > 1 && first == b'0' {
            return None;
        }
        return Some(text.parse().map_or_else(
            |_| Value::Float(text.parse().unwrap_or(f64::INFINITY)),
            Value::Integer,
        ));
    }
    float(text, unsigned).map(Value::Float)
}

/// `[-+]? ( \. [0-9]+ | [0-9]+ ( \. [0-9]* )? ) ( [eE] [-+]? [0-9]+ )?`, `.inf` and `.nan`.
fn float(text: &str, unsigned: &str) -> Option<f64> {
    match unsigned {
        ".inf" | ".Inf" | ".INF" if text.starts_with('-') => return Some(f64::NEG_INFINITY),
        ".inf" | ".Inf" | ".INF" => return Some(f64::INFINITY),
        ".nan" | ".NaN" | ".NAN" if unsigned.len() == text.len() => return Some(f64::NAN),
        _ => {}
    }
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let (whole, decimals) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let exponent = exponent.map(|exponent| exponent.strip_prefix(['-', '+']).unwrap_or(exponent));
    let is_float = digits(whole)
        && digits(decimals)
        && !(whole.is_empty() && decimals.is_empty())
        && exponent.is_none_or(|exponent| !exponent.is_empty() && digits(exponent));
    is_float.then(|| text.parse().ok())?
}
