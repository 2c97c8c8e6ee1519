//! The files of the last config that was taken, kept on disk for a start whose config is broken.
//!
//! ```text
//! DIR/index.json                      which directory, and where its files were: {"directory": "…", "files": ["/etc/plugins.yaml", …]}
//! DIR/9f86d081884c7d659a2feaa0c55ad015/0-plugins.yaml
//! ```
//!
//! The directory is called after the digest of what is in it. It is complete on disk before the index that names it is
//! renamed into place, so that there is one whole config whenever the power fails.

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use crate::config::FileContents;

/// Counts configs that were to be kept, by what came of it.
const KEPT: &str = "plugin_config_kept_total";

const INDEX: &str = "index.json";
const NEW_INDEX: &str = ".index.json.new";

#[derive(Serialize, Deserialize)]
struct Index {
    directory: String,
    /// The paths that the files had, the main one first.
    files: Vec<PathBuf>,
}

/// Keeps configs in a directory, one at a time and the newest one last, beside whatever else goes on.
#[derive(Clone, Debug)]
pub(super) struct Keeper {
    dir: PathBuf,
    newest: watch::Sender<Vec<FileContents>>,
}

impl Keeper {
    /// Starts the task that writes, which ends with this and its clones.
    pub(super) fn start(dir: PathBuf) -> Self {
        let (newest, mut inbox) = watch::channel(Vec::new());
        let into = dir.clone();
        tokio::spawn(async move {
            while inbox.changed().await.is_ok() {
                let files = inbox.borrow_and_update().clone();
                let dir = into.clone();
                let kept = tokio::task::spawn_blocking(move || keep(&dir, &files)).await;
                report(&into, &kept.unwrap_or_else(|error| Err(error.into())));
            }
        });
        Self { dir, newest }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Has `files`, the main one first, take the place of what is kept.
    pub(super) fn keep(&self, files: Vec<FileContents>) {
        self.newest.send_replace(files);
    }

    /// What is kept of the config whose main file is at `main`.
    pub(super) async fn kept(&self, main: &Path) -> io::Result<Option<Vec<FileContents>>> {
        let (dir, main) = (self.dir.clone(), main.to_owned());
        tokio::task::spawn_blocking(move || kept(&dir, &main)).await?
    }
}

fn report(dir: &Path, kept: &io::Result<()>) {
    let outcome = if kept.is_ok() { "kept" } else { "failed" };
    metrics::counter!(KEPT, "outcome" => outcome).increment(1);
    if let Err(error) = kept {
        tracing::warn!(
            dir = %dir.display(),
            %error,
            "the config could not be kept as the last good one; it runs all the same",
        );
    }
}

fn keep(dir: &Path, files: &[FileContents]) -> io::Result<()> {
    let name = name_of(files);
    if index(dir).is_ok_and(|index| index.directory == name) && read(dir, &name, files).is_ok() {
        return Ok(());
    }
    make_dir(dir, true)?;
    refuse_open(dir, &fs::metadata(dir)?)?;
    let directory = dir.join(&name);
    // Left by one who did not come to its end.
    if directory.exists() {
        fs::remove_dir_all(&directory)?;
    }
    let done = write(dir, &name, files);
    if done.is_err() {
        // So that a full disk is no fuller.
        let _ = fs::remove_dir_all(&directory);
        let _ = fs::remove_file(dir.join(NEW_INDEX));
        return done;
    }
    remove_others(dir, &name);
    Ok(())
}

/// Writes all of it, the index last.
fn write(dir: &Path, name: &str, files: &[FileContents]) -> io::Result<()> {
    let directory = dir.join(name);
    make_dir(&directory, false)?;
    for (place, contents) in files.iter().enumerate() {
        write_file(
            &directory.join(file_name(place, contents.path())),
            contents.expose(),
        )?;
    }
    sync_dir(&directory)?;
    let index = Index {
        directory: name.to_owned(),
        files: files.iter().map(|file| file.path().to_owned()).collect(),
    };
    let new = dir.join(NEW_INDEX);
    let _ = fs::remove_file(&new);
    write_file(&new, &serde_json::to_vec_pretty(&index)?)?;
    fs::rename(&new, dir.join(INDEX))?;
    sync_dir(dir)
}

fn kept(dir: &Path, main: &Path) -> io::Result<Option<Vec<FileContents>>> {
    let index = match index(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        index => index?,
    };
    refuse_open(dir, &fs::metadata(dir)?)?;
    let first = index.files.first().map(PathBuf::as_path);
    if first != Some(main) {
        let of = first.unwrap_or(Path::new("")).display();
        return Err(io::Error::other(format!("it is that of {of}")));
    }
    let files: Vec<_> = index
        .files
        .iter()
        .map(|path| FileContents::new(path, Vec::new()))
        .collect();
    read(dir, &index.directory, &files).map(Some)
}

/// What the directory `name` holds of `files`, if it is what was put there.
fn read(dir: &Path, name: &str, files: &[FileContents]) -> io::Result<Vec<FileContents>> {
    if !is_name(name) {
        return Err(io::Error::other(format!(
            "{INDEX} names no directory of its own"
        )));
    }
    let files = files.iter().enumerate();
    let files = files.map(|(place, file)| {
        let held = private(&dir.join(name).join(file_name(place, file.path())))?;
        Ok(FileContents::new(file.path(), held))
    });
    let files = files.collect::<io::Result<Vec<_>>>()?;
    if name_of(&files) == name {
        Ok(files)
    } else {
        Err(io::Error::other(format!(
            "{name} does not hold what was kept"
        )))
    }
}

fn index(dir: &Path) -> io::Result<Index> {
    Ok(serde_json::from_slice(&private(&dir.join(INDEX))?)?)
}

/// What a file holds that nobody else can have written.
fn private(path: &Path) -> io::Result<Vec<u8>> {
    let metadata = fs::symlink_metadata(path)?;
    if !metadata.is_file() {
        let path = path.display();
        return Err(io::Error::other(format!("{path} is no file")));
    }
    refuse_open(path, &metadata)?;
    Ok(FileContents::read(path)?.expose().to_vec())
}

/// Refuses what others can change: they could have another config run.
#[cfg(unix)]
fn refuse_open(path: &Path, metadata: &fs::Metadata) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt;
    if metadata.mode() & 0o022 == 0 {
        return Ok(());
    }
    let path = path.display();
    Err(io::Error::other(format!(
        "{path} can be changed by others: `chmod go-w` it"
    )))
}

