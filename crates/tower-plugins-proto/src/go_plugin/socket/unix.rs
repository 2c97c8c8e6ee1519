//! A socket's file that is this user's from its first moment on, and gone with its listener.

use std::fs::{self, DirBuilder, Permissions};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::task::{Context, Poll};

use tokio::net::UnixListener;

use super::super::Address;
use super::{ListenError, Socket};

/// The longest path of a socket, in bytes: the system's field, less its last byte.
#[cfg(any(target_os = "linux", target_os = "android"))]
const LONGEST: usize = 107;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const LONGEST: usize = 103;

/// How often another name is tried where the first is taken.
const TRIES: u32 = 8;

/// Listens on a file, which it removes when it is dropped.
pub(super) struct Private {
    listener: UnixListener,
    path: PathBuf,
}

impl Private {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn poll_accept(&self, context: &mut Context<'_>) -> Poll<io::Result<Socket>> {
        self.listener
            .poll_accept(context)
            .map_ok(|(stream, _)| stream.into())
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        // It may be gone already, with its folder.
        drop(fs::remove_file(&self.path));
    }
}

/// Listens in `directory`, for this user, and for `group` if there is one.
///
/// A file that is bound has the mode that the process's umask leaves, which is not this function's to change: so it is bound in a folder
/// of its own that nobody else can enter, and moved to its place when its mode is right.
pub(super) fn bind(directory: &Path, group: Option<&str>) -> Result<Private, ListenError> {
    let failed = |source| ListenError::Unix {
        directory: directory.to_owned(),
        source,
    };
    // The other side may be in another folder.
    let directory = &std::path::absolute(directory).map_err(failed)?;
    let number = |name: &str| group_id(name).map_err(|error| (name.to_owned(), error));
    let group_id = group.map(|name| Ok((name, number(name)?))).transpose();
    let group_id = group_id.map_err(|(group, source)| ListenError::Group { group, source })?;
    let mut taken = io::ErrorKind::AlreadyExists.into();
    for _ in 0..TRIES {
        let name = unforetold();
        let path = directory.join(format!("plugin{name}"));
        check(directory, &path)?;
        let own = match Own::make(directory.join(format!(".{name}"))) {
            Ok(own) => own,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                taken = error;
                continue;
            }
            Err(error) => return Err(failed(error)),
        };
        let made = own.0.join("s");
        let listener = UnixListener::bind(&made).map_err(failed)?;
        // Held from here on: it is removed whatever goes wrong.
        let mut private = Private {
            listener,
            path: made,
        };
        share(&private.path, group_id)?.map_err(failed)?;
        fs::rename(&private.path, &path).map_err(failed)?;
        private.path = path;
        return Ok(private);
    }
    Err(failed(taken))
}

/// A folder that nobody else can enter, removed when it is dropped.
struct Own(PathBuf);

impl Own {
    fn make(path: PathBuf) -> io::Result<Self> {
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        drop(fs::remove_dir(&self.0));
    }
}

/// Whether a socket there can be bound, and told of.
fn check(directory: &Path, path: &Path) -> Result<(), ListenError> {
    let length = path.as_os_str().as_bytes().len();
    if length > LONGEST {
        return Err(ListenError::TooLong {
            directory: directory.to_owned(),
            length,
            limit: LONGEST,
        });
    }
    Ok(Address::Unix(path.to_owned()).check()?)
}

/// Lets this user alone connect, or the group as well. The outer error is of the group.
fn share(path: &Path, group: Option<(&str, u32)>) -> Result<io::Result<()>, ListenError> {
    let Some((name, id)) = group else {
        return Ok(fs::set_permissions(path, Permissions::from_mode(0o600)));
    };
    chown(path, None, Some(id)).map_err(|source| ListenError::Group {
        group: name.to_owned(),
        source,
    })?;
    Ok(fs::set_permissions(path, Permissions::from_mode(0o660)))
}

/// Twelve digits that nobody can foretell.
fn unforetold() -> String {
    // Each `RandomState` has keys from the system's randomness, and what it hashes to is not known without them.
    let random = RandomState::new().hash_one(std::process::id());
    format!("{:012x}", random >> 16)
}

/// The number of `group`, which is one, or a name in `/etc/group`.
///
/// ```
/// assert_eq!(tower_plugins_proto::go_plugin::socket::group_id("12345")?, 12_345);
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
///
/// `NotFound` if no group is called so, and what reading the file fails with.
pub fn group_id(group: &str) -> io::Result<u32> {
    if let Ok(id) = group.parse() {
        return Ok(id);
    }
    let groups = fs::read_to_string("/etc/group")?;
    let found = groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let named = fields.next() == Some(group);
        named.then(|| fields.nth(1)?.parse().ok()).flatten()
    });
    let missing = || {
        let said = "there is no such group in /etc/group; write its number";
        io::Error::new(io::ErrorKind::NotFound, said)
    };
    found.ok_or_else(missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_have_numbers_by_which_they_are_found() {
        assert_eq!(group_id("12345").unwrap(), 12345);
        assert_eq!(group_id("root").or_else(|_| group_id("wheel")).unwrap(), 0);
        let error = group_id("no such group").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn no_two_names_are_the_same() {
        let names: std::collections::HashSet<_> = (0..1_000).map(|_| unforetold()).collect();
        assert_eq!(names.len(), 1_000);
        assert!(names.iter().all(|name| name.len() == 12));
    }
}
