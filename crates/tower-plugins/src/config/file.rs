//! The files of a config: itself, those it includes, and those it names.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use sha2::{Digest, Sha256};

use super::FileContents;

/// The largest file that is read.
const MAX_FILE: u64 = 10 << 20;

/// Reads the files of one config, each once however often it is named, and keeps account of them.
#[derive(Debug, Default)]
pub(super) struct Files {
    read: RefCell<BTreeMap<PathBuf, Result<Opened, String>>>,
    digests: RefCell<BTreeMap<PathBuf, Result<[u8; 32], String>>>,
    directories: RefCell<BTreeSet<PathBuf>>,
    now: Now,
}

/// The file that is being read, for whoever waits for it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Now(Arc<Mutex<Option<PathBuf>>>);

impl Now {
    fn set(&self, path: Option<&Path>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = path.map(Path::to_owned);
    }

    #[cfg(feature = "watch")]
    pub(crate) fn get(&self) -> Option<PathBuf> {
        let now = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        now.clone()
    }
}

/// What a file held, and how it was protected.
#[derive(Clone, Debug)]
pub(super) struct Opened {
    pub(super) contents: FileContents,
    /// Its mode, where files have one.
    pub(super) mode: Option<u32>,
}

/// What a config was read from: itself, and every file it names.
///
/// The digest is over all of it: when it is the same, so is the config.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Dependencies {
    files: BTreeMap<PathBuf, Option<[u8; 32]>>,
    directories: BTreeSet<PathBuf>,
}

impl Dependencies {
    /// The files, those among them that could not be read.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.keys().map(PathBuf::as_path)
    }

    /// The directories of which the content matters: a new file there may belong to the config.
    pub fn directories(&self) -> impl Iterator<Item = &Path> {
        self.directories.iter().map(PathBuf::as_path)
    }

    /// These and `other` together; what is in both is as it is here.
    #[cfg(feature = "watch")]
    pub(crate) fn and(mut self, other: &Self) -> Self {
        for (path, held) in &other.files {
            self.files.entry(path.clone()).or_insert(*held);
        }
        self.directories.extend(other.directories.iter().cloned());
        self
    }

    /// The SHA-256 over the files' names and what they hold.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        for (path, held) in &self.files {
            let path = path.as_os_str().as_encoded_bytes();
            digest.update((path.len() as u64).to_le_bytes());
            digest.update(path);
            match held {
                Some(held) => {
                    digest.update([1]);
                    digest.update(held);
                }
                None => digest.update([0]),
            }
        }
        digest.finalize().into()
    }
}

impl fmt::Debug for Dependencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the digests: that of a short secret tells what it is.
        f.debug_struct("Dependencies")
            .field("files", &self.files.keys())
            .field("directories", &self.directories)
            .finish()
    }
}

impl Files {
    /// Of which `now` tells what is being read.
    pub(super) fn told_by(now: Now) -> Self {
        Self {
            now,
            ..Self::default()
        }
    }

    /// These files hold `kept`, whatever is on disk.
    #[cfg(feature = "watch")]
    pub(super) fn hold(&self, kept: &[FileContents]) {
        let kept = kept.iter().map(|contents| {
            let opened = Opened {
                contents: contents.clone(),
                mode: None,
            };
            (contents.path().to_owned(), Ok(opened))
        });
        self.read.borrow_mut().extend(kept);
    }

    /// What the file at `path` holds; why it cannot be read otherwise.
    pub(super) fn read(&self, path: &Path) -> Result<Opened, String> {
        if let Some(known) = self.read.borrow().get(path) {
            return known.clone();
        }
        self.now.set(Some(path));
        let opened = open(path).map_err(|error| error.to_string());
        self.now.set(None);
        self.read
            .borrow_mut()
            .insert(path.to_owned(), opened.clone());
        opened
    }

    /// The SHA-256 of what the file at `path` holds, however long it is; why it cannot be read otherwise.
    pub(super) fn digest(&self, path: &Path) -> Result<[u8; 32], String> {
        if let Some(known) = self.digests.borrow().get(path) {
            return known.clone();
        }
        self.now.set(Some(path));
        let digest = digest(path).map_err(|error| error.to_string());
        self.now.set(None);
        self.digests
            .borrow_mut()
            .insert(path.to_owned(), digest.clone());
        digest
    }

    /// Puts on record that what is in `directory` matters.
    pub(super) fn look_into(&self, directory: &Path) {
        self.directories.borrow_mut().insert(directory.to_owned());
    }

    pub(super) fn into_dependencies(self) -> Dependencies {
        let digest = |opened: Result<Opened, String>| Some(*opened.ok()?.contents.digest());
        let read = self.read.into_inner().into_iter();
        let digests = self.digests.into_inner().into_iter();
        Dependencies {
            files: read
                .map(|(path, opened)| (path, digest(opened)))
                .chain(digests.map(|(path, digest)| (path, digest.ok())))
                .collect(),
            directories: self.directories.into_inner(),
        }
    }
}

fn open(path: &Path) -> io::Result<Opened> {
    let (bytes, metadata) = read(path)?;
    Ok(Opened {
        contents: FileContents::new(path, bytes),
        mode: mode(&metadata),
    })
}

#[cfg(unix)]
fn mode(metadata: &Metadata) -> Option<u32> {
    use std::os::unix::fs::MetadataExt;
    Some(metadata.mode())
}

#[cfg(not(unix))]
const fn mode(_: &Metadata) -> Option<u32> {
    None
}

/// The SHA-256 of the regular file at `path`. This blocks.
fn digest(path: &Path) -> io::Result<[u8; 32]> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut digest = Sha256::new();
    let mut file = File::open(path)?;
    let mut chunk = vec![0; 64 << 10];
    loop {
        match file.read(&mut chunk) {
            Ok(0) => return Ok(digest.finalize().into()),
            Ok(read) => digest.update(&chunk[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The bytes of the regular file at `path`, at most 10 MiB, read through one handle. This blocks.
pub(super) fn read(path: &Path) -> io::Result<(Vec<u8>, Metadata)> {
    let regular = |metadata: Metadata| {
        if metadata.is_file() {
            Ok(metadata)
        } else {
            Err(io::Error::other("it is not a regular file"))
        }
    };
    // Opening a pipe would wait for its writer, so look before; look again at what was opened.
    regular(fs::metadata(path)?)?;
    let file = File::open(path)?;
    let metadata = regular(file.metadata()?)?;
    let mut bytes = Vec::new();
    if metadata.len() <= MAX_FILE {
        bytes.reserve_exact(usize::try_from(metadata.len()).unwrap_or(0) + 1);
        (&file).take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    }
    if metadata.len().max(bytes.len() as u64) > MAX_FILE {
        return Err(io::Error::other("it is larger than 10 MiB"));
    }
    Ok((bytes, metadata))
}