#[cfg(not(unix))]
#[allow(clippy::unnecessary_wraps)] // elsewhere it may fail
const fn refuse_open(_: &Path, _: &fs::Metadata) -> io::Result<()> {
    Ok(())
}

/// The name of the directory that holds `files`: hex of the first half of their digest.
fn name_of(files: &[FileContents]) -> String {
    let mut digest = Sha256::new();
    for file in files {
        let path = file.path().as_os_str().as_encoded_bytes();
        digest.update((path.len() as u64).to_le_bytes());
        digest.update(path);
        digest.update(file.digest());
    }
    let mut name = String::with_capacity(32);
    for byte in digest.finalize().iter().take(16) {
        // Writing to a text does not fail.
        let _ = write!(name, "{byte:02x}");
    }
    name
}

fn is_name(name: &str) -> bool {
    name.len() == 32 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Numbered, as two directories may have files of one name.
fn file_name(place: usize, path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    format!("{place}-{}", name.to_string_lossy())
}

fn make_dir(dir: &Path, with_parents: bool) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(with_parents);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir)
}

fn write_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// So that what was made or renamed in `dir` outlives a loss of power.
#[cfg(unix)]
fn sync_dir(dir: &Path) -> io::Result<()> {
    fs::File::open(dir)?.sync_all()
}

#[cfg(not(unix))]
fn sync_dir(_: &Path) -> io::Result<()> {
    Ok(())
}

/// Removes what was kept before, and what was left half-written. What cannot be removed now is when the next is kept.
fn remove_others(dir: &Path, name: &str) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let found = entry.file_name();
        if found
            .to_str()
            .is_some_and(|found| is_name(found) && found != name)
        {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
