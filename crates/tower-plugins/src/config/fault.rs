//! What is wrong with one value, before it is known where it stands.

use std::fmt::Display;

use super::error::ProblemKind;
use super::nearest::nearest;

#[derive(Debug)]
pub(super) struct Fault {
    pub(super) kind: ProblemKind,
    pub(super) message: String,
    /// Whether the message is about the value, which is then put before it.
    pub(super) names_value: bool,
    pub(super) allowed: Option<String>,
    pub(super) nearest: Option<String>,
}

impl Fault {
    pub(super) fn new(kind: ProblemKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            names_value: false,
            allowed: None,
            nearest: None,
        }
    }

    /// A fault of which the value is told: `message` goes on after it.
    pub(super) fn of_value(message: impl Into<String>) -> Self {
        Self {
            names_value: true,
            ..Self::new(ProblemKind::BadValue, message)
        }
    }

    /// A fault of which the value is not told, as it may be a secret.
    pub(super) fn of_secret(message: impl Into<String>) -> Self {
        Self::new(ProblemKind::BadValue, message)
    }

    pub(super) fn wrong_type(expected: impl Display, found: &str) -> Self {
        Self {
            allowed: Some(expected.to_string()),
            ..Self::new(
                ProblemKind::WrongType,
                format!("expected {expected}, found {found}"),
            )
        }
    }

    pub(super) fn out_of_range(
        value: impl Display,
        least: impl Display,
        most: impl Display,
        unit: &str,
    ) -> Self {
        Self {
            allowed: Some(format!("{least} to {most}{unit}")),
            ..Self::new(
                ProblemKind::BadValue,
                format!("{value} is out of range, {least} to {most}{unit}"),
            )
        }
    }

    /// A word that is none of `known`.
    pub(super) fn unknown_word<'a>(
        word: &str,
        known: impl Iterator<Item = &'a str> + Clone,
    ) -> Self {
        let near = nearest(word, known.clone());
        let all = known.collect::<Vec<_>>().join(", ");
        let message = match near {
            Some(near) => format!("is unknown, did you mean {near:?}?"),
            None => format!("is unknown, known here: {all}"),
        };
        Self {
            allowed: Some(all),
            nearest: near.map(str::to_owned),
            ..Self::of_value(message)
        }
    }

    pub(super) const fn kind(mut self, kind: ProblemKind) -> Self {
        self.kind = kind;
        self
    }
}

impl From<String> for Fault {
    fn from(message: String) -> Self {
        Self::of_secret(message)
    }
}

impl From<&str> for Fault {
    fn from(message: &str) -> Self {
        Self::of_secret(message)
    }
}

impl Fault {
    /// The problem that `value`, given in code for `key`, is.
    pub(super) fn into_problem(self, key: &str, value: &str) -> super::Problem {
        let message = if self.names_value {
            format!("{value:?} {}", self.message)
        } else {
            self.message
        };
        super::Problem {
            allowed: self.allowed,
            nearest: self.nearest,
            ..super::Problem::new(self.kind, key, message)
        }
    }
}
