//! Watches the config file, and every file that it names.
//!
//! Directories are watched, not files: a rename puts another file at the path, and Kubernetes
//! swaps a link beside it. Any event there makes the [`Watch`] look at the path anew; what counts
//! is what it finds, so that it need not know how an editor saves. Events may be lost (a network
//! file system, an overflow, a link to another directory), so it also looks at a slow pace.

mod look;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use sha2::{Digest, Sha256};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout_at};

use self::look::{Found, Identity, Look, Stamps, directories, is_gone, look};
use crate::config::{
    Config, ConfigError, Dependencies, Environment, FileContents, Loaded, Loader, Now, Problem,
    ReloadSpec, overdue,
};

#[cfg(test)]
#[cfg(unix)]
mod tests;

/// Waits for the config to say something else: its file, the files that it includes, or those that it
/// names.
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
    loader: Loader,
    timing: Timing,
    events: Arc<Notify>,
    /// `None` if the system has no more watches to give: then only the pace is left.
    watcher: Option<RecommendedWatcher>,
    /// The directories that are watched.
    armed: BTreeMap<PathBuf, Identity>,
    /// Whether there is a reason to look, which a dropped call has not seen to.
    due: bool,
    /// When the files last said something new.
    last_news: Option<Instant>,
    next_look: Instant,
    stamps: Stamps,
    dependencies: Dependencies,
    digest: Option<[u8; 32]>,
    /// When what was refused is read again, although nothing has changed.
    retry: Option<Instant>,
    /// The look that is under way, which a dropped call has left to the next one.
    looking: Option<Looking>,
    /// How long a look may take: what the config says that was read last.
    limit: Duration,
    /// Whether the files are to be read whatever they look like, and are news whatever they hold.
    again: bool,
}

/// A look on a thread for blocking work.
#[derive(Debug)]
struct Looking {
    task: JoinHandle<Look>,
    begun: Instant,
    now: Now,
    /// Whether that it takes too long was returned.
    is_overdue: bool,
}

/// A certificate may be refused for the time, and become valid with it.
const RETRY: Duration = Duration::from_secs(60);

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
    /// How soon after a change the next one is read: 100 milliseconds, so that there are at most ten reloads a
    /// second however quiet it is between two saves.
    pub min_gap: Duration,
    /// How often the files are looked at without an event: every second, which costs a `stat` for each
    /// file and directory.
    pub poll: Duration,
}

