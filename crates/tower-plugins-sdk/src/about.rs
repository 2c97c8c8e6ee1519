//! What a plugin says of itself: health and reflection.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tonic_health::ServingStatus;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};

use crate::{Error, Services};

/// What `grpc.health.v1.Health` says of a plugin: that it serves, as a whole, as does each of its services, unless it says otherwise
/// here. When the plugin ends, none of them does.
///
/// It is cheap to clone, and all clones are the same. A host of go-plugin asks after the service `plugin`. A health service of the plugin's own,
/// by [`Plugin::service`](crate::Plugin::service), takes its place, and says all that there is to say.
///
/// ```
/// use tower_plugins_sdk::Plugin;
///
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let plugin = Plugin::new("greeter", "1.0.0");
/// let health = plugin.health();
/// // The database is gone:
/// health.set("plugin", false).await;
/// # });
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Default)]
pub struct Health {
    reporter: HealthReporter,
    /// Of which services the plugin said something.
    said: Arc<Mutex<HashSet<String>>>,
}

impl Health {
    /// Whether `service` serves from now on; the empty name is the plugin as a whole.
    pub async fn set(&self, service: &str, serves: bool) {
        self.said().insert(service.to_owned());
        self.report(service, serves).await;
    }

    async fn report(&self, service: &str, serves: bool) {
        let status = if serves {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        };
        self.reporter.set_service_status(service, status).await;
    }

    /// What is locked is never left half done.
    fn said(&self) -> MutexGuard<'_, HashSet<String>> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Health").finish_non_exhaustive()
    }
}

/// Says how the plugin is.
#[derive(Debug)]
pub(crate) struct Reported {
    health: Health,
    names: Vec<&'static str>,
}

impl Reported {
    /// `services` with `grpc.health.v1.Health`: all of them serve, as do `others` and the plugin as a whole.
    pub(crate) async fn add(
        services: Services,
        health: Health,
        others: &[&'static str],
    ) -> (Services, Self) {
        let mut names = vec![""];
        names.extend(services.names());
        names.extend(others);
        for name in &names {
            // What was said before stands.
            let said = health.said().contains(*name);
            if !said {
                health.report(name, true).await;
            }
        }
        let service = HealthService::from_health_reporter(health.reporter.clone());
        let services = services.or_service(HealthServer::new(service));
        (services, Self { health, names })
    }

    /// No more: who asks first goes elsewhere.
    pub(crate) async fn ending(&self) {
        for name in &self.names {
            self.health.report(name, false).await;
        }
    }
}

/// `services` with reflection, in both versions.
#[cfg(feature = "reflection")]
pub(crate) fn add_reflection(services: Services) -> Result<Services, Error> {
    use tonic_reflection::pb::{v1, v1alpha};
    use tonic_reflection::server::Builder;

    const OWN: [&str; 2] = [
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
    ];

    let builder = || {
        let mut builder = Builder::configure()
            .include_reflection_service(false)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(v1::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(v1alpha::FILE_DESCRIPTOR_SET);
        for set in services.descriptor_sets() {
            builder = builder.register_encoded_file_descriptor_set(set);
        }
        for name in services.names().iter().copied().chain(OWN) {
            builder = builder.with_service_name(name);
        }
        builder
    };
    let failed = |error: tonic_reflection::server::Error| Error::Descriptors(error.to_string());
    let first = builder().build_v1alpha().map_err(failed)?;
    let second = builder().build_v1().map_err(failed)?;
    Ok(services.or_service(first).or_service(second))
}

#[cfg(not(feature = "reflection"))]
pub(crate) fn add_reflection(services: Services) -> Result<Services, Error> {
    Ok(services)
}
