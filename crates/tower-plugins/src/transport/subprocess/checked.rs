//! A program whose bytes were checked, so that those and no others are run.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::config::Checksum;

/// A copy of a program in memory that nothing can write to any more.
#[derive(Debug)]
pub(crate) struct Program {
    file: OwnedFd,
    is_script: bool,
}

/// Why a program is not run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unchecked {
    #[error("{0} cannot be checked: {1}")]
    Io(String, io::Error),
    #[error(
        "{path} is not what `checksum` says: it is {found}. Put the right file there, or set the checksum to this, if it is meant"
    )]
    Other { path: String, found: Checksum },
    #[error("{0} is a set-user-ID or set-group-ID program, which `checksum` cannot be with")]
    Privileged(String),
    #[cfg(not(target_os = "linux"))]
    #[error("`checksum` takes Linux, where the bytes that were checked can be run; {0} is not run")]
    Unsupported(String),
}

impl Program {
    /// The program at `path`, if its bytes are those of `checksum`. This blocks.
    #[cfg(target_os = "linux")]
    pub(super) fn read(path: &Path, checksum: &Checksum) -> Result<Self, Unchecked> {
        use rustix::fs::{SealFlags, fcntl_add_seals};

        let shown = path.display().to_string();
        let io = |error: io::Error| Unchecked::Io(shown.clone(), error);
        let about = path.metadata().map_err(io)?;
        // To open what is none may take for ever.
        if !about.is_file() {
            return Err(io(io::Error::new(
                io::ErrorKind::InvalidInput,
                "it is not a file",
            )));
        }
        let mut from = File::open(path).map_err(io)?;
        let about = from.metadata().map_err(io)?;
        // A copy would run without them, and say nothing.
        if std::os::unix::fs::MetadataExt::mode(&about) & 0o6000 != 0 {
            return Err(Unchecked::Privileged(shown));
        }
        let mut copy = File::from(in_memory().map_err(io)?);
        let (mut hash, mut start) = (Sha256::new(), Vec::<u8>::new());
        let mut chunk = vec![0; 64 << 10];
        loop {
            let read = match from.read(&mut chunk) {
                Ok(0) => break,
                Ok(read) => &chunk[..read],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(io(error)),
            };
            start.extend(read.iter().take(2_usize.saturating_sub(start.len())));
            hash.update(read);
            copy.write_all(read).map_err(io)?;
        }
        let found = Checksum::sha256(hash.finalize().into());
        if found != *checksum {
            return Err(Unchecked::Other { path: shown, found });
        }
        let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
        fcntl_add_seals(&copy, seals).map_err(|error| io(error.into()))?;
        Ok(Self {
            file: reopened(&copy).map_err(io)?,
            is_script: start == *b"#!",
        })
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn read(path: &Path, _: &Checksum) -> Result<Self, Unchecked> {
        Err(Unchecked::Unsupported(path.display().to_string()))
    }

    /// Where this program, and a child of it before exec, finds the copy.
    pub(super) fn path(&self) -> String {
        format!("/proc/self/fd/{}", self.file.as_raw_fd())
    }

    /// Whether it names an interpreter, which opens it by that path: it has to be open then.
    pub(super) const fn is_script(&self) -> bool {
        self.is_script
    }
}

impl AsRawFd for Program {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

/// A file in memory that may be run.
#[cfg(target_os = "linux")]
fn in_memory() -> io::Result<OwnedFd> {
    use rustix::fs::{MemfdFlags, memfd_create};

    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    match memfd_create("plugin", flags | MemfdFlags::EXEC) {
        // A kernel before 6.3 has no word for it, and lets it be run.
        Err(rustix::io::Errno::INVAL) => Ok(memfd_create("plugin", flags)?),
        made => Ok(made?),
    }
}

/// The same file for reading alone: the kernel runs none that is open for writing.
#[cfg(target_os = "linux")]
fn reopened(file: &File) -> io::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(File::open(path)?.into())
}