/// What the files said at one moment.
pub struct Snapshot {
    config: Result<Config, ConfigError>,
    warnings: Vec<Problem>,
    digest: [u8; 32],
    files: Vec<FileContents>,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            debounce: Duration::from_millis(20),
            max_hold: Duration::from_millis(200),
            min_gap: Duration::from_millis(100),
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
            loader: Loader::file(path.as_path()),
            path,
            timing,
            events,
            watcher,
            armed: BTreeMap::new(),
            due: true,
            last_news: None,
            next_look: Instant::now(),
            stamps: Stamps::new(),
            dependencies: Dependencies::default(),
            digest: None,
            retry: None,
            looking: None,
            limit: ReloadSpec::default().validation_timeout,
            again: false,
        };
        watch.arm(directories(&watch.path, &watch.dependencies, None));
        Ok(watch)
    }

    /// This watch, with variables from `environment` and not from the process.
    #[must_use]
    pub fn environment(mut self, environment: Environment) -> Self {
        self.loader = self.loader.environment(environment);
        self
    }

    /// Waits until the file holds something else than the last time, and returns that. The first
    /// call returns what the file holds now.
    ///
    /// A file that is gone, or is there again as it was, is no change. A file that cannot be read is
    /// one, for which [`Snapshot::config`] is an error; so is a file that is missing at the first
    /// call. What changes while nobody waits is
    /// returned by the next call, its last state only.
    ///
    /// Reading and checking that takes longer than `reload.validation_timeout`, of the config that was read last and 10
    /// seconds before there is one, is an error, once; what it comes to is returned when it has come to its end. Until
    /// then nothing else is read, so that a file system that hangs takes no more than one thread.
    ///
    /// The call can be dropped at any time: the next one takes over.
    pub async fn changed(&mut self) -> Snapshot {
        loop {
            if let Some(snapshot) = self.round().await {
                return snapshot;
            }
        }
    }

    /// Has the next [`changed`](Self::changed) return what the files hold, whether or not that is something else: to try again
    /// what was refused, or to see an environment that has changed. A file that is gone is an error then.
    ///
    /// It keeps to [`Timing::min_gap`], and to a look that is under way.
    pub const fn again(&mut self) {
        self.again = true;
        self.due = true;
    }

    /// Waits for a reason to look, looks, and returns what is new.
    async fn round(&mut self) -> Option<Snapshot> {
        if !self.due {
            self.wait().await;
        }
        if let Some(last) = self.last_news {
            sleep_until(last + self.timing.min_gap).await;
        }
        let was_overdue = self.looking.as_ref().is_some_and(|it| it.is_overdue);
        let look = match self.look().await {
            Ok(look) => look,
            Err(overdue) => return self.take(overdue),
        };
        self.next_look = Instant::now() + self.timing.poll;
        // What happened before a directory was watched was not seen: look once more.
        self.due = look.directories.is_some_and(|found| self.arm(found)) || self.again;
        match look.found {
            Found::AsBefore => {
                if was_overdue {
                    // It is no longer as it was said to be: read it, and say so.
                    self.stamps.clear();
                    self.due = true;
                }
                None
            }
            Found::Missing(snapshot) => {
                self.stamps.clear();
                self.digest.is_none().then(|| self.take(*snapshot))?
            }
            Found::Read {
                stamps,
                dependencies,
                snapshot,
            } => {
                self.stamps = stamps;
                self.dependencies = dependencies;
                self.retry = None;
                match &snapshot.config {
                    Ok(config) => self.limit = config.reload.validation_timeout,
                    Err(_) => self.retry = Some(Instant::now() + RETRY),
                }
                self.take(*snapshot)
            }
        }
    }

    /// Returns `snapshot` if it is news.
    fn take(&mut self, snapshot: Snapshot) -> Option<Snapshot> {
        let known = self.digest.replace(snapshot.digest);
        let is_news = known != Some(snapshot.digest);
        if is_news {
            self.last_news = Some(Instant::now());
        }
        is_news.then_some(snapshot)
    }

    /// Waits for an event and the quiet after it, or for the time of the next look. Dropped after the event, it leaves
    /// word that a look is due.
    async fn wait(&mut self) {
        let is_event = tokio::select! {
            () = self.events.notified() => true,
            () = sleep_until(self.next_look) => false,
        };
        self.due = true;
        if !is_event {
            return;
        }
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

    /// Looks at the files, and reads them if they may have changed; an error if that takes too long, of which the next
    /// call waits for the end.
    async fn look(&mut self) -> Result<Look, Snapshot> {
        if self.looking.is_none() {
            self.looking = Some(self.begin());
        }
        let Some(looking) = &mut self.looking else {
            return Ok(Look::NOTHING);
        };
        let looked = if looking.is_overdue {
            (&mut looking.task).await
        } else {
            let latest = looking.begun + self.limit;
            match timeout_at(latest, &mut looking.task).await {
                Ok(looked) => looked,
                Err(_) => {
                    looking.is_overdue = true;
                    let file = looking.now.get();
                    let error = overdue(file.as_deref().unwrap_or(&self.path), self.limit);
                    return Err(Snapshot::refused(error));
                }
            }
        };
        self.looking = None;
        Ok(looked.unwrap_or_else(|error| {
            // Else it is only that the runtime shuts down.
            if error.is_panic() {
                tracing::error!(file = %self.path.display(), "reading the config panicked");
            }
            Look::NOTHING
        }))
    }

    /// Begins a look. On a thread for blocking work: the files may be on a network file system, and a large config
    /// takes a while.
    fn begin(&mut self) -> Looking {
        if std::mem::take(&mut self.again) {
            self.stamps.clear();
            self.digest = None;
        }
        let now = Now::default();
        let (path, loader) = (self.path.clone(), self.loader.clone().tell(now.clone()));
        let dependencies = self.dependencies.clone();
        let stamps = match self.retry {
            Some(retry) if retry <= Instant::now() => Stamps::new(),
            _ => self.stamps.clone(),
        };
        Looking {
            task: tokio::task::spawn_blocking(move || look(&path, &loader, &stamps, &dependencies)),
            begun: Instant::now(),
            now,
            is_overdue: false,
        }
    }

    /// Watches the directories that are there, and no others. Returns whether one of them is new.
    ///
    /// This asks the system for a watch on each, which is why it is not put on another thread.
    fn arm(&mut self, directories: BTreeMap<PathBuf, Option<Identity>>) -> bool {
        let Some(watcher) = &mut self.watcher else {
            return false;
        };
        self.armed.retain(|path, armed| {
            let stays = directories
                .get(path)
                .is_some_and(|now| now.as_ref() == Some(armed));
            if !stays {
                // It fails if the directory is gone, and the watch with it.
                let _ = watcher.unwatch(path);
            }
            stays
        });
        let mut is_new = false;
        for (path, directory) in directories {
            let Some(directory) = directory else { continue };
            if self.armed.contains_key(&path) {
                continue;
            }
            match watcher.watch(&path, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    self.armed.insert(path, directory);
                    is_new = true;
                }
                // It went away since it was looked at; the next look tells.
                Err(error) if is_missing(&error) => {}
                Err(error) => {
                    warn(&path, &error);
                    // For good: it would fail, and warn, at every look.
                    self.watcher = None;
                    self.armed.clear();
                    return false;
                }
            }
        }
        is_new
    }
}

/// A digest over the files and what came of them: a file may be refused for its mode, and then be taken
/// with the same bytes.
fn news(loaded: &Loaded) -> [u8; 32] {
    let mut digest = Sha256::new_with_prefix(loaded.dependencies.digest());
    if let Err(error) = &loaded.config {
        digest.update(error.to_string());
    }
    digest.finalize().into()
}

impl Snapshot {
    fn new(loaded: Loaded) -> Self {
        Self {
            digest: news(&loaded),
            config: loaded.config,
            warnings: loaded.warnings,
            files: loaded.files,
        }
    }

    /// Of files that could not even be read.
    fn refused(error: ConfigError) -> Self {
        Self {
            digest: Sha256::digest(error.to_string()).into(),
            config: Err(error),
            warnings: Vec::new(),
            files: Vec::new(),
        }
    }

    /// The config's files as they were read, the main one first.
    pub(crate) fn files(&self) -> &[FileContents] {
        &self.files
    }

    /// The config that the files said.
    ///
    /// # Errors
    ///
    /// As [`Config::from_file`].
    pub fn config(self) -> Result<Config, ConfigError> {
        self.config
    }

    /// What is allowed and can hardly be meant.
    #[must_use]
    pub fn warnings(&self) -> &[Problem] {
        &self.warnings
    }

    /// The SHA-256 over the files, what they hold, and what is wrong with it.
    #[must_use]
    pub const fn digest(&self) -> &[u8; 32] {
        &self.digest
    }
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshot")
            .field("config", &self.config)
            .field("warnings", &self.warnings)
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

fn warn(path: &Path, error: &notify::Error) {
    tracing::warn!(
        file = %path.display(),
        %error,
        "changes of the config are not announced by the system: it is polled instead"
    );
}
