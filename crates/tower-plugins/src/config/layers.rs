//! `layers`: layers of the program's own, by the names under which it registered them.

use std::fmt;

use super::fault::Fault;
use super::keys::LAYER;
use super::options::{self, Options, Origin};
use super::table::{Table, join};
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
    pub options: Options,
    origin: Origin,
}

impl LayerSpec {
    /// The layer registered as `name`, around each call and without options.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            at: Place::default(),
            options: Options::default(),
            origin: Origin::default(),
        }
    }

    /// That no layer of this name is among `known`.
    pub(crate) fn unknown<'a>(&self, known: impl Iterator<Item = &'a str>) -> ConfigError {
        let named = ("layer", "layer_named");
        let mut problem = self.origin.unregistered("layers", named, &self.name, known);
        problem.key = join(&problem.key, "name");
        problem.into()
    }

    /// That the layer does not take its options, as `why` says.
    pub(crate) fn refused(&self, why: &dyn fmt::Display) -> ConfigError {
        let message = format!("the layer `{}` does not take these: {why}", self.name);
        self.problem("options", message).into()
    }

    fn problem(&self, key: &str, message: String) -> Problem {
        let mut problem = self.origin.problem("layers", message);
        problem.key = join(&problem.key, key);
        problem
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
        let options = options::read(&mut table);
        table.finish();
        Some(LayerSpec {
            name: name?,
            at: place.unwrap_or_default(),
            options: options.unwrap_or_default(),
            origin: Origin::at(origin),
        })
    });
    layers.collect()
}
