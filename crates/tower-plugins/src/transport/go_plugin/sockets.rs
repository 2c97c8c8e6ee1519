//! The directory for a plugin's sockets.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use tower_plugins_proto::go_plugin::socket::{Listen, group_id};

use super::sweep::{self, PREFIX};
use crate::config::GoPluginSpec;

/// How often a name may be taken already.
const TRIES: u32 = 16;

/// A directory of one process's own, which is removed when this is dropped, with all in it, and with the socket that the plugin made
/// elsewhere: an older one does not look where it should.
#[derive(Debug)]
pub(super) struct Sockets {
    directory: PathBuf,
    /// What says that it is not left behind.
    _lock: File,
    elsewhere: OnceLock<PathBuf>,
}

impl Sockets {
    /// Makes one, that its owner can use, and the group that `spec` says.
    pub(super) fn create(spec: &GoPluginSpec) -> io::Result<Self> {
        let base = spec.socket_dir.clone().unwrap_or_else(std::env::temp_dir);
        sweep::sweep(&base);
        let (directory, lock) = new_directory(&base).map_err(|error| {
            let message = format!(
                "no directory for the plugin's sockets can be made in {}: {error}; see go_plugin.socket_dir",
                base.display()
            );
            io::Error::new(error.kind(), message)
        })?;
        let this = Self {
            directory,
            _lock: lock,
            elsewhere: OnceLock::new(),
        };
        if let Some(group) = &spec.socket_group {
            this.give_to(group).map_err(|error| {
                let message = format!(
                    "the directory for the plugin's sockets cannot be given to go_plugin.socket_group, {group:?}: {error}"
                );
                io::Error::new(error.kind(), message)
            })?;
        }
        Ok(this)
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The plugin listens at `path`.
    pub(super) fn is_at(&self, path: &Path) {
        if !path.starts_with(&self.directory) {
            let _ = self.elsewhere.set(path.to_owned());
        }
    }

    /// How this side listens for connections beside the first, where each has a socket of its own.
    pub(super) fn listen(&self, spec: &GoPluginSpec) -> Listen {
        let listen = Listen::unix().directory(&self.directory);
        match &spec.socket_group {
            Some(group) => listen.group(group),
            None => listen,
        }
    }

    fn give_to(&self, group: &str) -> io::Result<()> {
        chown(&self.directory, None, Some(group_id(group)?))?;
        fs::set_permissions(&self.directory, fs::Permissions::from_mode(0o770))
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
        if let Some(path) = self.elsewhere.get() {
            let is_socket = fs::symlink_metadata(path).is_ok_and(|it| it.file_type().is_socket());
            if is_socket {
                let _ = fs::remove_file(path);
            }
        }
    }
}

fn new_directory(base: &Path) -> io::Result<(PathBuf, File)> {
    let mut builder = fs::DirBuilder::new();
    builder.mode(0o700);
    for _ in 0..TRIES {
        let name = format!("{PREFIX}{:08x}", fastrand::u32(..));
        let directory = base.join(name);
        match builder.create(&directory) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
            Ok(()) => match sweep::lock(&directory) {
                // It was taken for one that was left.
                Ok(None) => {}
                Ok(Some(lock)) => return Ok((directory, lock)),
                Err(error) => {
                    let _ = fs::remove_dir(&directory);
                    return Err(error);
                }
            },
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn the_directory_is_its_owners_and_goes_with_all_in_it() {
        let base = std::env::temp_dir();
        let spec = GoPluginSpec {
            socket_dir: Some(base.clone()),
            ..GoPluginSpec::default()
        };
        let sockets = Sockets::create(&spec).unwrap();
        let directory = sockets.directory().to_owned();
        let mode = fs::metadata(&directory).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        let _inside = UnixListener::bind(directory.join("a")).unwrap();
        let elsewhere = base.join(format!("tower-plugins-test-{:08x}", fastrand::u32(..)));
        let _elsewhere = UnixListener::bind(&elsewhere).unwrap();
        sockets.is_at(&directory.join("a"));
        sockets.is_at(&elsewhere);
        drop(sockets);
        assert!(!directory.exists() && !elsewhere.exists());
    }

    #[test]
    fn what_is_no_socket_is_not_removed() {
        let sockets = Sockets::create(&GoPluginSpec::default()).unwrap();
        let file = std::env::temp_dir().join(format!("tower-plugins-{:08x}", fastrand::u32(..)));
        fs::write(&file, "mine").unwrap();
        sockets.is_at(&file);
        drop(sockets);
        assert_eq!(fs::read(&file).unwrap(), b"mine");
        fs::remove_file(&file).unwrap();
    }
}
