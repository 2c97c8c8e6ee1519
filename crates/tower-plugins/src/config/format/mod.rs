//! Text to values, the same from each format.

mod json;
mod toml;
mod yaml;

use std::fmt;
use std::path::Path;

use super::tree::{Node, Span, Value};

/// How deep a config may nest.
const MAX_DEPTH: usize = 64;

/// How a config is written. The three say the same things.
///
/// In each a key that is written twice is refused, and tables and lists may nest 64 levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// JSON.
    Json,
    /// YAML 1.2, the core schema: only `true` and `false` are booleans, so `n`, `no` and `off` are
    /// text. `<<` merges; what aliases stand for is bounded; tags of a program's own are refused.
    Yaml,
    /// TOML.
    Toml,
}

/// Why a text is not what its format allows.
#[derive(Debug)]
pub(super) struct Syntax {
    pub(super) message: String,
    /// Where, if that is known.
    pub(super) at: Span,
    /// Another place that has to do with it.
    pub(super) first: Option<Span>,
    /// Whether there is nothing at all.
    pub(super) is_empty: bool,
}

/// Whether the values of a text need their places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Places {
    /// Where they cost nothing.
    Cheap,
    /// In any case: something is to be reported.
    Wanted,
}

impl Format {
    /// The format that the extension of `path` stands for: `json`, `yaml`, `yml` or `toml`.
    #[must_use]
    pub fn of(path: impl AsRef<Path>) -> Option<Self> {
        let extension = path.as_ref().extension()?.to_str()?;
        match extension.to_ascii_lowercase().as_str() {
            "json" => Some(Self::Json),
            "yaml" | "yml" => Some(Self::Yaml),
            "toml" => Some(Self::Toml),
            _ => None,
        }
    }

    /// The table that `text` says.
    pub(super) fn parse(self, text: &str, places: Places) -> Result<Node<'_>, Syntax> {
        let (text, skipped) = match text.strip_prefix('\u{feff}') {
            Some(text) => (text, '\u{feff}'.len_utf8()),
            None => (text, 0),
        };
        let root = if text.trim().is_empty() {
            Node::unplaced(Value::Null)
        } else {
            let parsed = match (self, places) {
                (Self::Json, Places::Cheap) => json::parse(text),
                (Self::Json, Places::Wanted) => json::parse_with_places(text),
                (Self::Yaml, _) => yaml::parse(text),
                (Self::Toml, _) => toml::parse(text),
            };
            parsed.map_err(|syntax| Syntax {
                message: format!("not valid {self}: {}", syntax.message),
                at: syntax.at.shifted(skipped),
                first: syntax.first.map(|first| first.shifted(skipped)),
                ..syntax
            })?
        };
        let first = text.find(|c: char| !c.is_whitespace());
        let start = first.map_or(Span::NONE, |first| {
            Span::new(skipped + first, skipped + first)
        });
        let mut root = root;
        if skipped > 0 {
            shift(&mut root, skipped);
        }
        match &root.value {
            Value::Table(_) => Ok(root),
            Value::Null => Err(Syntax {
                is_empty: true,
                ..Syntax::new("is empty: a config needs at least a plugin", start)
            }),
            _ => Err(Syntax::new("expected a table of keys at the top", start)),
        }
    }
}

/// Moves the places of `node`, which were counted from `by` on.
fn shift(node: &mut Node<'_>, by: usize) {
    node.at = node.at.shifted(by);
    match &mut node.value {
        Value::List(items) => items.iter_mut().for_each(|item| shift(item, by)),
        Value::Table(entries) => {
            for entry in entries {
                entry.at = entry.at.shifted(by);
                shift(&mut entry.node, by);
            }
        }
        _ => {}
    }
}

impl Syntax {
    fn new(message: impl Into<String>, at: Span) -> Self {
        Self {
            message: message.into(),
            at,
            first: None,
            is_empty: false,
        }
    }

    fn twice(key: &str, at: Span, first: Span) -> Self {
        Self {
            first: Some(first),
            ..Self::new(format!("the key {key:?} is there twice"), at)
        }
    }

    fn too_deep(at: Span) -> Self {
        Self::new(format!("nests deeper than {MAX_DEPTH} levels"), at)
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Json => "JSON",
            Self::Yaml => "YAML",
            Self::Toml => "TOML",
        })
    }
}
