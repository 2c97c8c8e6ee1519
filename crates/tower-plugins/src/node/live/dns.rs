//! Endpoints that name servers tell of.
//!
//! A name is looked up when its plugin is built, and again when what was answered is no longer valid, within bounds.
//! What cannot be answered leaves the last answer standing: of one kind of address, where only that cannot.

mod lookup;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use metrics::{Counter, counter};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::sleep;

use self::lookup::{Found, Lookup};
use crate::config::{Address, DnsName, DnsSpec, EndpointSpec, PluginName};
use crate::error::{Error, Kind};

/// The shortest wait between two lookups.
const SHORTEST: Duration = Duration::from_millis(1);

/// What a name stands for: sorted, each once.
pub(super) type Answers = Arc<[Answer]>;

/// One endpoint of an answer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Answer {
    priority: u32,
    at: SocketAddr,
    weight: u32,
    /// Of the origin; a service's is in its record.
    port: u16,
}

/// A name that is looked up again and again, by one task, for as long as this is here.
pub(in super::super) struct Name {
    of: DnsName,
    spec: DnsSpec,
    answers: watch::Receiver<Option<Answers>>,
    task: AbortHandle,
}

impl Name {
    /// Begins to look `of` up, or goes on if one of `old` does. Within a runtime.
    pub(in super::super) fn build(
        plugin: &PluginName,
        of: &DnsName,
        spec: &DnsSpec,
        old: &[Arc<Self>],
    ) -> Result<Arc<Self>, Error> {
        let old = old.iter().find(|old| old.of == *of);
        if let Some(old) = old.filter(|old| old.spec == *spec) {
            return Ok(Arc::clone(old));
        }
        // Looked up in another way it is the same name: the last answer stands until there is another.
        let known = old.and_then(|old| old.answers.borrow().clone());
        let lookup = Lookup::new(of, spec).map_err(|error| {
            let message = format!("`{of}`: no name can be looked up: {error}");
            Error::caused_by(Kind::Config, message)
        })?;
        let known = known.filter(|known| !known.is_empty());
        let (sender, answers) = watch::channel(known);
        let lookups = |outcome| {
            let plugin = plugin.as_str().to_owned();
            counter!("plugin_dns_lookups_total", "plugin_name" => plugin, "outcome" => outcome)
        };
        let run = Run {
            plugin: plugin.clone(),
            of: of.clone(),
            spec: spec.clone(),
            lookup,
            answers: sender,
            ok: lookups("ok"),
            failed: lookups("failed"),
        };
        Ok(Arc::new(Self {
            of: of.clone(),
            spec: spec.clone(),
            answers,
            task: tokio::spawn(run.run()).abort_handle(),
        }))
    }

    pub(super) fn is_of(&self, name: &DnsName) -> bool {
        self.of == *name
    }

    pub(super) fn answers(&self) -> watch::Receiver<Option<Answers>> {
        self.answers.clone()
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Answer {
    fn is_at(&self, other: &Self) -> bool {
        (self.at, self.port) == (other.at, other.port)
    }

    /// The endpoint, with what `entry` says of all that are behind the name.
    pub(super) fn of(&self, entry: &EndpointSpec) -> EndpointSpec {
        let address = match &entry.address {
            Address::Dns(name) => name.found(self.port, self.at),
            address => address.clone(),
        };
        EndpointSpec {
            address,
            weight: entry.weight.saturating_mul(self.weight),
            priority: entry.priority.saturating_add(self.priority),
            ..entry.clone()
        }
    }
}

/// The task of a name.
struct Run {
    plugin: PluginName,
    of: DnsName,
    spec: DnsSpec,
    lookup: Lookup,
    answers: watch::Sender<Option<Answers>>,
    ok: Counter,
    failed: Counter,
}

impl Run {
    async fn run(self) {
        let mut failures = 0_u32;
        loop {
            let valid = match self.lookup.run().await {
                Ok(found) if found.missing.is_nothing() => {
                    failures = 0;
                    self.ok.increment(1);
                    let valid = found.valid;
                    self.take(found);
                    valid
                }
                Ok(found) => {
                    self.ok.increment(1);
                    self.tell(found.missing.error.as_deref(), failures);
                    let valid = found.valid;
                    self.take(found);
                    valid.min(self.pause(&mut failures))
                }
                Err(error) => {
                    self.failed.increment(1);
                    self.tell(Some(&*error), failures);
                    self.fail();
                    self.pause(&mut failures)
                }
            };
            // One that is made in code may be zero.
            let least = self.spec.min_ttl.max(SHORTEST);
            sleep(valid.clamp(least, self.spec.max_ttl.max(least))).await;
        }
    }

    /// How long to wait after one more lookup that failed, if in part.
    fn pause(&self, failures: &mut u32) -> Duration {
        let times = 2_u32.saturating_pow((*failures).min(15));
        *failures = failures.saturating_add(1);
        self.spec.min_ttl.saturating_mul(times)
    }

    fn take(&self, found: Found) {
        let mut answers = found.answers;
        if !found.missing.is_nothing() {
            let known = self.answers.borrow();
            let known = known.iter().flat_map(|known| known.iter());
            let stays = |one: &&Answer| {
                found.missing.has(one.at) && !answers.iter().any(|new| new.is_at(one))
            };
            let kept: Vec<_> = known.filter(stays).cloned().collect();
            answers.extend(kept);
        }
        answers.sort_unstable();
        answers.dedup_by_key(|answer| (answer.at, answer.port));
        let most = self.spec.max_endpoints as usize;
        if answers.len() > most {
            let (name, found) = (&self.of, answers.len());
            tracing::warn!(plugin.name = %self.plugin, %name, found, most, "dns: endpoints left out");
            answers.truncate(most);
        }
        let answers = Answers::from(answers);
        self.answers.send_if_modified(|known| {
            let is_new = known.as_ref() != Some(&answers);
            if is_new {
                tracing::info!(plugin.name = %self.plugin, name = %self.of, endpoints = answers.len(), "dns: endpoints");
                *known = Some(answers);
            }
            is_new
        });
    }

    fn tell(&self, error: Option<&(dyn std::error::Error + Send + Sync + 'static)>, failures: u32) {
        let (plugin, name) = (&self.plugin, &self.of);
        let error = error.map(|error| error as &(dyn std::error::Error + 'static));
        if failures == 0 {
            tracing::warn!(plugin.name = %plugin, %name, error, "dns: the last answer stays");
        } else {
            tracing::debug!(plugin.name = %plugin, %name, error, failures, "dns: the last answer stays");
        }
    }

    /// What was known stays; of a name that never was, that it has no endpoints.
    fn fail(&self) {
        self.answers.send_if_modified(|known| {
            let is_first = known.is_none();
            known.get_or_insert_default();
            is_first
        });
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Name").field(&self.of).finish()
    }
}
