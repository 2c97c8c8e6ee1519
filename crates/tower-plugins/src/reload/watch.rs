//! Watches the config file.
//!
//! The directory is watched, not the file: a rename puts another file at the path, and Kubernetes
//! swaps a link beside it. Any event there makes the [`Watch`] look at the path anew; what counts
//! is what it finds, so that it need not know how an editor saves. Events may be lost (a network
//! file system, an overflow, a link to another directory), so it also looks at a slow pace.

use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use sha2::{Digest, Sha256};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::config::{self, Config, ConfigError, Source};

#[cfg(test)]
#[cfg(unix)]
mod tests;

/// Below this age of a file another change could leave its times as they are: the coarsest clock
/// of a file system in use ticks every 2 seconds.
const RACY: Duration = Duration::from_secs(2);

/// Waits for the config file to say something else.
///
/// It takes no task: it is driven by whoever awaits [`Watch::changed`]. Dropping it ends it.
///
/// ```no_run
/// use tower_plugins::reload::Watch;
///
/// # async fn example() -> std::io::Result<()> {
/// let mut watch = Watch::new("plugins.yaml")?;
/// loop {
///     match watch.changed().await.config() {
///         Ok(config) => println!("{} plugins", config.plugins.len()),
///         Err(error) => eprintln!("the config is refused: {error}"),
///     }
/// }
/// # }
/// ```
#[derive(Debug)]
pub struct Watch {
    path: PathBuf,
    timing: Timing,
    events: Arc<Notify>,
    /// `None` if the system has no more watches to give: then only the pace is left.
    watcher: Option<RecommendedWatcher>,
    /// The directory that is watched.
    armed: Option<Identity>,
    /// Whether there is a reason to look, which a dropped call has not seen to.
    due: bool,
    next_look: Instant,
    /// The file as it was when last read, or `None` if it is to be read whatever it looks like.
    stamp: Option<Identity>,
    digest: Option<[u8; 32]>,
}

/// The times of a [`Watch`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Timing {
    /// How long the directory must be quiet before the file is read. 20 milliseconds: writing a
    /// file in place takes several steps, mostly less than 1 millisecond apart, and a reload
    /// should still feel immediate.
    pub debounce: Duration,
    /// How long a directory that is never quiet can put that off: 200 milliseconds.
    pub max_hold: Duration,
    /// How often the file is looked at without an event: every second, which costs two `stat`s.
    pub poll: Duration,
}

/// What the file held at one moment.
pub struct Snapshot {
    path: PathBuf,
    bytes: io::Result<Vec<u8>>,
    digest: [u8; 32],
}

/// What tells a file or directory from another one, or from itself before a change.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Identity {
    /// Device and inode.
    id: (u64, u64),
    created: Option<SystemTime>,
    /// Of a file: its length, when its content changed and when anything of it changed.
    state: Option<(u64, Option<SystemTime>, (i64, i64))>,
}

/// What one look found.
struct Look {
    directory: Option<Identity>,
    file: Found,
}

enum Found {
    Missing(Snapshot),
    AsBefore,
    Read {
        stamp: Option<Identity>,
        snapshot: Snapshot,
    },
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            debounce: Duration::from_millis(20),
            max_hold: Duration::from_millis(200),
            poll: Duration::from_secs(1),
        }
    }
}

impl Watch {
    /// Watches the file at `path`, which need not exist yet. This blocks for a moment.
    ///
    /// If the system cannot watch the directory, the file is looked at every second instead, and a
    /// warning says so.
    ///
    /// # Errors
    ///
    /// If `path` names no file, or the working directory is gone.
    pub fn new(path: impl AsRef<Path>) -> io::Result<Self> {
        Self::with_timing(path, Timing::default())
    }

