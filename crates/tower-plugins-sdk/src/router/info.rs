use std::collections::BTreeMap;

use serde::Serialize;
use tower_plugins_proto::v1::InfoResponse;

/// What a plugin says of itself, to hosts that ask: `GET /info`, gRPC's `Info`, and the line `info`.
///
/// ```
/// use tower_plugins_sdk::router::{Info, Router};
///
/// let about = Info::new("resize").version("1.2.0").description("Makes images smaller.");
/// let router = Router::new().info(about);
/// ```
#[derive(Clone, Debug, Default, Serialize)]
pub struct Info {
    name: String,
    version: String,
    description: String,
    capabilities: Vec<String>,
    metadata: BTreeMap<String, String>,
}

impl Info {
    /// A plugin that calls itself `name`, which need not be what a host's config calls it.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            ..Self::default()
        }
    }

    /// Its version, by semantic versioning.
    #[must_use]
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.version = version.into();
        self
    }

    /// One sentence for people.
    #[must_use]
    pub fn description(mut self, description: impl Into<String>) -> Self {
        self.description = description.into();
        self
    }

    /// One more thing that the plugin can do. Without any they are the names of the router's methods.
    #[must_use]
    pub fn capability(mut self, capability: impl Into<String>) -> Self {
        self.capabilities.push(capability.into());
        self
    }

    /// Anything else worth showing.
    #[must_use]
    pub fn metadata(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.insert(name.into(), value.into());
        self
    }

    pub(super) fn or_can(mut self, methods: impl Iterator<Item = String>) -> Self {
        if self.capabilities.is_empty() {
            self.capabilities = methods.collect();
        }
        self
    }

    pub(super) fn message(&self) -> InfoResponse {
        let Self {
            name,
            version,
            description,
            capabilities,
            metadata,
        } = self.clone();
        InfoResponse {
            name,
            version,
            description,
            capabilities,
            metadata,
        }
    }
}
