//! What happens to the files of a config while plugins run.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use tempfile::TempDir;
use tower_plugins::config::FileContents;
use tower_plugins::reload::{ReloadStatus, Timing, Watch};
use tower_plugins::{Plugin, Plugins};

use crate::support::{Shelf, causes, get, text, within};
use crate::transport::tls::server::{Ca, Setup};

struct Watched {
    plugins: Plugins,
    dir: TempDir,
}

/// A config of the one plugin `name`.
fn config(name: &str) -> String {
    format!("plugins: {{ {name}: {{ transport: in-process, endpoint: shelf }} }}")
}

impl Watched {
    async fn start(text: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("plugins.yaml"), text).unwrap();
        Self::start_in(dir).await
    }

    async fn start_in(dir: TempDir) -> Self {
        let builder = Plugins::builder().service("shelf", Shelf::default());
        let plugins = within(builder.watch(dir.path().join("plugins.yaml")))
            .await
            .unwrap();
        Self { plugins, dir }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("plugins.yaml")
    }

    async fn until(&self, condition: impl FnMut(&ReloadStatus) -> bool) -> ReloadStatus {
        let mut status = self.plugins.subscribe();
        within(status.wait_for(condition)).await.unwrap().clone()
    }

    /// Why the file was refused; the plugin `serves` goes on.
    async fn refusal(&self, serves: &str) -> String {
        let status = self.until(|status| status.last_error.is_some()).await;
        assert_eq!(self.plugins.names(), [serves]);
        let answer = text(&self.plugins.plugin(serves), get("/")).await;
        assert_eq!(answer.unwrap(), "hello");
        causes(&*status.last_error.unwrap())
    }
}

/// Puts a file that only its owner may read in the place of `path`.
fn replace_private(path: &Path, bytes: &[u8]) {
    let beside = path.with_extension("new");
    fs::write(&beside, bytes).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(&beside, fs::Permissions::from_mode(0o600)).unwrap();
    }
    fs::rename(beside, path).unwrap();
}

fn replace(path: &Path, text: &str) {
    let beside = path.with_extension("new");
    fs::write(&beside, text).unwrap();
    fs::rename(&beside, path).unwrap();
}

#[tokio::test]
async fn fault_01_a_file_truncated_in_the_middle_of_a_write_keeps_the_old_graph() {
    let recorder = DebuggingRecorder::new();
    let snapshots = recorder.snapshotter();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let watched = Watched::start(&config("one")).await;
    fs::write(
        watched.path(),
        "plugins:\n  two: { transport: in-process, endpo",
    )
    .unwrap();
    let said = watched.refusal("one").await;
    assert!(said.contains("plugins.yaml:2:"), "{said}");
    assert!(said.contains("not valid YAML"), "{said}");
    assert_eq!(watched.plugins.status().rejected, 1);

    let counts = snapshots.snapshot().into_vec();
    let rejected = counts.into_iter().find_map(|(key, _, _, value)| {
        let key = key.key();
        let reason = key
            .labels()
            .any(|label| (label.key(), label.value()) == ("reason", "parse"));
        (key.name() == "plugin_reloads_rejected_total" && reason).then_some(value)
    });
    assert_eq!(rejected, Some(DebugValue::Counter(1)));

    // What comes after is taken.
    fs::write(watched.path(), config("two")).unwrap();
    watched.until(|status| status.generation.get() == 2).await;
    assert_eq!(watched.plugins.names(), ["two"]);
}

#[tokio::test]
async fn fault_02_an_empty_file_takes_nothing_away() {
    let watched = Watched::start(&config("one")).await;
    for (empty, part) in [
        ("", "is empty"),
        ("plugins: []", "set allow_empty: true if that is meant"),
        ("# nothing", "is empty"),
    ] {
        replace(&watched.path(), empty);
        let rejected = watched.plugins.status().rejected;
        watched.until(|status| status.rejected > rejected).await;
        let said = watched.refusal("one").await;
        assert!(said.contains(part), "{said}");
    }
    replace(&watched.path(), "allow_empty: true");
    watched.until(|status| status.plugins == 0).await;
}

#[tokio::test]
async fn fault_03_a_file_that_is_deleted_changes_nothing_until_it_is_back() {
    let watched = Watched::start(&config("one")).await;
    fs::remove_file(watched.path()).unwrap();
    // The look that finds it gone is over when one that comes after it has been made.
    replace(&watched.path(), "plugins: [");
    watched.refusal("one").await;
    fs::remove_file(watched.path()).unwrap();
    replace(&watched.path(), &config("two"));
    let status = watched.until(|status| status.generation.get() == 2).await;
    assert_eq!(
        (status.accepted, watched.plugins.names()),
        (2, vec!["two".to_owned()])
    );
}

