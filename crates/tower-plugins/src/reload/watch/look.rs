//! One look at the files of a config: whether they may have changed, and what they say if so.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::Snapshot;
use crate::config::{Dependencies, Loader};

/// Below this age of a file another change could leave its times as they are: the coarsest clock
/// of a file system in use ticks every 2 seconds.
const RACY: Duration = Duration::from_secs(2);

/// What tells a file or directory from another one, or from itself before a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    /// Device and inode.
    id: (u64, u64),
    created: Option<SystemTime>,
    /// Its length, when its content changed and when anything of it changed.
    state: Option<(u64, Option<SystemTime>, (i64, i64))>,
}

/// The files and directories as they were when they were last read.
pub(super) type Stamps = BTreeMap<PathBuf, Stamp>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stamp {
    Is(Identity),
    /// There was nothing.
    Missing,
    /// To be read whatever it looks like: a change could leave it as it looks.
    Racy,
}

/// What one look found.
#[derive(Debug)]
pub(super) struct Look {
    /// The directories that matter, with those of them that are there; `None` if they were not looked
    /// at.
    pub(super) directories: Option<BTreeMap<PathBuf, Option<Identity>>>,
    pub(super) found: Found,
}

impl Look {
    pub(super) const NOTHING: Self = Self {
        directories: None,
        found: Found::AsBefore,
    };
}

#[derive(Debug)]
pub(super) enum Found {
    /// The config file is not there.
    Missing(Box<Snapshot>),
    AsBefore,
    Read {
        stamps: Stamps,
        dependencies: Dependencies,
        snapshot: Box<Snapshot>,
    },
}

/// Looks at the config that `loader` loads from `path`. `known` is what was found the last time, of
/// what `dependencies` say.
pub(super) fn look(
    path: &Path,
    loader: &Loader,
    known: &Stamps,
    dependencies: &Dependencies,
) -> Look {
    let is_known = |path: &PathBuf, known: &Stamp| *known != Stamp::Racy && stamp(path) == *known;
    if !known.is_empty() && known.iter().all(|(path, known)| is_known(path, known)) {
        return Look {
            directories: Some(directories(path, dependencies, None)),
            found: Found::AsBefore,
        };
    }
    let is_missing = |path| fs::metadata(path).is_err_and(|error| is_gone(&error));
    let missing = is_missing(path);
    let loaded = loader.load();
    let read = loaded.dependencies.clone();
    let snapshot = Box::new(Snapshot::new(loaded));
    // It may have gone since it was looked at.
    if snapshot.config.is_err() && (missing || is_missing(path)) {
        return Look {
            directories: Some(directories(path, dependencies, None)),
            found: Found::Missing(snapshot),
        };
    }
    // What a config names that is refused may be incomplete: what was watched before still matters.
    let before = snapshot.config.is_err().then_some(dependencies);
    let files = read
        .files()
        .chain(before.into_iter().flat_map(Dependencies::files));
    let into = read.directories();
    let into = into.chain(before.into_iter().flat_map(Dependencies::directories));
    let stamps = files.chain(into).map(|path| (path.to_owned(), stamp(path)));
    Look {
        directories: Some(directories(path, &read, before)),
        found: Found::Read {
            stamps: stamps.collect(),
            dependencies: match before {
                Some(before) => read.and(before),
                None => read,
            },
            snapshot,
        },
    }
}

fn stamp(path: &Path) -> Stamp {
    match fs::metadata(path) {
        Ok(metadata) if is_settled(&metadata) => Stamp::Is(Identity::with_state(&metadata)),
        Err(error) if is_gone(&error) => Stamp::Missing,
        Ok(_) | Err(_) => Stamp::Racy,
    }
}

/// The directories of all files, and those that are looked into.
pub(super) fn directories(
    path: &Path,
    dependencies: &Dependencies,
    before: Option<&Dependencies>,
) -> BTreeMap<PathBuf, Option<Identity>> {
    let all = [Some(dependencies), before].into_iter().flatten();
    let mut directories: BTreeSet<&Path> = path.parent().into_iter().collect();
    for dependencies in all {
        directories.extend(dependencies.files().filter_map(Path::parent));
        directories.extend(dependencies.directories());
    }
    let directories = directories.into_iter();
    directories
        .map(|path| (path.to_owned(), directory(path)))
        .collect()
}

fn directory(path: &Path) -> Option<Identity> {
    let metadata = fs::metadata(path).ok()?;
    metadata.is_dir().then(|| Identity::new(&metadata))
}

pub(super) fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{NotADirectory, NotFound};
    matches!(error.kind(), NotFound | NotADirectory)
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
    pub(super) fn new(metadata: &Metadata) -> Self {
        Self {
            id: id(metadata),
            created: metadata.created().ok(),
            state: None,
        }
    }

    pub(super) fn with_state(metadata: &Metadata) -> Self {
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
