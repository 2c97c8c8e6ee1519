//! What several modules need.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::sync::LazyLock;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::json;
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::time::{sleep, timeout};
use tower_plugins_interop::{Seen, Version, pattern};

/// Of what a plugin is flooded with.
pub(crate) const FLOOD: usize = 10 << 20;

/// How a host and its plugin speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mode {
    pub(crate) auto_mtls: bool,
    pub(crate) multiplexed: bool,
}

pub(crate) const MODES: [Mode; 4] = {
    const fn mode(auto_mtls: bool, multiplexed: bool) -> Mode {
        Mode {
            auto_mtls,
            multiplexed,
        }
    }
    [
        mode(false, false),
        mode(true, false),
        mode(false, true),
        mode(true, true),
    ]
};

impl Mode {
    /// Whether that version has it.
    pub(crate) fn is_of(self, version: Version) -> bool {
        !self.multiplexed || version.multiplexes()
    }

    /// Whether the broker works in it: 1.0.1 verifies a name that no certificate has.
    pub(crate) fn has_broker(self, version: Version) -> bool {
        version > Version::V1_0_1 || !self.auto_mtls
    }

    /// The flags of a host in Go.
    pub(crate) fn flags(self) -> impl Iterator<Item = &'static str> {
        let auto_mtls = self.auto_mtls.then_some("-automtls");
        auto_mtls
            .into_iter()
            .chain(self.multiplexed.then_some("-multiplexed"))
    }

    /// What a host in Go does with a plugin that has all which that version has.
    pub(crate) fn calls(self, version: Version) -> String {
        let mut calls = vec![
            "double",
            "doubles=1000",
            "ping",
            "health=plugin",
            "log=said",
        ];
        if self.has_broker(version) {
            calls.push("broker=8");
        }
        let [stdout, stderr] = ["stdout", "stderr"].map(|sink| format!("{sink}={FLOOD}"));
        if version.has_stdio() {
            calls.extend(["services", &stdout, &stderr]);
        }
        let [raw_stdout, raw_stderr] =
            ["raw-stdout", "raw-stderr"].map(|sink| format!("{sink}={FLOOD}"));
        calls.extend([&*raw_stdout, &raw_stderr, "echo=5000000", "kill"]);
        calls.join(",")
    }
}

/// That a host in Go saw what it should of [`Mode::calls`].
pub(crate) fn assert_seen(seen: &Seen, version: Version, mode: Mode) {
    let at = format!("{} {mode:?}", version.name());
    assert_eq!(seen.failure(), None, "{at}");
    assert_eq!(seen.step("start")["protocol"], "grpc", "{at}");
    assert_eq!(seen.step("double")["value"], 42, "{at}");
    assert_eq!(seen.step("doubles")["count"], 1000, "{at}");
    assert_eq!(seen.step("health")["status"], "SERVING", "{at}");
    if mode.has_broker(version) {
        let broker = seen.step("broker");
        assert_eq!(
            broker["totals"],
            json!([1, 3, 6, 10, 15, 21, 28, 36]),
            "{at}"
        );
        assert_eq!(
            broker["sums"],
            json!([41, 42, 43, 44, 45, 46, 47, 48]),
            "{at}"
        );
    }
    let flood = json!({"length": FLOOD, "sha256": *FLOOD_SHA256});
    let mut sinks = vec!["raw-stderr"];
    if version.has_stdio() {
        sinks.extend(["stdout", "stderr"]);
        let services = seen.step("services")["names"].as_array().unwrap();
        for service in ["peer.v1.Peer", "plugin.GRPCBroker", "grpc.health.v1.Health"] {
            assert!(services.contains(&json!(service)), "{at}: {services:?}");
        }
    }
    for sink in sinks {
        let found = seen.step(sink);
        let found = json!({"length": found["length"], "sha256": found["sha256"]});
        assert_eq!(found, flood, "{at} {sink}");
    }
    let lines = seen.step("log")["lines"].as_array().unwrap();
    let levels: Vec<_> = lines.iter().map(|line| &line["@level"]).collect();
    assert_eq!(levels, ["trace", "debug", "info", "warn", "error"], "{at}");
    assert!(lines.iter().all(|line| line["number"] == 7), "{at}");
    assert_eq!(seen.step("echo")["same"], true, "{at}");
    let kill = seen.step("kill");
    assert_eq!(
        (&kill["exited"], &kill["forced"]),
        (&json!(true), &json!(false)),
        "{at}"
    );
}

/// Made once, as it takes a second without optimization.
static FLOOD_SHA256: LazyLock<String> = LazyLock::new(|| sha256(&pattern(FLOOD)));

pub(crate) fn sha256(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What a test waits for an event at most.
const BOUND: Duration = Duration::from_secs(60);

pub(crate) async fn within<F: Future>(what: F) -> F::Output {
    timeout(BOUND, what).await.expect("it takes too long")
}

/// Whether there is such a process, which is no zombie.
pub(crate) fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    // The name, in parentheses, may have anything in it.
    stat.is_ok_and(|stat| {
        stat.rsplit_once(')')
            .is_some_and(|(_, rest)| !rest.starts_with(" Z"))
    })
}

/// Asks again and again until there is something.
pub(crate) async fn until<T>(mut found: impl FnMut() -> Option<T>) -> T {
    within(async {
        loop {
            if let Some(found) = found() {
                return found;
            }
            sleep(Duration::from_millis(2)).await;
        }
    })
    .await
}

/// A folder with an authority's certificate, and what it certifies: of a host and of a plugin.
pub(crate) fn certificates() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let write = |name: &str, text: String| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
    };
    write("ca.crt", authority.pem());
    for own in ["host", "plugin"] {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(["localhost".to_owned()]).unwrap();
        let certificate = certificate.signed_by(&key, &authority).unwrap();
        write(&format!("{own}.crt"), certificate.pem());
        write(&format!("{own}.key"), key.serialize_pem());
    }
    folder
}
