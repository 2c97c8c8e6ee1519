//! A part of the calls goes to another plugin, or to several.

use std::fmt;
use std::sync::Arc;

use http::Request;
use metrics::{Counter, counter};
use tower_plugins_layers::RequestHead;
use tower_plugins_layers::balance::KeyFrom;

use super::super::{Node, Services};
use super::{Other, spread};
use crate::Body;
use crate::config::{PluginSpec, SplitSpec};

#[derive(Debug)]
pub(in super::super) struct Split {
    targets: Box<[Target]>,
    key: Option<KeyFrom>,
}

/// Another plugin, which has a range of the draws from 0 to 1.
struct Target {
    to: Other,
    /// Where its range ends, and that of the next begins.
    end: f64,
    calls: Counter,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut target = f.debug_struct("Target");
        target.field("to", &self.to).field("end", &self.end);
        target.finish_non_exhaustive()
    }
}

impl Split {
    pub(in super::super) fn new(
        plugin: &PluginSpec,
        spec: &SplitSpec,
        key: Option<KeyFrom>,
        services: &Arc<Services>,
    ) -> Self {
        let mut percent = 0.0;
        let targets = spec.targets.iter().map(|target| {
            percent += target.percent.get();
            let (name, to) = (plugin.name.as_str(), target.plugin.as_str());
            Target {
                to: Other {
                    name: target.plugin.clone(),
                    services: Arc::clone(services),
                },
                end: percent / 100.0,
                calls: counter!(
                    "plugin_split_calls_total",
                    "plugin_name" => name.to_owned(), "to" => to.to_owned()
                ),
            }
        });
        Self {
            targets: targets.collect(),
            key,
        }
    }

    /// The other plugin, if the call goes to one.
    pub(super) fn way(&self, request: &Request<Body>) -> Option<Arc<Node>> {
        let draw = self.draw(request);
        let target = self.targets.iter().find(|target| draw < target.end)?;
        let there = target.to.find(request.headers())?;
        target.calls.increment(1);
        Some(there)
    }

    /// A number from 0 to 1: of a key always the same.
    fn draw(&self, request: &Request<Body>) -> f64 {
        let key = self.key.as_ref();
        let key = key.and_then(|key| key.take(RequestHead::of(request)));
        key.map_or_else(fastrand::f64, |key| spread(&key))
    }
}
