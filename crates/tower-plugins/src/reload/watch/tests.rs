use std::fs;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use tempfile::TempDir;
use tokio::time::timeout;

use super::look::Stamp;
use super::*;

const BOUND: Duration = Duration::from_secs(30);
const NEVER: Duration = Duration::from_secs(3600);

/// Wakes by events only.
const EVENTS: Timing = Timing {
    debounce: Duration::from_millis(20),
    max_hold: Duration::from_millis(200),
    min_gap: Duration::ZERO,
    poll: NEVER,
};

struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Self {
        let place = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        fs::create_dir(place.path("conf")).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn config(&self) -> PathBuf {
        self.path("conf/plugins.yaml")
    }

    /// Puts a file with `text` in the place of the config.
    fn replace(&self, text: &str) {
        replace(&self.config(), text);
    }

    /// A watch that has returned `first`.
    async fn watch(&self, timing: Timing, first: &str) -> Watch {
        self.replace(first);
        let mut watch = Watch::with_timing(self.config(), timing).unwrap();
        assert_eq!(next(&mut watch).await, first);
        watch
    }
}

fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::rename(new, path).unwrap();
}

fn text(snapshot: &Snapshot) -> String {
    String::from_utf8(snapshot.files[0].expose().to_vec()).unwrap()
}

async fn next(watch: &mut Watch) -> String {
    text(&timeout(BOUND, watch.changed()).await.unwrap())
}

/// Waits until the file is seen to hold `last`. Returns how many changes that took.
async fn until(watch: &mut Watch, last: &str) -> u32 {
    let mut changes = 1;
    while next(watch).await != last {
        changes += 1;
    }
    changes
}

/// Waits for an event that changes nothing.
async fn nothing(watch: &mut Watch) {
    assert!(timeout(BOUND, watch.round()).await.unwrap().is_none());
}

#[tokio::test]
async fn a_rename_into_place_is_seen_each_time() {
    let place = Place::new();
    let timing = Timing {
        debounce: Duration::from_millis(1),
        ..EVENTS
    };
    let mut watch = place.watch(timing, "0").await;
    for i in 1..=100 {
        place.replace(&i.to_string());
        assert_eq!(next(&mut watch).await, i.to_string());
    }
}

#[tokio::test]
async fn a_write_in_place_is_seen_each_time() {
    let place = Place::new();
    let mut watch = place.watch(EVENTS, "10").await;
    for i in 11..=30 {
        // The same length, so that only the content tells.
        fs::write(place.config(), i.to_string()).unwrap();
        until(&mut watch, &i.to_string()).await;
    }
}

#[tokio::test]
async fn an_editor_that_keeps_a_backup_is_seen() {
    let place = Place::new();
    let mut watch = place.watch(EVENTS, "0").await;
    for i in 1..=20 {
        let backup = place.path("conf/plugins.yaml~");
        fs::rename(place.config(), &backup).unwrap();
        fs::write(place.config(), i.to_string()).unwrap();
        fs::remove_file(backup).unwrap();
        until(&mut watch, &i.to_string()).await;
    }
}

#[tokio::test]
async fn a_swapped_directory_link_is_one_change() {
    let place = Place::new();
    let fill = |i: u32| {
        let name = format!("..{i}");
        let version = place.path("conf").join(&name);
        fs::create_dir(&version).unwrap();
        fs::write(version.join("plugins.yaml"), i.to_string()).unwrap();
        symlink(name, place.path("conf/..data_tmp")).unwrap();
        fs::rename(place.path("conf/..data_tmp"), place.path("conf/..data")).unwrap();
    };
    fill(0);
    symlink("..data/plugins.yaml", place.config()).unwrap();
    let timing = Timing {
        debounce: Duration::from_millis(1),
        ..EVENTS
    };
    let mut watch = Watch::with_timing(place.config(), timing).unwrap();
    assert_eq!(next(&mut watch).await, "0");
    for i in 1..=100 {
        fill(i);
        assert_eq!(next(&mut watch).await, i.to_string());
        fs::remove_dir_all(place.path("conf").join(format!("..{}", i - 1))).unwrap();
    }
}