    /// As [`Watch::new`], with other times.
    ///
    /// # Errors
    ///
    /// As [`Watch::new`].
    pub fn with_timing(path: impl AsRef<Path>, timing: Timing) -> io::Result<Self> {
        // Absolute, so that a change of the working directory does not move it.
        let path = std::path::absolute(path)?;
        if path.file_name().is_none() || path.parent().is_none() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{} names no file", path.display()),
            ));
        }
        let events = Arc::new(Notify::new());
        let watcher = watcher(Arc::clone(&events))
            .inspect_err(|error| warn(&path, error))
            .ok();
        let mut watch = Self {
            path,
            timing,
            events,
            watcher,
            armed: None,
            due: true,
            next_look: Instant::now(),
            stamp: None,
            digest: None,
        };
        let directory = directory(&watch.path);
        watch.arm(directory);
        Ok(watch)
    }

    /// Waits until the file holds something else than the last time, and returns that. The first
    /// call returns what the file holds now.
    ///
    /// A file that is gone, or is there again as it was, is no change. A file that cannot be read is
    /// one, for which [`Snapshot::config`] is an error; so is a file that is missing at the first
    /// call. What changes while nobody waits is
    /// returned by the next call, its last state only.
    ///
    /// The call can be dropped at any time: the next one takes over.
    pub async fn changed(&mut self) -> Snapshot {
        loop {
            if let Some(snapshot) = self.round().await {
                return snapshot;
            }
        }
    }

    /// Waits for a reason to look, looks, and returns what is new.
    async fn round(&mut self) -> Option<Snapshot> {
        if !self.due {
            self.wait().await;
        }
        let look = self.look().await;
        self.next_look = Instant::now() + self.timing.poll;
        if self.arm(look.directory) {
            // What happened before this was not seen: look once more.
            return None;
        }
        self.due = false;
        match look.file {
            Found::AsBefore => None,
            Found::Missing(snapshot) => {
                self.stamp = None;
                self.digest.is_none().then(|| self.take(snapshot))?
            }
            Found::Read { stamp, snapshot } => {
                self.stamp = stamp;
                self.take(snapshot)
            }
        }
    }

    /// Returns `snapshot` if it is news.
    fn take(&mut self, snapshot: Snapshot) -> Option<Snapshot> {
        let known = self.digest.replace(snapshot.digest);
        (known != Some(snapshot.digest)).then_some(snapshot)
    }

    /// Waits for an event and the quiet after it, or for the time of the next look.
    async fn wait(&mut self) {
        tokio::select! {
            () = self.events.notified() => {}
            () = sleep_until(self.next_look) => {
                self.due = true;
                return;
            }
        }
        self.due = true;
        let latest = Instant::now() + self.timing.max_hold;
        while Instant::now() < latest {
            let quiet = Instant::now() + self.timing.debounce;
            if timeout_at(quiet.min(latest), self.events.notified())
                .await
                .is_err()
            {
                return;
            }
        }
    }

    /// Looks at the path. On a thread for blocking work: a config may be on a network file system.
    async fn look(&self) -> Look {
        let path = self.path.clone();
        let stamp = self.stamp.clone();
        tokio::task::spawn_blocking(move || look(path, stamp.as_ref()))
            .await
            // Only while the runtime shuts down.
            .unwrap_or_else(|_| Look {
                directory: self.armed.clone(),
                file: Found::AsBefore,
            })
    }

    /// Watches `directory`, unless it is watched already. Returns whether that is new.
    ///
    /// This asks the system for one watch, which is why it is not put on another thread.
    fn arm(&mut self, directory: Option<Identity>) -> bool {
        let Some(watcher) = &mut self.watcher else {
            return false;
        };
        if self.armed == directory {
            return false;
        }
        let path = self.path.parent().unwrap_or(&self.path);
        if self.armed.take().is_some() {
            // It fails if the directory is gone, and the watch with it.
            let _ = watcher.unwatch(path);
        }
        if directory.is_none() {
            return false;
        }
        match watcher.watch(path, RecursiveMode::NonRecursive) {
            Ok(()) => {
                self.armed = directory;
                true
            }
            // It went away since it was looked at; the next look tells.
            Err(error) if is_missing(&error) => false,
            Err(error) => {
                warn(&self.path, &error);
                // For good: it would fail, and warn, at every look.
                self.watcher = None;
                false
            }
        }
    }
}

impl Snapshot {
    fn new(path: PathBuf, bytes: io::Result<Vec<u8>>) -> Self {
        let digest = match &bytes {
            Ok(bytes) => Sha256::digest(bytes),
            Err(error) => Sha256::digest(error.to_string()),
        };
        Self {
            path,
            bytes,
            digest: digest.into(),
        }
    }

    /// The config that the file said. This takes time in proportion to its size.
    ///
    /// # Errors
    ///
    /// As [`Config::from_file`].
    pub fn config(&self) -> Result<Config, ConfigError> {
        let source = Source::of_file(&self.path, self.bytes.as_deref())?;
        Config::from_source(source)
    }