/// Saves a hundred times with `save`, and waits for each to be seen.
async fn each_is_seen(dir: &Path, save: impl Fn(&Path, usize, &str)) {
    const TRIALS: usize = 100;
    let mut timing = Timing::default();
    timing.debounce = Duration::from_millis(2);
    timing.poll = Duration::from_secs(3600);
    let path = dir.join("plugins.yaml");
    save(dir, 0, &config("p0"));
    let mut watch = Watch::with_timing(&path, timing).unwrap();
    let first = within(watch.changed()).await.config().unwrap();
    assert!(first.plugins.contains_key("p0"));
    for trial in 1..=TRIALS {
        let name = format!("p{trial}");
        save(dir, trial, &config(&name));
        loop {
            // In a backup's place there may be nothing for a moment, which is no change.
            let seen = within(watch.changed()).await.config().unwrap();
            if seen.plugins.contains_key(&*name) {
                break;
            }
        }
    }
}

#[cfg(unix)]
#[tokio::test]
async fn fault_04_each_way_to_replace_the_file_is_seen_a_hundred_times_of_a_hundred() {
    let renamed = tempfile::tempdir().unwrap();
    each_is_seen(renamed.path(), |dir, _, text| {
        replace(&dir.join("plugins.yaml"), text);
    })
    .await;

    let backup = tempfile::tempdir().unwrap();
    each_is_seen(backup.path(), |dir, _, text| {
        let path = dir.join("plugins.yaml");
        if path.exists() {
            fs::rename(&path, dir.join("plugins.yaml~")).unwrap();
        }
        // Whole at once: that a file is seen half written is another row.
        replace(&path, text);
    })
    .await;

    let mounted = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("..data/plugins.yaml", mounted.path().join("plugins.yaml")).unwrap();
    each_is_seen(mounted.path(), |dir, trial, text| {
        let version = dir.join(format!("..v{trial}"));
        fs::create_dir(&version).unwrap();
        fs::write(version.join("plugins.yaml"), text).unwrap();
        let link = dir.join("..data_tmp");
        std::os::unix::fs::symlink(format!("..v{trial}"), &link).unwrap();
        fs::rename(link, dir.join("..data")).unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_05_a_thousand_saves_are_few_reloads_and_end_in_the_last() {
    let watched = Watched::start(&config("p0")).await;
    let path = watched.path();
    let began = std::time::SystemTime::now();
    let saves = tokio::task::spawn_blocking(move || {
        for save in 1..=1_000 {
            replace(&path, &config(&format!("p{save}")));
            std::thread::sleep(Duration::from_millis(1));
        }
        began.elapsed().unwrap()
    });
    let took = saves.await.unwrap();
    let mut status = watched.plugins.subscribe();
    let last = || watched.plugins.names() == ["p1000"];
    within(status.wait_for(|_| last())).await.unwrap();
    let status = watched.plugins.status();
    // However the saves are spread, there are ten reloads a second at the most.
    let most = took.as_millis() / 100 + 3;
    assert!(
        u128::from(status.accepted) <= most,
        "{} reloads in {took:?}",
        status.accepted
    );
    assert_eq!(status.rejected, 0);
}

#[tokio::test]
async fn fault_13_a_rotation_that_fails_keeps_the_certificate_and_says_so() {
    let ca = Ca::new();
    let shows = ca.certify(&["localhost"]);
    let mut setup = Setup::new(&shows);
    setup.clients = Some(&ca);
    let server = setup.start().await;
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str, contents: &FileContents| {
        replace_private(&dir.path().join(name), contents.expose());
    };
    let first = ca.certify(&["first"]);
    put("ca.pem", &ca.file());
    put("me.pem", &first.identity().cert);
    put("me.key", &first.identity().key);
    let text = format!(
        "plugins: {{ p: {{ transport: https, endpoint: 'https://localhost:{}', tls: {{ ca_file: ca.pem, cert_file: me.pem, key_file: me.key }} }} }}",
        server.port
    );
    fs::write(dir.path().join("plugins.yaml"), text).unwrap();
    let plugins = within(Plugins::builder().watch(dir.path().join("plugins.yaml")))
        .await
        .unwrap();
    let seen = async || client_of(&plugins.plugin("p")).await;
    assert_eq!(seen().await, first.fingerprint());

    // Only half of it comes: it does not belong to the key.
    let second = ca.certify(&["second"]);
    put("me.pem", &second.identity().cert);
    let mut status = plugins.subscribe();
    let refused = within(status.wait_for(|status| status.last_error.is_some()))
        .await
        .unwrap()
        .clone();
    let said = causes(&*refused.last_error.unwrap());
    assert!(said.contains("plugins.p.tls.key_file"), "{said}");
    assert!(
        said.contains("does not belong to the certificate"),
        "{said}"
    );
    assert_eq!(seen().await, first.fingerprint());

    put("me.key", &second.identity().key);
    within(status.wait_for(|status| status.last_error.is_none()))
        .await
        .unwrap();
    assert_eq!(seen().await, second.fingerprint());
}

/// A secret in a file is rotated ten times under load: no call fails.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_that_is_rotated_is_a_reload_like_any_other() {
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    let write = |text: &str| replace_private(&token, text.as_bytes());
    write("token-0");
    let text = "plugins: { one: { transport: in-process, endpoint: echo, auth: { method: bearer, token: 'file:token' } } }";
    fs::write(dir.path().join("plugins.yaml"), text).unwrap();
    let service = tower::service_fn(|request: http::Request<tower_plugins::Body>| async move {
        let sent = request.headers()["authorization"]
            .to_str()
            .unwrap()
            .to_owned();
        Ok::<_, std::convert::Infallible>(http::Response::new(tower_plugins::Body::from(sent)))
    });
    let builder = Plugins::builder().service("echo", service);
    let plugins = within(builder.watch(dir.path().join("plugins.yaml")))
        .await
        .unwrap();
    let (calls, over) = (
        Arc::new(AtomicUsize::new(0)),
        Arc::new(AtomicBool::new(false)),
    );
    let load = tokio::spawn({
        let (plugin, calls, over) = (plugins.plugin("one"), Arc::clone(&calls), Arc::clone(&over));
        async move {
            while !over.load(Ordering::Relaxed) {
                let sent = text_of(&plugin).await;
                assert!(sent.starts_with("Bearer token-"), "{sent}");
                calls.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        }
    });
    for rotation in 1..=10 {
        write(&format!("token-{rotation}\n"));
        let mut status = plugins.subscribe();
        within(status.wait_for(|status| status.generation.get() == rotation + 1))
            .await
            .unwrap();
        assert_eq!(
            text_of(&plugins.plugin("one")).await,
            format!("Bearer token-{rotation}")
        );
    }
    over.store(true, Ordering::Relaxed);
    within(load).await.unwrap();
    assert!(calls.load(Ordering::Relaxed) > 0);
}

/// Both files of a certificate are rotated ten times under load, one after the other: a moment between
/// them, in which they do not fit, is refused, and no call fails.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_that_are_rotated_by_their_files_fail_no_call() {
    let ca = Ca::new();
    let shows = ca.certify(&["localhost"]);
    let mut setup = Setup::new(&shows);
    setup.clients = Some(&ca);
    let server = setup.start().await;
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str, contents: &FileContents| {
        replace_private(&dir.path().join(name), contents.expose());
    };
    let rotate = |name: &str| {
        let next = ca.certify(&[name]);
        put("me.pem", &next.identity().cert);
        put("me.key", &next.identity().key);
        next.fingerprint()
    };
    put("ca.pem", &ca.file());
    rotate("me");
    let text = format!(
        "{{ default_tls: {{ ca_file: ca.pem, cert_file: me.pem, key_file: me.key }}, plugins: {{ p: {{ transport: https, endpoint: 'https://localhost:{}', retry: off }} }} }}",
        server.port
    );
    fs::write(dir.path().join("plugins.yaml"), text).unwrap();
    let plugins = within(Plugins::builder().watch(dir.path().join("plugins.yaml")))
        .await
        .unwrap();
    let over = Arc::<AtomicBool>::default();
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let (plugin, over) = (plugins.plugin("p"), Arc::clone(&over));
            tokio::spawn(async move {
                let mut calls = 0;
                while !over.load(Ordering::Relaxed) {
                    client_of(&plugin).await;
                    calls += 1;
                }
                calls
            })
        })
        .collect();
    for _ in 0..10 {
        let before = plugins.status().generation.get();
        let wanted = rotate("me");
        let mut status = plugins.subscribe();
        let taken =
            |status: &ReloadStatus| status.generation.get() > before && status.last_error.is_none();
        within(status.wait_for(taken)).await.unwrap();
        assert_eq!(client_of(&plugins.plugin("p")).await, wanted);
    }
    over.store(true, Ordering::Relaxed);
    for caller in callers {
        assert!(within(caller).await.unwrap() > 0);
    }
}

