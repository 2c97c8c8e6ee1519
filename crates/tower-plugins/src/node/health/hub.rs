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

    /// The plugins are others than before, or have other endpoints.
    pub(crate) fn publish(&self, look: impl FnOnce() -> HealthReport) {
        self.0.send_if_modified(|report| {
            let new = look();
            let is_new = !report.says_the_same(&new);
            *report = new;
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
        // Looked at inside: of two changes the later one stays.
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

impl HealthReport {
    /// Whether there is no difference but in times.
    fn says_the_same(&self, other: &Self) -> bool {
        let one = self.plugins.iter();
        let two = other.plugins.iter();
        self.plugins.len() == other.plugins.len()
            && one.zip(two).all(|((name, one), (other, two))| {
                let same = |(one, two): (&super::EndpointHealth, &super::EndpointHealth)| {
                    (&one.address, one.status) == (&two.address, two.status)
                };
                name == other
                    && one.endpoints.len() == two.endpoints.len()
                    && one.endpoints.iter().zip(&two.endpoints).all(same)
            })
    }
}
