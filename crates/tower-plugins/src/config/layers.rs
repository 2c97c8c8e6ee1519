//! `layers`: layers of the program's own, by the names under which it registered them.

use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Number, Value as Json};

use super::error::ProblemKind;
use super::fault::Fault;
use super::keys::LAYER;
use super::nearest::nearest;
use super::report::Report;
use super::table::{Table, join};
use super::tree::{Node, Value};
use super::{ConfigError, PluginName, Problem};

/// Where in a plugin's stack a layer of one's own stands.
///
/// ```text
///   trace ▸ drain ▸ CALL ▸ fallback ▸ authorize ▸ deadline ▸ rate_limit ▸ concurrency
///         ▸ retry ▸ ATTEMPT ▸ attempt_timeout ▸ balance
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Place {
    /// Around each call: seen by metrics and counted by a drain, outside of all else. It sees what a fallback answers,
    /// and calls that are refused. The deadline, which is counted from the beginning of the call, does not cut it
    /// short.
    #[default]
    Call,
    /// Around each attempt: inside of retry, which sees what it does to the response, and outside of the
    /// attempt's timeout.
    Attempt,
}

pub(super) const PLACES: [(&str, Place); 2] = [("call", Place::Call), ("attempt", Place::Attempt)];

/// One of `layers`: a layer that the program registers with
/// [`Builder::layer_named`](crate::Builder::layer_named).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LayerSpec {
    /// The name under which it is registered.
    pub name: String,
    /// Where it stands.
    pub at: Place,
    /// What it is made of.
    pub options: LayerOptions,
    origin: Origin,
}

/// The table `options` of a layer. What it means is the layer's matter; its values may be secrets and are not
/// printed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct LayerOptions(Map<String, Json>);

/// Where a layer is written, for errors that are found when it is made. Two specs that differ in this alone are
/// equal: nothing is made anew when a line moves.
#[derive(Clone, Debug, Default)]
struct Origin(Option<Box<Problem>>);

impl PartialEq for Origin {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Origin {}

impl LayerSpec {
    /// The layer registered as `name`, around each call and without options.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            at: Place::default(),
            options: LayerOptions::default(),
            origin: Origin::default(),
        }
    }

    /// That no layer of this name is among `known`.
    pub(crate) fn unknown<'a>(&self, known: impl Iterator<Item = &'a str>) -> ConfigError {
        let mut known: Vec<_> = known.collect();
        known.sort_unstable();
        let name = &self.name;
        let near = nearest(name, known.iter().copied());
        let advice = match near {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!(
                "register it with Plugins::builder().layer_named(\"{name}\", …), or remove it"
            ),
        };
        let message = format!("no layer `{name}` is registered: {advice}");
        let mut problem = self.problem("name", message);
        problem.nearest = near.map(str::to_owned);
        problem.allowed = (!known.is_empty()).then(|| known.join(", "));
        problem.into()
    }

    /// That the layer does not take its options, as `why` says.
    pub(crate) fn refused(&self, why: &dyn fmt::Display) -> ConfigError {
        let message = format!("the layer `{}` does not take these: {why}", self.name);
        self.problem("options", message).into()
    }

    fn problem(&self, key: &str, message: String) -> Problem {
        let written = self.origin.0.as_deref().cloned();
        let mut problem =
            written.unwrap_or_else(|| Problem::new(ProblemKind::BadValue, "layers", ""));
        problem.key = join(&problem.key, key);
        problem.message = message;
        problem
    }
}

impl LayerOptions {
    /// Options in code, of a value that is a table to serde: a struct or a map.
    ///
    /// ```
    /// use tower_plugins::config::{LayerOptions, LayerSpec};
    ///
    /// let mut audit = LayerSpec::new("audit");
    /// audit.options = LayerOptions::of([("what", "orders")].into_iter().collect::<std::collections::HashMap<_, _>>())?;
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

impl fmt::Debug for LayerOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// The layers of a plugin, the first of a place outermost.
pub(super) fn read(plugin: &mut Table<'_>) -> Vec<LayerSpec> {
    let (report, doc) = (plugin.report(), plugin.doc());
    let items = plugin.list("layers").unwrap_or_default();
    let layers = items.into_iter().filter_map(|item| {
        let (at, node) = (item.given.node.at, item.given.node);
        let origin = report.place_of(doc, at, &item.path);
        let mut table = report.table(doc, &LAYER, item.path, at, node)?;
        table.require("name");
        let name = table.read("name", |given, _| {
            let name = given.text()?;
            if PluginName::is_valid(name) {
                return Ok(name.to_owned());
            }
            let rule = PluginName::RULE;
            Err(Fault::of_value(format!("cannot name a layer: {rule}")))
        });
        let place = table.word("at", &PLACES);
        let options = options(&mut table);
        table.finish();
        Some(LayerSpec {
            name: name?,
            at: place.unwrap_or_default(),
            options: LayerOptions(options.unwrap_or_default()),
            origin: Origin(Some(Box::new(origin))),
        })
    });
    layers.collect()
}

fn options(table: &mut Table<'_>) -> Option<Map<String, Json>> {
    let (report, doc, path) = (table.report(), table.doc(), table.path_of("options"));
    let node = table.read("options", |given, _| match given.node.value {
        Value::Table(_) => Ok(given.node),
        _ => Err(given.expected("a table")),
    })?;
    match value(report, doc, &path, node)? {
        Json::Object(options) => Some(options),
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