#[tokio::test]
async fn of_a_burst_the_last_is_seen_and_few_wake() {
    let place = Place::new();
    let mut watch = place.watch(EVENTS, "0").await;
    let start = Instant::now();
    let path = place.config();
    let writer = thread::spawn(move || (1..=1000).for_each(|i| replace(&path, &i.to_string())));
    let changes = until(&mut watch, "1000").await;
    writer.join().unwrap();
    // No two changes are nearer to each other than the debounce.
    let most = start.elapsed().as_millis() / EVENTS.debounce.as_millis() + 1;
    assert!(
        u128::from(changes) <= most,
        "{changes} changes, at most {most}"
    );
}

#[tokio::test]
async fn a_directory_that_is_never_quiet_does_not_starve_the_watch() {
    let place = Place::new();
    let mut watch = place.watch(EVENTS, "first").await;
    let stop = Arc::new(AtomicBool::new(false));
    let (path, stopped) = (place.path("conf/other"), Arc::clone(&stop));
    let writer = thread::spawn(move || {
        while !stopped.load(Ordering::Relaxed) {
            replace(&path, "noise");
        }
    });
    place.replace("second");
    assert_eq!(next(&mut watch).await, "second");
    stop.store(true, Ordering::Relaxed);
    writer.join().unwrap();
}

#[tokio::test]
async fn a_file_that_is_deleted_changes_nothing_until_it_is_back() {
    let place = Place::new();
    let mut watch = place.watch(EVENTS, "first").await;
    fs::remove_file(place.config()).unwrap();
    nothing(&mut watch).await;
    place.replace("first");
    nothing(&mut watch).await;
    fs::remove_file(place.config()).unwrap();
    nothing(&mut watch).await;
    place.replace("second");
    assert_eq!(next(&mut watch).await, "second");
}

#[tokio::test]
async fn the_same_content_is_no_change() {
    let place = Place::new();
    let mut watch = place.watch(EVENTS, "first").await;
    for _ in 0..5 {
        place.replace("first");
        nothing(&mut watch).await;
    }
    place.replace("second");
    assert_eq!(next(&mut watch).await, "second");
}

#[tokio::test]
async fn a_lost_event_is_made_up_for() {
    let place = Place::new();
    let timing = Timing {
        poll: Duration::from_millis(1),
        ..EVENTS
    };
    let mut watch = place.watch(timing, "100").await;
    watch.watcher = None;
    for i in 101..=200 {
        fs::write(place.config(), i.to_string()).unwrap();
        until(&mut watch, &i.to_string()).await;
    }
}

#[tokio::test]
async fn a_directory_that_is_replaced_is_watched_again() {
    let place = Place::new();
    let timing = Timing {
        poll: Duration::from_millis(1),
        ..EVENTS
    };
    let mut watch = place.watch(timing, "first").await;
    fs::rename(place.path("conf"), place.path("old")).unwrap();
    nothing(&mut watch).await;
    fs::create_dir(place.path("conf")).unwrap();
    place.replace("second");
    assert_eq!(next(&mut watch).await, "second");

    // From here on by events.
    watch.timing.poll = NEVER;
    watch.next_look = Instant::now() + NEVER;
    place.replace("third");
    assert_eq!(next(&mut watch).await, "third");
}

#[tokio::test]
async fn a_file_and_its_directory_may_come_later() {
    let place = Place::new();
    let timing = Timing {
        poll: Duration::from_millis(1),
        ..EVENTS
    };
    fs::remove_dir(place.path("conf")).unwrap();
    let mut watch = Watch::with_timing(place.config(), timing).unwrap();
    let missing = timeout(BOUND, watch.changed()).await.unwrap().config();
    let missing = missing.unwrap_err().to_string();
    assert!(
        missing.contains("plugins.yaml: cannot be read: "),
        "{missing}"
    );
    nothing(&mut watch).await;
    fs::create_dir(place.path("conf")).unwrap();
    nothing(&mut watch).await;
    place.replace("first");
    assert_eq!(next(&mut watch).await, "first");
    assert!(Watch::new("/").is_err());
}