    /// The SHA-256 of the file's bytes, or of the error if it could not be read.
    #[must_use]
    pub const fn digest(&self) -> &[u8; 32] {
        &self.digest
    }
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Not what it holds: some of it is secret.
        f.debug_struct("Snapshot")
            .field("path", &self.path)
            .field("bytes", &self.bytes.as_ref().map(Vec::len))
            .finish_non_exhaustive()
    }
}

fn watcher(events: Arc<Notify>) -> notify::Result<RecommendedWatcher> {
    const WRITTEN: AccessKind = AccessKind::Close(AccessMode::Write);
    notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Reading the file is an event as well: without this each look would cause another.
        let was_read =
            |event: notify::Event| matches!(event.kind, EventKind::Access(kind) if kind != WRITTEN);
        if !event.is_ok_and(was_read) {
            events.notify_one();
        }
    })
}

fn is_missing(error: &notify::Error) -> bool {
    match &error.kind {
        notify::ErrorKind::PathNotFound => true,
        notify::ErrorKind::Io(error) => is_gone(error),
        _ => false,
    }
}

fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{NotADirectory, NotFound};
    matches!(error.kind(), NotFound | NotADirectory)
}

fn warn(path: &Path, error: &notify::Error) {
    tracing::warn!(
        file = %path.display(),
        %error,
        "changes of the config are not announced by the system: it is polled instead"
    );
}

fn look(path: PathBuf, known: Option<&Identity>) -> Look {
    Look {
        directory: directory(&path),
        file: look_at_file(path, known),
    }
}

fn look_at_file(path: PathBuf, known: Option<&Identity>) -> Found {
    // The stamp is taken before the bytes are read: a change in between then shows in the next one.
    let (stamp, settled) = match fs::metadata(&path) {
        Ok(metadata) => (Some(Identity::of_file(&metadata)), is_settled(&metadata)),
        Err(error) if is_gone(&error) => return Found::Missing(Snapshot::new(path, Err(error))),
        Err(_) => (None, false),
    };
    if stamp.is_some() && stamp.as_ref() == known {
        return Found::AsBefore;
    }
    let bytes = config::read(&path);
    if bytes.as_ref().is_err_and(is_gone) {
        return Found::Missing(Snapshot::new(path, bytes));
    }
    Found::Read {
        stamp: stamp.filter(|_| settled),
        snapshot: Snapshot::new(path, bytes),
    }
}

fn directory(path: &Path) -> Option<Identity> {
    let metadata = fs::metadata(path.parent()?).ok()?;
    metadata.is_dir().then(|| Identity::new(&metadata))
}

/// Whether another change of the file would show in its times.
fn is_settled(metadata: &Metadata) -> bool {
    let (seconds, _) = changed(metadata);
    let changed = u64::try_from(seconds).map(Duration::from_secs).ok();
    let age = changed.and_then(|at| (SystemTime::UNIX_EPOCH + at).elapsed().ok());
    // A time of the future is no time to go by. A second more, as the fraction is left out.
    age.is_some_and(|age| age > RACY + Duration::from_secs(1))
}

impl Identity {
    fn new(metadata: &Metadata) -> Self {
        Self {
            id: id(metadata),
            created: metadata.created().ok(),
            state: None,
        }
    }

    fn of_file(metadata: &Metadata) -> Self {
        let modified = metadata.modified().ok();
        Self {
            state: Some((metadata.len(), modified, changed(metadata))),
            ..Self::new(metadata)
        }
    }
}

#[cfg(unix)]
fn id(metadata: &Metadata) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt;
    (metadata.dev(), metadata.ino())
}

#[cfg(not(unix))]
const fn id(_: &Metadata) -> (u64, u64) {
    (0, 0)
}

/// When the content or anything about it changed, in seconds and nanoseconds since 1970.
#[cfg(unix)]
fn changed(metadata: &Metadata) -> (i64, i64) {
    use std::os::unix::fs::MetadataExt;
    (metadata.ctime(), metadata.ctime_nsec())
}

#[cfg(not(unix))]
fn changed(metadata: &Metadata) -> (i64, i64) {
    let modified = metadata.modified().ok();
    let since = modified.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
    let seconds = since.and_then(|since| i64::try_from(since.as_secs()).ok());
    (seconds.unwrap_or(-1), 0)
}
