use std::path::{Path, PathBuf};

use tower_plugins::Plugins;
use tower_plugins::config::PluginSpec;
use tower_plugins::reload::{ReloadPhase, ReloadStatus, Strategy};

use crate::support::{Shelf, causes, get, text, within};

const ONE: &str = "plugins: { one: { transport: in-process, endpoint: shelf } }";
const TWO: &str = "plugins: { two: { transport: in-process, endpoint: shelf } }";

struct Watched {
    plugins: Plugins,
    path: PathBuf,
    _directory: tempfile::TempDir,
}

impl Watched {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("plugins.yaml");
        std::fs::write(&path, ONE).unwrap();
        let builder = Plugins::builder().service("shelf", Shelf::default());
        let plugins = within(builder.watch(&path)).await.unwrap();
        Self {
            plugins,
            path,
            _directory: directory,
        }
    }

    async fn until(&self, condition: impl FnMut(&ReloadStatus) -> bool) -> ReloadStatus {
        let mut status = self.plugins.subscribe();
        within(status.wait_for(condition)).await.unwrap().clone()
    }

    /// Refuses what is now in the file, with these words.
    async fn refuses(&self, words: &[&str]) {
        let before = self.plugins.status();
        let after = self.until(|status| status.rejected > before.rejected).await;
        let said = causes(&*after.last_error.unwrap());
        assert!(words.iter().all(|word| said.contains(word)), "{said}");
        assert_eq!(after.generation, before.generation);
        let serving = self.plugins.names().pop().unwrap();
        let plugin = self.plugins.plugin(&serving);
        assert_eq!(text(&plugin, get("/")).await.unwrap(), "hello");
    }
}

fn replace(path: &Path, text: &str) {
    let beside = path.with_extension("new");
    std::fs::write(&beside, text).unwrap();
    std::fs::rename(&beside, path).unwrap();
}

#[tokio::test]
async fn a_file_that_is_broken_is_refused_and_the_plugins_serve_on() {
    let watched = Watched::start().await;
    let cut = "plugins:\n  one: { transport: in-process, endpo";
    let typo = "plugins: { two: { transport: in-process, endpoint: shelf, drain_timeot: 1s } }";
    let nobody = "plugins: { two: { transport: in-process, endpoint: nobody } }";
    for (text, words) in [
        (cut, &["plugins.yaml"][..]),
        ("", &["plugins.yaml", "is empty"]),
        ("plugins: {}", &["allow_empty: true"]),
        (typo, &["two.drain_timeot", "drain_timeout"]),
        (nobody, &["`two`", "nobody", "Plugins::builder()"]),
    ] {
        tokio::join!(watched.refuses(words), async {
            replace(&watched.path, text);
        });
        assert_eq!(watched.plugins.names(), ["one"]);
    }
    replace(&watched.path, TWO);
    let status = watched.until(|status| status.last_error.is_none()).await;
    assert_eq!((status.generation.get(), status.rejected), (2, 5));
    assert_eq!(watched.plugins.names(), ["two"]);
}

#[tokio::test]
async fn a_file_that_is_put_back_as_it_was_clears_the_error() {
    let watched = Watched::start().await;
    tokio::join!(watched.refuses(&["is empty"]), async {
        replace(&watched.path, "");
    });
    replace(&watched.path, ONE);
    let status = watched.until(|status| status.last_error.is_none()).await;
    assert_eq!(status.generation.get(), 1, "nothing was to be done");
}

#[tokio::test]
async fn a_file_that_is_deleted_changes_nothing_until_it_is_back() {
    let watched = Watched::start().await;
    std::fs::remove_file(&watched.path).unwrap();
    // The file's last change could only be seen together with the one that follows it.
    replace(&watched.path, TWO);
    let status = watched.until(|status| status.generation.get() == 2).await;
    assert_eq!((status.accepted, status.rejected), (2, 0));
    std::fs::remove_dir_all(watched.path.parent().unwrap()).unwrap();
    std::fs::create_dir(watched.path.parent().unwrap()).unwrap();
    replace(&watched.path, ONE);
    let status = watched.until(|status| status.generation.get() == 3).await;
    assert_eq!(status.rejected, 0);
    assert_eq!(watched.plugins.names(), ["one"]);
}

#[tokio::test]
async fn a_thousand_saves_end_in_the_last() {
    let watched = Watched::start().await;
    for number in 0..1000 {
        let text =
            format!("plugins: {{ p{number}: {{ transport: in-process, endpoint: shelf }} }}");
        std::fs::write(&watched.path, text).unwrap();
        tokio::task::yield_now().await;
    }
    within(async {
        let mut status = watched.plugins.subscribe();
        while watched.plugins.names() != ["p999"] {
            status.changed().await.unwrap();
        }
    })
    .await;
    assert!(
        watched.plugins.status().accepted <= 20,
        "they were taken together"
    );
}

#[tokio::test]
async fn a_file_that_is_missing_or_broken_at_the_start_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("plugins.yaml");
    let error = within(Plugins::builder().watch(&path)).await.unwrap_err();
    assert!(error.is_config() && causes(&error).contains("plugins.yaml"));
    std::fs::write(&path, "plugins: 7").unwrap();
    let error = within(Plugins::builder().watch(&path)).await.unwrap_err();
    assert!(error.config().is_some());
}

#[tokio::test]
async fn a_file_is_watched_no_longer_after_the_plugins_are_dropped_or_shut_down() {
    let tasks = || {
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
    };
    let before = tasks();
    let none = || async {
        within(async {
            while tasks() > before {
                tokio::task::yield_now().await;
            }
        })
        .await;
    };
    let watched = Watched::start().await;
    assert_eq!(tasks(), before + 2);
    drop(watched);
    none().await;
    let watched = Watched::start().await;
    watched
        .plugins
        .shutdown(std::time::Duration::ZERO)
        .await
        .unwrap();
    none().await;
}

#[tokio::test]
async fn a_config_of_the_file_comes_after_a_change_that_cuts_it_short() {
    let canary =
        "reload: { strategy: canary, canary_steps: [50], canary_step_time: 2s, observe_for: 1s }";
    let watched = Watched::start().await;
    let new = "plugins: { one: { transport: in-process, endpoint: shelf, drain_timeout: 1s } }";
    replace(&watched.path, &format!("{{ {canary}, {new} }}"));
    watched
        .until(|status| matches!(status.phase, ReloadPhase::Watching { .. }))
        .await;
    let update = async |name, time| {
        let mut spec = PluginSpec::in_process(name, "shelf").unwrap();
        spec.policy.drain_timeout = std::time::Duration::from_secs(time);
        let update = watched.plugins.update(spec);
        update.strategy(Strategy::Graceful).await.unwrap();
    };
    // One that the file says something else of, and one that it does not know: both are newer.
    update("one", 2).await;
    update("own", 3).await;
    // The share that the file's had is gone, and the file still says so.
    let status = watched
        .until(|status| status.phase == ReloadPhase::Idle && status.accepted == 4)
        .await;
    let overlaid: Vec<_> = status.overlay.keys().map(ToString::to_string).collect();
    assert_eq!(overlaid, ["one", "own"]);
    let config = watched.plugins.history().pop().unwrap().config;
    assert_eq!(config.reload.canary_steps, [50], "the file's");
}
