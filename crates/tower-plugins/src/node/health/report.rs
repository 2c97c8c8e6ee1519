//! How plugins are, as programs see it.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime};

use crate::config::{Address, PluginName};

/// How an endpoint, a plugin or all of them are.
///
/// The words are those of go-plugins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HealthStatus {
    /// Nobody has asked yet, or nobody asks.
    #[default]
    Unknown,
    /// It answers as it should.
    Healthy,
    /// It answers, and slowly, or not each time; of a plugin also that some of its endpoints are out. It gets calls.
    Degraded,
    /// It answers, and not as it should: it is out.
    Unhealthy,
    /// It could not be reached, or may not be, as one that credentials would go to in the clear: it is out.
    Offline,
}

impl HealthStatus {
    /// The word: `unknown`, `healthy`, `degraded`, `unhealthy` or `offline`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Unhealthy => "unhealthy",
            Self::Offline => "offline",
        }
    }

    /// Whether an endpoint is left out for it.
    #[must_use]
    pub const fn is_out(self) -> bool {
        matches!(self, Self::Unhealthy | Self::Offline)
    }

    /// As the gauges have it.
    pub(super) const fn gauge(self) -> f64 {
        match self {
            Self::Healthy => 1.0,
            Self::Degraded => 0.5,
            Self::Unhealthy | Self::Unknown => 0.0,
            Self::Offline => -1.0,
        }
    }

    /// What a plugin is whose endpoints are `all`.
    fn of_endpoints(all: &[Self]) -> Self {
        let any = |is: fn(Self) -> bool| all.iter().any(|status| is(*status));
        if any(|status| !status.is_out()) {
            if any(|status| status.is_out() || status == Self::Degraded) {
                Self::Degraded
            } else if any(|status| status == Self::Healthy) {
                Self::Healthy
            } else {
                Self::Unknown
            }
        } else if any(|status| status != Self::Offline) {
            Self::Unhealthy
        } else {
            Self::Offline
        }
    }

    /// What a program is whose plugins are `all`.
    fn of_plugins(all: &[Self]) -> Self {
        let any = |is: fn(Self) -> bool| all.iter().any(|status| is(*status));
        if any(Self::is_out) {
            Self::Unhealthy
        } else if any(|status| status == Self::Degraded) {
            Self::Degraded
        } else if any(|status| status == Self::Healthy) {
            Self::Healthy
        } else {
            Self::Unknown
        }
    }
}

impl fmt::Display for HealthStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How all plugins are at some moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct HealthReport {
    /// By name.
    pub plugins: BTreeMap<PluginName, PluginHealth>,
}

/// How a plugin is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PluginHealth {
    /// In all: degraded if some of its endpoints are out, offline if none can be reached.
    pub status: HealthStatus,
    /// In the order of the config; those that came while it runs and cannot be called at the end, each with a message that
    /// says why.
    pub endpoints: Vec<EndpointHealth>,
}

/// How an endpoint is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EndpointHealth {
    /// Where it is.
    pub address: Address,
    /// How it is.
    pub status: HealthStatus,
    /// When the last check ended; `None` before that, and where nobody asks.
    pub last_check: Option<SystemTime>,
    /// How long the last check took.
    pub response_time: Option<Duration>,
    /// Checks that failed since the last that did not.
    pub failures: u32,
    /// What was wrong, as far as something was. It may repeat what an error of the system or of the transport says.
    pub message: Option<String>,
}

impl HealthReport {
    /// In all: unhealthy if a plugin is unhealthy or offline, degraded if one is degraded. Plugins that nobody asks make
    /// no difference, unless there are no others.
    #[must_use]
    pub fn status(&self) -> HealthStatus {
        let plugins: Vec<_> = self.plugins.values().map(|plugin| plugin.status).collect();
        HealthStatus::of_plugins(&plugins)
    }

    /// How the plugin `name` is, if there is one.
    #[must_use]
    pub fn plugin(&self, name: &str) -> Option<&PluginHealth> {
        self.plugins.get(name)
    }
}

impl PluginHealth {
    pub(crate) fn new(endpoints: Vec<EndpointHealth>) -> Self {
        let mut plugin = Self {
            status: HealthStatus::Unknown,
            endpoints,
        };
        plugin.judge();
        plugin
    }

    /// What its endpoints make of it.
    pub(super) fn judge(&mut self) {
        let endpoints: Vec<_> = self.endpoints.iter().map(|end| end.status).collect();
        self.status = HealthStatus::of_endpoints(&endpoints);
    }
}

impl EndpointHealth {
    /// Of an endpoint that nobody asks.
    pub(crate) const fn unknown(address: Address) -> Self {
        Self {
            address,
            status: HealthStatus::Unknown,
            last_check: None,
            response_time: None,
            failures: 0,
            message: None,
        }
    }

    /// Of an endpoint that gets no calls for what `message` says.
    pub(crate) fn left_out(address: Address, message: String) -> Self {
        Self {
            status: HealthStatus::Offline,
            message: Some(message),
            ..Self::unknown(address)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::HealthStatus::{self, Degraded, Healthy, Offline, Unhealthy, Unknown};

    #[test]
    fn a_plugin_is_what_its_endpoints_make_of_it() {
        for (endpoints, plugin) in [
            (&[Unknown][..], Unknown),
            (&[Healthy, Unknown], Healthy),
            (&[Healthy, Healthy], Healthy),
            (&[Healthy, Degraded], Degraded),
            (&[Healthy, Offline], Degraded),
            (&[Unknown, Unhealthy], Degraded),
            (&[Unhealthy, Offline], Unhealthy),
            (&[Offline, Offline], Offline),
        ] {
            let status = HealthStatus::of_endpoints(endpoints);
            assert_eq!(status, plugin, "{endpoints:?}");
        }
    }

    #[test]
    fn a_program_is_what_its_plugins_make_of_it() {
        for (plugins, all) in [
            (&[][..], Unknown),
            (&[Unknown, Unknown], Unknown),
            (&[Unknown, Healthy], Healthy),
            (&[Degraded, Healthy], Degraded),
            (&[Degraded, Offline], Unhealthy),
            (&[Unhealthy, Healthy], Unhealthy),
        ] {
            let status = HealthStatus::of_plugins(plugins);
            assert_eq!(status, all, "{plugins:?}");
        }
    }
}
