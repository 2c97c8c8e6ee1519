//! Where changes of health come together.

use tokio::sync::watch;

use super::report::{HealthReport, HealthStatus, PluginHealth};
use super::state::State;
use crate::config::PluginName;

const PLUGIN: &str = "plugin_health_status";

/// The last report, for whoever wants to know of each new one.
#[derive(Debug, Default)]
pub(crate) struct HealthHub(watch::Sender<HealthReport>);

impl HealthHub {
    pub(crate) fn subscribe(&self) -> watch::Receiver<HealthReport> {
        self.0.subscribe()
    }

    /// Each of `plugins` is another than before, or has other endpoints, or is not there any more.
    pub(crate) fn publish<'a>(
        &self,
        plugins: impl Iterator<Item = (&'a PluginName, Option<PluginHealth>)>,
    ) {
        // Looked at inside: of two changes the later one stays.
        self.0.send_if_modified(|report| {
            let mut is_new = false;
            for (name, new) in plugins {
                let Some(new) = new else {
                    is_new |= report.plugins.remove(name).is_some();
                    continue;
                };
                let old = report.plugins.get(name);
                is_new |= old.is_none_or(|old| !old.says_the_same(&new));
                report.plugins.insert(name.clone(), new);
            }
            is_new
        });
    }

    /// There are no plugins any more.
    pub(crate) fn clear(&self) {
        self.0.send_if_modified(|report| {
            let is_new = !report.plugins.is_empty();
            report.plugins.clear();
            is_new
        });
    }

    /// A plugin has other endpoints, while its node goes on.
    pub(in super::super) fn changed_endpoints(&self, plugin: &PluginName, health: PluginHealth) {
        let status = health.status;
        self.0.send_if_modified(|report| {
            let Some(known) = report.plugins.get_mut(plugin) else {
                return false;
            };
            *known = health;
            true
        });
        gauge(plugin, status);
    }

    /// An endpoint of `plugin` is not what it was.
    pub(super) fn changed(&self, plugin: &PluginName, state: &State) {
        let mut status = None;
        self.0.send_if_modified(|report| {
            let Some(plugin) = report.plugins.get_mut(plugin) else {
                return false;
            };
            let mut endpoints = plugin.endpoints.iter_mut();
            let Some(endpoint) = endpoints.find(|end| end.address == *state.address()) else {
                return false;
            };
            *endpoint = state.snapshot();
            plugin.judge();
            status = Some(plugin.status);
            true
        });
        if let Some(status) = status {
            gauge(plugin, status);
        }
    }
}

/// Shows what a plugin is, whose endpoints are asked.
pub(in super::super) fn gauge(plugin: &PluginName, status: HealthStatus) {
    metrics::gauge!(PLUGIN, "plugin_name" => plugin.as_str().to_owned()).set(status.gauge());
}

impl PluginHealth {
    /// Whether there is no difference but in times.
    fn says_the_same(&self, other: &Self) -> bool {
        let said = |health: &Self| {
            let endpoints = health.endpoints.iter();
            endpoints
                .map(|end| (end.address.clone(), end.status))
                .collect::<Vec<_>>()
        };
        said(self) == said(other)
    }
}
