//! What hosts that were killed left of the directories for their plugins' sockets.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, FlockOperation, Mode, OFlags, flock, fstat, openat, statat,
    unlinkat,
};
use rustix::io::Errno;

/// What the directories are called; then come eight hexadecimal digits.
pub(super) const PREFIX: &str = "tower-plugins-sockets-";

/// Locks the directory at `path`, which was just made, for as long as what is returned is open; `None` if it was swept away before.
pub(super) fn lock(path: &Path) -> io::Result<Option<File>> {
    let locked = || {
        let directory = open(CWD, path)?;
        match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            // Where there are no locks nobody else has one either, and nothing is swept.
            Err(Errno::OPNOTSUPP | Errno::NOLCK | Errno::NOSYS) => {}
            locked => locked?,
        }
        let there = statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok((there.st_ino == fstat(&directory)?.st_ino).then_some(directory))
    };
    match locked() {
        Err(Errno::NOENT | Errno::WOULDBLOCK) => Ok(None),
        locked => Ok(locked?),
    }
}

/// Removes the directories in `base` that hosts of this user left, once: those that nobody has locked, with the sockets in them. One in which
/// something else is stays.
pub(super) fn sweep(base: &Path) {
    static SWEPT: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
    let mut swept = SWEPT.lock().unwrap_or_else(PoisonError::into_inner);
    if !swept.insert(base.to_owned()) {
        return;
    }
    drop(swept);
    let Ok(base) = rustix::fs::open(
        base,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    ) else {
        return;
    };
    for entry in Dir::read_from(&base).into_iter().flatten().flatten() {
        let is_ours = entry.file_name().to_str().is_ok_and(is_ours);
        if is_ours && let Err(error) = remove(&base, entry.file_name()) {
            tracing::debug!(directory = ?entry.file_name(), %error, "a directory for sockets stays");
        }
    }
}

fn is_ours(name: &str) -> bool {
    let digits = name.strip_prefix(PREFIX);
    digits.is_some_and(|digits| {
        digits.len() == 8 && digits.bytes().all(|one| one.is_ascii_hexdigit())
    })
}

fn remove(base: impl AsFd, name: &std::ffi::CStr) -> Result<(), Errno> {
    let directory = open(&base, name)?;
    if fstat(&directory)?.st_uid != rustix::process::geteuid().as_raw() {
        return Err(Errno::PERM);
    }
    // Its host holds the lock as long as it lives.
    flock(&directory, FlockOperation::NonBlockingLockExclusive)?;
    for entry in Dir::read_from(&directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let found = statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(found.st_mode) == FileType::Socket {
            unlinkat(&directory, name, AtFlags::empty())?;
        }
    }
    // It goes only if it is empty.
    unlinkat(&base, name, AtFlags::REMOVEDIR)
}

/// The directory itself, and not what a link of its name leads to.
fn open(base: impl AsFd, path: impl rustix::path::Arg) -> Result<File, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(base, path, flags, Mode::empty())?.into())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::config::GoPluginSpec;
    use crate::transport::go_plugin::sockets::Sockets;

    #[test]
    fn what_a_killed_host_left_is_removed_by_the_next_and_nothing_else() {
        let base = tempfile::tempdir().unwrap();
        let base = base.path();
        let at = |name: &str| base.join(name);
        let left = |name: &str| {
            let path = at(name);
            fs::create_dir(&path).unwrap();
            drop(UnixListener::bind(path.join("plugin1")).unwrap());
            path
        };
        let gone = left("tower-plugins-sockets-0000000a");
        let used = left("tower-plugins-sockets-0000000b");
        let host = lock(&used).unwrap();
        assert!(host.is_some());
        let with_more = left("tower-plugins-sockets-0000000c");
        fs::write(with_more.join("file"), "mine").unwrap();
        let others = [left("tower-plugins-sockets-more"), left("elsewhere")];
        let link = at("tower-plugins-sockets-0000000d");
        symlink("elsewhere", &link).unwrap();

        let spec = GoPluginSpec {
            socket_dir: Some(base.to_owned()),
            ..GoPluginSpec::default()
        };
        let own = Sockets::create(&spec).unwrap();
        assert!(!gone.exists());
        assert!(used.join("plugin1").exists());
        assert_eq!(fs::read(with_more.join("file")).unwrap(), b"mine");
        assert!(link.is_symlink());
        for other in others {
            assert!(other.join("plugin1").exists());
        }
        // What lives is left alone.
        assert!(remove_named(base, own.directory()).is_err());
        assert!(own.directory().exists());
        drop(host);
        remove_named(base, &used).unwrap();
        assert!(!used.exists());
    }

    fn remove_named(base: &Path, path: &Path) -> Result<(), Errno> {
        use std::os::unix::ffi::OsStrExt;

        let name = path.file_name().unwrap().as_bytes();
        let base = File::open(base).unwrap();
        remove(&base, &std::ffi::CString::new(name).unwrap())
    }
}
