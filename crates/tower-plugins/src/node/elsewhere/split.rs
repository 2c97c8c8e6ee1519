//! A part of the calls goes to another plugin.

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
    to: Other,
    /// Of 1.
    part: f64,
    key: Option<KeyFrom>,
    calls: Calls,
}

struct Calls(Counter);

impl std::fmt::Debug for Calls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Calls")
    }
}

impl Split {
    pub(in super::super) fn new(
        plugin: &PluginSpec,
        spec: &SplitSpec,
        key: Option<KeyFrom>,
        services: &Arc<Services>,
    ) -> Self {
        let name = plugin.name.as_str().to_owned();
        Self {
            to: Other {
                name: spec.to.clone(),
                services: Arc::clone(services),
            },
            part: spec.percent.get() / 100.0,
            key,
            calls: Calls(counter!("plugin_split_calls_total", "plugin_name" => name)),
        }
    }

    /// The other plugin, if the call goes there.
    pub(super) fn way(&self, request: &Request<Body>) -> Option<Arc<Node>> {
        if self.draw(request) >= self.part {
            return None;
        }
        let there = self.to.find(request.headers())?;
        self.calls.0.increment(1);
        Some(there)
    }

    /// A number from 0 to 1: of a key always the same.
    fn draw(&self, request: &Request<Body>) -> f64 {
        let key = self.key.as_ref();
        let key = key.and_then(|key| key.take(RequestHead::of(request)));
        key.map_or_else(fastrand::f64, |key| spread(&key))
    }
}
