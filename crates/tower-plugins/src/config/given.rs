//! A value as a key takes it: with its variables put in.

use std::borrow::Cow;
use std::path::Path;

use super::fault::Fault;
use super::tree::{Node, Value};

#[derive(Clone)]
pub(super) struct Given<'t> {
    pub(super) node: &'t Node<'t>,
    /// If it is a text.
    pub(super) text: Option<Cow<'t, str>>,
    source: Source,
    /// Whether no message may repeat it.
    pub(super) is_secret: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    File,
    /// A text of the file with variables in it.
    Expanded,
    /// A variable that lies over the file.
    Variable,
}

impl<'t> Given<'t> {
    pub(super) fn of(node: &'t Node<'t>) -> Self {
        Self {
            node,
            text: match &node.value {
                Value::Text(text) => Some(Cow::Borrowed(text)),
                _ => None,
            },
            source: Source::File,
            is_secret: false,
        }
    }

    /// A text in which a variable is wrong. A default in it may be a secret.
    pub(super) fn unread(node: &'t Node<'t>) -> Self {
        Self {
            is_secret: true,
            ..Self::of(node)
        }
    }

    /// A key, of which `node` is the value.
    pub(super) fn key(key: &'t str, node: &'t Node<'t>) -> Self {
        Self::with_text(node, key.into())
    }

    /// `text` is what `node` says.
    pub(super) const fn with_text(node: &'t Node<'t>, text: Cow<'t, str>) -> Self {
        Self {
            node,
            text: Some(text),
            source: Source::File,
            is_secret: false,
        }
    }

    pub(super) fn expanded(node: &'t Node<'t>, text: Cow<'t, str>) -> Self {
        Self {
            node,
            text: Some(text),
            source: Source::Expanded,
            is_secret: false,
        }
    }

    pub(super) fn from_variable(node: &'t Node<'t>, text: &'t str) -> Self {
        Self {
            node,
            text: Some(text.into()),
            source: Source::Variable,
            is_secret: false,
        }
    }

    /// Whether variables were put into it.
    pub(super) fn is_expanded(&self) -> bool {
        self.source == Source::Expanded
    }

    /// Whether it is from the environment, where everything is text.
    pub(super) fn is_from_environment(&self) -> bool {
        self.source != Source::File
    }

    /// As a message shows it. What the environment holds is not shown.
    pub(super) fn shown(&self) -> String {
        match (self.source, &self.text, &self.node.value) {
            (Source::File, Some(text), _) if !self.is_secret => format!("{text:?}"),
            // A default that is written, and credentials, may be secrets.
            (Source::Expanded, _, Value::Text(written))
                if !self.is_secret && !written.contains(['@', '?']) && !written.contains(":-") =>
            {
                format!("the value of {written:?}")
            }
            (Source::Expanded | Source::Variable, ..) => "its value".to_owned(),
            (Source::File, ..) => self.kind().to_owned(),
        }
    }

    /// What was found, or only its type if it may be a secret.
    pub(super) fn found(&self) -> String {
        match &self.node.value {
            _ if self.is_secret || self.is_from_environment() => self.kind().to_owned(),
            Value::Text(text) if text.len() <= 64 && !text.contains(['@', '?']) => {
                text.clone().into_owned()
            }
            Value::Bool(bool) => bool.to_string(),
            Value::Integer(whole) => whole.to_string(),
            Value::Float(number) => format!("{number:?}"),
            _ => self.kind().to_owned(),
        }
    }

    /// A part of this value: an item of a list that is written as one text.
    pub(super) fn part(&self, text: String) -> Self {
        Self {
            text: Some(text.into()),
            ..self.clone()
        }
    }

    /// How a file that this names is called in messages.
    pub(super) fn file_shown(&self, path: &Path) -> String {
        if self.is_from_environment() {
            "the file that it names".to_owned()
        } else {
            path.display().to_string()
        }
    }

    pub(super) const fn kind(&self) -> &'static str {
        match self.node.value {
            Value::Text(_) => "text",
            Value::Bool(_) => "a boolean",
            Value::Integer(_) | Value::Float(_) => "a number",
            Value::Date => "a date",
            Value::Null => "nothing",
            Value::Table(_) => "a table",
            Value::List(_) => "a list",
        }
    }

    pub(super) fn expected(&self, what: &str) -> Fault {
        Fault::wrong_type(what, self.kind())
    }

    /// As [`expected`](Self::expected), for a key that takes no secret: a text is repeated.
    pub(super) fn expected_here(&self, what: &str) -> Fault {
        match &self.text {
            Some(text) if text.len() <= 64 => {
                Fault::wrong_type(what, &format!("the text {text:?}"))
            }
            _ => self.expected(what),
        }
    }

    /// The text. The message does not repeat the value, which may be a secret.
    pub(super) fn text(&self) -> Result<&str, Fault> {
        self.text.as_deref().ok_or_else(|| {
            let mut fault = self.expected("text");
            if matches!(
                self.node.value,
                Value::Bool(_) | Value::Integer(_) | Value::Float(_) | Value::Date
            ) {
                fault.message += "; put it in quotes";
            }
            fault
        })
    }

    pub(super) fn bool(&self) -> Result<bool, Fault> {
        match (&self.node.value, self.environment_text()) {
            (Value::Bool(bool), _) => Ok(*bool),
            (_, Some("true")) => Ok(true),
            (_, Some("false")) => Ok(false),
            (_, Some(_)) => Err(Fault::of_value("is not true or false")),
            _ => Err(self.expected_here("true or false")),
        }
    }

    /// A whole number, as far as it is one.
    pub(super) fn whole(&self) -> Option<i64> {
        match (&self.node.value, self.environment_text()) {
            (Value::Integer(whole), _) => Some(*whole),
            (_, Some(text)) => text.parse().ok(),
            _ => None,
        }
    }

    pub(super) fn number(&self) -> Option<f64> {
        #[allow(clippy::cast_precision_loss)] // a config needs no more than 53 bits
        match (&self.node.value, self.environment_text()) {
            (Value::Integer(whole), _) => Some(*whole as f64),
            (Value::Float(number), _) => Some(*number),
            (_, Some(text)) => text.parse().ok(),
            _ => None,
        }
    }

    /// The text, if it came from the environment.
    pub(super) fn environment_text(&self) -> Option<&str> {
        self.text.as_deref().filter(|_| self.is_from_environment())
    }
}
