//! When certificates expire: a gauge of it, and a warning ahead of it, once for each certificate.
//!
//! They are looked at whenever a connection is opened.

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use metrics::gauge;
use rustls::{CertificateError, Error};
use x509_cert::der::DateTime;

use super::Names;
use super::tls_error::tls;
use crate::config::pem::{certificates, not_after};
use crate::config::{Identity, TlsSpec};

/// Machines behind one address may have a certificate each: so many are told apart.
const REMEMBERED: usize = 16;

/// What was said of a certificate.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Told {
    Nothing,
    Soon,
    Expired,
}

struct Certificate {
    id: u64,
    not_after: DateTime,
    told: Told,
}

impl Certificate {
    const fn new(id: u64, not_after: DateTime) -> Self {
        Self {
            id,
            not_after,
            told: Told::Nothing,
        }
    }

    fn timestamp(&self) -> f64 {
        self.not_after.unix_duration().as_secs_f64()
    }

    /// What is to be said of it now, and was not yet; `within` is how long ahead, and `None` is never.
    fn news(&mut self, within: Option<Duration>) -> Told {
        let Some(within) = within else {
            return Told::Nothing;
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let left = self
            .not_after
            .unix_duration()
            .checked_sub(now.unwrap_or_default());
        let state = match left {
            None => Told::Expired,
            Some(left) if left <= within => Told::Soon,
            Some(_) => Told::Nothing,
        };
        if state <= self.told {
            return Told::Nothing;
        }
        self.told = state;
        state
    }
}

/// The certificate that this side shows. All endpoints that are shown it have this one.
pub(super) struct Shown {
    file: PathBuf,
    certificate: Mutex<Certificate>,
}

impl Shown {
    pub(super) fn new(identity: &Identity) -> Option<Self> {
        let chain = certificates(&identity.cert).ok()?;
        Some(Self {
            file: identity.cert.path().to_owned(),
            certificate: Mutex::new(Certificate::new(0, not_after(chain.first()?)?)),
        })
    }
}

/// The certificates that one endpoint shows.
pub(super) struct Expiry {
    plugin: Option<String>,
    endpoint: String,
    /// How long ahead a warning is given.
    within: Option<Duration>,
    /// The last is the one that was seen last.
    seen: Mutex<VecDeque<Certificate>>,
}

impl Expiry {
    pub(super) fn new(spec: &TlsSpec, names: Names<'_>) -> Self {
        Self {
            plugin: names.plugin.map(ToOwned::to_owned),
            endpoint: names.endpoint.to_owned(),
            within: spec.expiry_warning,
            seen: Mutex::default(),
        }
    }

    /// `certificate`, in DER, was shown by the endpoint.
    pub(super) fn seen(&self, certificate: &[u8]) {
        let id = foldhash::fast::FixedState::default().hash_one(certificate);
        self.known(id, || not_after(certificate));
    }

    /// A handshake failed: if it is for a certificate that has expired, nothing else has told of that.
    pub(super) fn failed(&self, error: &io::Error) {
        let Some(Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. })) =
            tls(error)
        else {
            return;
        };
        let not_after = not_after.as_secs();
        self.known(not_after, || {
            DateTime::from_unix_duration(Duration::from_secs(not_after)).ok()
        });
    }

    fn known(&self, id: u64, not_after: impl FnOnce() -> Option<DateTime>) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let place = seen.iter().position(|certificate| certificate.id == id);
        let known = place.and_then(|place| seen.remove(place));
        let Some(mut certificate) = known.or_else(|| Some(Certificate::new(id, not_after()?)))
        else {
            return;
        };
        let (timestamp, expires) = (certificate.timestamp(), certificate.not_after);
        let news = certificate.news(self.within);
        if seen.len() == REMEMBERED {
            seen.pop_front();
        }
        seen.push_back(certificate);
        drop(seen);
        if let Some(plugin) = &self.plugin {
            gauge!(
                "plugin_endpoint_certificate_expiry_timestamp_seconds",
                "plugin_name" => plugin.clone(), "endpoint" => self.endpoint.clone()
            )
            .set(timestamp);
        }
        let (plugin, endpoint) = (self.plugin.as_deref(), &*self.endpoint);
        match news {
            Told::Nothing => {}
            Told::Soon => tracing::warn!(
                plugin.name = plugin, server.address = endpoint, %expires, "certificate expires soon"
            ),
            Told::Expired => tracing::warn!(
                plugin.name = plugin, server.address = endpoint, %expires, "certificate has expired"
            ),
        }
    }

    /// The endpoint is about to be shown this, if it asks.
    pub(super) fn shows(&self, shown: &Shown) {
        let certificate = shown.certificate.lock();
        let mut certificate = certificate.unwrap_or_else(PoisonError::into_inner);
        let (timestamp, expires) = (certificate.timestamp(), certificate.not_after);
        let news = certificate.news(self.within);
        drop(certificate);
        if let Some(plugin) = &self.plugin {
            gauge!("plugin_client_certificate_expiry_timestamp_seconds", "plugin_name" => plugin.clone())
                .set(timestamp);
        }
        let file = shown.file.display();
        match news {
            Told::Nothing => {}
            Told::Soon => tracing::warn!(%file, %expires, "client certificate expires soon"),
            Told::Expired => tracing::warn!(%file, %expires, "client certificate has expired"),
        }
    }
}