/// Whom the server says it talks to.
async fn client_of(plugin: &Plugin) -> String {
    let response = crate::support::call(plugin, get("/")).await.unwrap();
    let client = response.headers()["x-client"].to_str().unwrap().to_owned();
    crate::support::read(response).await;
    client
}

async fn text_of(plugin: &Plugin) -> String {
    text(plugin, get("/")).await.unwrap()
}

#[tokio::test]
async fn a_file_that_appears_in_an_included_directory_is_a_change() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("conf.d")).unwrap();
    let main = format!("include: [conf.d]\n{}", config("one"));
    fs::write(dir.path().join("plugins.yaml"), main).unwrap();
    let watched = Watched::start_in(dir).await;
    let more = watched.dir.path().join("conf.d/more.yaml");
    fs::write(&more, config("two")).unwrap();
    watched.until(|status| status.plugins == 2).await;
    replace(&more, &config("three"));
    watched.until(|status| status.generation.get() == 3).await;
    assert_eq!(watched.plugins.names(), ["one", "three"]);
    // A mistake in one file refuses all of it.
    replace(&more, "plugins: { four: { transport: carrier-pigeon } }");
    let status = watched.until(|status| status.last_error.is_some()).await;
    let said = causes(&*status.last_error.unwrap());
    assert!(said.contains("conf.d/more.yaml:1:"), "{said}");
    assert_eq!(watched.plugins.names(), ["one", "three"]);
    fs::remove_file(&more).unwrap();
    watched.until(|status| status.plugins == 1).await;
}