#[tokio::test]
async fn a_call_that_is_dropped_loses_no_change() {
    let place = Place::new();
    let mut watch = place.watch(EVENTS, "0").await;
    for i in 1..=20 {
        place.replace(&i.to_string());
        let seen = async {
            loop {
                if let Ok(snapshot) = timeout(Duration::from_millis(1), watch.changed()).await {
                    break text(&snapshot);
                }
            }
        };
        assert_eq!(timeout(BOUND, seen).await.unwrap(), i.to_string());
    }
}

#[tokio::test]
async fn what_cannot_be_read_or_parsed_is_an_error_once() {
    let place = Place::new();
    let good = "plugins: { a: { transport: http, endpoint: 'http://localhost', auth: { method: bearer, token: hunter2 } } }";
    let mut watch = place.watch(EVENTS, good).await;
    place.replace("plugins: [ { na");
    let snapshot = timeout(BOUND, watch.changed()).await.unwrap();
    assert!(
        snapshot
            .config()
            .unwrap_err()
            .to_string()
            .contains(": not valid YAML")
    );

    fs::remove_file(place.config()).unwrap();
    fs::create_dir(place.config()).unwrap();
    let snapshot = timeout(BOUND, watch.changed()).await.unwrap();
    assert!(
        snapshot
            .config()
            .unwrap_err()
            .to_string()
            .contains("not a regular file")
    );
    fs::write(place.path("conf/other"), "").unwrap();
    nothing(&mut watch).await;

    fs::remove_dir(place.config()).unwrap();
    place.replace(good);
    let snapshot = timeout(BOUND, watch.changed()).await.unwrap();
    assert!(!format!("{snapshot:?}").contains("hunter2"));
    assert_eq!(snapshot.config().unwrap().plugins.len(), 1);
}

#[tokio::test]
async fn a_dropped_watch_leaves_nothing_behind() {
    let place = Place::new();
    let watch = place.watch(EVENTS, "first").await;
    let events = Arc::downgrade(&watch.events);
    drop(watch);
    let gone = async {
        while events.strong_count() > 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(BOUND, gone).await.unwrap();
}

#[test]
fn a_file_changed_just_now_is_read_again_whatever_its_times_say() {
    let place = Place::new();
    place.replace("first");
    let (path, none) = (place.config(), Dependencies::default());
    let loader = Loader::file(path.as_path());
    let Found::Read { stamps, .. } = look(&path, &loader, &Stamps::new(), &none).found else {
        panic!("not read");
    };
    assert_eq!(stamps, Stamps::from([(path.clone(), Stamp::Racy)]));

    // What is not there is as before while it is not.
    let missing = path.with_extension("missing");
    let known = Stamps::from([(missing, Stamp::Missing)]);
    let look = look(&path, &loader, &known, &none);
    assert!(matches!(look.found, Found::AsBefore));
}

/// To do what an error says is a change, though the bytes are the same.
#[tokio::test]
async fn a_file_that_becomes_private_and_a_directory_that_is_made_are_news() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    let token = place.path("conf/token");
    fs::write(&token, "hunter2").unwrap();
    fs::set_permissions(&token, fs::Permissions::from_mode(0o644)).unwrap();
    place.replace("plugins: { a: { transport: http, endpoint: 'http://localhost', auth: { method: bearer, token: 'file:token' } } }");
    let mut watch = Watch::with_timing(place.config(), EVENTS).unwrap();
    let refused = timeout(BOUND, watch.changed()).await.unwrap().config();
    assert!(refused.unwrap_err().to_string().contains("chmod 0600"));
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
    assert!(
        timeout(BOUND, watch.changed())
            .await
            .unwrap()
            .config()
            .is_ok()
    );

    place.replace("include: [more]\nallow_empty: true");
    assert!(
        timeout(BOUND, watch.changed())
            .await
            .unwrap()
            .config()
            .is_err()
    );
    fs::create_dir(place.path("conf/more")).unwrap();
    assert!(
        timeout(BOUND, watch.changed())
            .await
            .unwrap()
            .config()
            .is_ok()
    );
}
