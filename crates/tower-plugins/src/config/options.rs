//! `options`: what a layer or transport of the program's own is made of.

use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Number, Value as Json};

use super::error::ProblemKind;
use super::fault::Fault;
use super::nearest::nearest;
use super::report::Report;
use super::table::{Table, join};
use super::tree::{Node, Value};
use super::{ConfigError, Problem};

/// A table `options`, of a layer or a transport of the program's own. What it means is their matter; its values may be
/// secrets and are not printed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Options(Map<String, Json>);

/// Where a thing is written that the program makes, for errors that are found when it does. Two that differ in
/// this alone are equal: nothing is made anew when a line moves.
#[derive(Clone, Debug, Default)]
pub(super) struct Origin(Option<Box<Problem>>);

impl Origin {
    /// Where `problem`, which is still to come, is.
    pub(super) fn at(problem: Problem) -> Self {
        Self(Some(Box::new(problem)))
    }

    /// The problem there that `message` says; at `key`, of what was not written but made in code.
    pub(super) fn problem(&self, key: &str, message: String) -> Problem {
        let written = self.0.as_deref().cloned();
        let mut problem = written.unwrap_or_else(|| Problem::new(ProblemKind::BadValue, key, ""));
        problem.message = message;
        problem
    }

    /// The problem there that no `what` called `name` is among `known`: it is registered by a method of the builder.
    pub(super) fn unregistered<'a>(
        &self,
        key: &str,
        (what, method): (&str, &str),
        name: &str,
        known: impl Iterator<Item = &'a str>,
    ) -> Problem {
        let mut known: Vec<_> = known.collect();
        known.sort_unstable();
        let near = nearest(name, known.iter().copied());
        let advice = match near {
            Some(near) => format!("did you mean `{near}`?"),
            None => {
                format!("register it with Plugins::builder().{method}(\"{name}\", …), or remove it")
            }
        };
        Problem {
            nearest: near.map(str::to_owned),
            allowed: (!known.is_empty()).then(|| known.join(", ")),
            ..self.problem(key, format!("no {what} `{name}` is registered: {advice}"))
        }
    }
}

impl PartialEq for Origin {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Origin {}

impl Options {
    /// Options in code, of a value that is a table to serde: a struct or a map.
    ///
    /// ```
    /// use tower_plugins::config::{Options, LayerSpec};
    ///
    /// let mut audit = LayerSpec::new("audit");
    /// audit.options = Options::of([("what", "orders")].into_iter().collect::<std::collections::HashMap<_, _>>())?;
    /// # Ok::<(), tower_plugins::config::ConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If it is anything else.
    pub fn of(options: impl Serialize) -> Result<Self, ConfigError> {
        let wrong = |message: &str| Problem::new(ProblemKind::WrongType, "options", message);
        match serde_json::to_value(options) {
            Ok(Json::Object(options)) => Ok(Self(options)),
            Ok(_) => Err(wrong("expected a table").into()),
            Err(error) => Err(wrong(&error.to_string()).into()),
        }
    }

    /// The options as a `T`. No options are an empty table, or nothing to a `T` that is no table, such as `()`.
    ///
    /// # Errors
    ///
    /// What `T` says of them.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        let read = serde_json::from_value(Json::Object(self.0.clone()));
        if self.0.is_empty() {
            return read.or_else(|error| serde_json::from_value(Json::Null).map_err(|_| error));
        }
        read
    }

    pub(super) const fn table(&self) -> &Map<String, Json> {
        &self.0
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// The key `options` of `table`.
pub(super) fn read(table: &mut Table<'_>) -> Option<Options> {
    let (report, doc, path) = (table.report(), table.doc(), table.path_of("options"));
    let node = table.read("options", |given, _| match given.node.value {
        Value::Table(_) => Ok(given.node),
        _ => Err(given.expected("a table")),
    })?;
    match value(report, doc, &path, node)? {
        Json::Object(options) => Some(Options(options)),
        _ => None,
    }
}

/// `node` with its variables put in; `None` if something in it was reported.
fn value<'t>(report: &'t Report<'t>, doc: usize, path: &str, node: &'t Node<'t>) -> Option<Json> {
    let fault = match &node.value {
        Value::Bool(bool) => return Some((*bool).into()),
        Value::Integer(whole) => return Some((*whole).into()),
        Value::Float(number) => match Number::from_f64(*number) {
            Some(number) => return Some(Json::Number(number)),
            None => Fault::of_secret("is not a number"),
        },
        Value::Text(_) => match report.given(node) {
            Ok(given) => return Some(given.text?.into_owned().into()),
            Err(fault) => fault,
        },
        Value::List(items) => {
            let items = items.iter().enumerate();
            // All of them are looked at, so that each is reported.
            let items: Vec<_> = items
                .map(|(index, item)| value(report, doc, &format!("{path}[{index}]"), item))
                .collect();
            return items.into_iter().collect::<Option<_>>().map(Json::Array);
        }
        Value::Table(entries) => {
            let entries: Vec<_> = entries
                .iter()
                .map(|entry| {
                    let path = join(path, &entry.key);
                    let value = value(report, doc, &path, &entry.node);
                    Some((entry.key.clone().into_owned(), value?))
                })
                .collect();
            return entries.into_iter().collect::<Option<_>>().map(Json::Object);
        }
        Value::Date => Fault::of_secret("is a date: put it in quotes"),
        Value::Null => Fault::new(
            ProblemKind::Missing,
            "has no value: give it one, or remove the key",
        ),
    };
    report.add(doc, node.at, path, fault);
    None
}
