//! When certificates expire is said ahead of it, and measured.

use std::fmt::{Debug, Write};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use tower_plugins::Plugins;
use tower_plugins::config::{Address, Config, PluginSpec, Protocol, TlsSpec};
use tower_plugins::transport::Transport;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Dispatch, Event, Level, Metadata, Subscriber};

use super::server::{Ca, Setup, TlsServer};
use super::{get, http, read, within};
use crate::support::call;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// The warnings about certificates, each in a line: what it says, and its fields but when that is.
#[derive(Clone, Default)]
pub(crate) struct Warnings(Arc<Mutex<Vec<String>>>);

impl Warnings {
    /// Those of `run`, on this thread.
    pub(crate) async fn of(run: impl Future<Output = ()>) -> Vec<String> {
        let warnings = Self::default();
        // With only one subscriber alive, a test on another thread, which has none, would switch events off for all.
        let _another = Dispatch::new(Self::default());
        let listening = tracing::subscriber::set_default(warnings.clone());
        run.await;
        drop(listening);
        let mut told = warnings.0.lock().unwrap();
        std::mem::take(&mut *told)
    }
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        match field.name() {
            "expires" => {}
            "message" => self.0.insert_str(0, &format!("{value:?}")),
            name => write!(self.0, " {name}={value:?}").unwrap(),
        }
    }
}

impl Subscriber for Warnings {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        if *event.metadata().level() == Level::WARN && line.0.contains("certificate") {
            self.0.lock().unwrap().push(line.0);
        }
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// Opens two connections to `server`, one after the other.
async fn twice(server: &TlsServer, tls: &TlsSpec) {
    let http = http(&server.at("localhost"), Protocol::Http1, tls);
    for _ in 0..2 {
        let _ = within(http.probe()).await;
    }
}

#[tokio::test]
async fn a_certificate_that_expires_soon_is_told_of_once() {
    let ca = Ca::new();
    for (left, expected) in [(15 * DAY, 0), (13 * DAY, 1)] {
        let server = Setup::new(&ca.certify_for(&["localhost"], left))
            .start()
            .await;
        let warnings = Warnings::of(twice(&server, &ca.trusted())).await;
        assert_eq!(warnings.len(), expected, "{left:?}: {warnings:?}");
        for warning in warnings {
            let address = server.at("localhost");
            let line = format!("certificate expires soon server.address=\"{address}\"");
            assert_eq!(warning, line);
        }
    }
}

#[tokio::test]
async fn a_certificate_that_has_expired_is_told_of_once_although_it_is_refused() {
    let ca = Ca::new();
    let server = Setup::new(&ca.certify_until(&["localhost"], 2020))
        .start()
        .await;
    let warnings = Warnings::of(twice(&server, &ca.trusted())).await;
    let address = server.at("localhost");
    assert_eq!(
        warnings,
        [format!(
            "certificate has expired server.address=\"{address}\""
        )]
    );
}

#[tokio::test]
async fn the_certificate_of_this_side_is_told_of_once_for_all_endpoints() {
    let ca = Ca::new();
    let shows = ca.certify(&["localhost"]);
    let (one, other) = (
        Setup::new(&shows).start().await,
        Setup::new(&shows).start().await,
    );
    for (mine, expected) in [
        (ca.certify(&["me"]), None),
        (ca.certify_for(&["me"], DAY), Some("expires soon")),
        (ca.certify_until(&["me"], 2020), Some("has expired")),
    ] {
        let mut tls = ca.trusted();
        tls.identity = Some(mine.identity());
        let (first, second) = (
            http(&one.at("localhost"), Protocol::Http1, &tls),
            http(&other.at("localhost"), Protocol::Http1, &tls),
        );
        let warnings = Warnings::of(async {
            for http in [&first, &second, &first] {
                within(http.probe()).await.unwrap();
            }
        });
        let expected =
            expected.map(|what| format!("client certificate {what} file=the-client.pem"));
        assert_eq!(warnings.await, expected.into_iter().collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn gauges_have_the_time_at_which_each_certificate_expires() {
    let recorder = DebuggingRecorder::new();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let ca = Ca::new();
    let server = Setup::new(&ca.certify_for(&["localhost"], 20 * DAY))
        .start()
        .await;
    let mut spec = PluginSpec::http("p", "http://unused").unwrap();
    spec.upstream.endpoints[0].address = Address::Https {
        authority: format!("u:secret@localhost:{}", server.port)
            .parse()
            .unwrap(),
        prefix: String::new(),
    };
    let tls = &mut spec.upstream.tls;
    tls.ca = Some(ca.file());
    tls.identity = Some(ca.certify_for(&["me"], 40 * DAY).identity());
    let plugins = Plugins::builder()
        .start(Config::new().with(spec))
        .await
        .unwrap();
    let of_certificates = || {
        let seen = recorder.snapshotter().snapshot().into_vec().into_iter();
        let seen = seen.filter(|(key, ..)| key.key().name().contains("certificate"));
        seen.collect::<Vec<_>>()
    };
    assert!(of_certificates().is_empty(), "none was seen yet");
    read(call(&plugins.plugin("p"), get("/")).await.unwrap()).await;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let mut seen = Vec::new();
    for (key, _, _, value) in of_certificates() {
        let DebugValue::Gauge(value) = value else {
            panic!("{key:?} is no gauge");
        };
        let labels: Vec<_> = key.key().labels().map(|label| label.value()).collect();
        let days = (value.into_inner() - now.as_secs_f64()) / DAY.as_secs_f64();
        seen.push(format!(
            "{} {} {days:.1}",
            key.key().name(),
            labels.join(" ")
        ));
    }
    seen.sort_unstable();
    let port = server.port;
    assert_eq!(
        seen,
        [
            "plugin_client_certificate_expiry_timestamp_seconds p 40.0".to_owned(),
            format!(
                "plugin_endpoint_certificate_expiry_timestamp_seconds p https://localhost:{port} 20.0"
            ),
        ]
    );
}
