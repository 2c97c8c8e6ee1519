//! A pseudo-terminal, before there is a process on it.

use std::io;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use rustix::termios::{Winsize, tcsetwinsize};

/// Rows and columns that it begins with.
const SIZE: (u16, u16) = (24, 80);

/// Its two ends, which no program has after exec.
#[derive(Debug)]
pub(super) struct Pty {
    /// This program's, which does not block.
    pub(super) master: OwnedFd,
    /// The process's.
    pub(super) slave: OwnedFd,
}

impl Pty {
    /// A new one, which is the standard input of what `command` starts.
    pub(super) fn give(command: &mut Command) -> io::Result<Self> {
        let (master, slave) = pair()?;
        rustix::io::ioctl_fionbio(&master, true)?;
        tcsetwinsize(&master, size(SIZE.0, SIZE.1))?;
        command.stdin(Stdio::from(slave.try_clone()?));
        Ok(Self { master, slave })
    }
}

pub(super) fn size(rows: u16, columns: u16) -> Winsize {
    Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}

#[cfg(any(
    target_os = "android",
    target_os = "freebsd",
    target_os = "linux",
    target_os = "macos"
))]
fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    use rustix::fs::{Mode, OFlags};
    use rustix::io::{FdFlags, fcntl_setfd};
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY;
    #[cfg(not(target_os = "macos"))]
    let flags = flags | OpenptFlags::CLOEXEC;
    let master = openpt(flags)?;
    fcntl_setfd(&master, FdFlags::CLOEXEC)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let path = ptsname(&master, Vec::new())?;
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let slave = rustix::fs::open(path, flags, Mode::empty())?;
    Ok((master, slave))
}

#[cfg(not(any(
    target_os = "android",
    target_os = "freebsd",
    target_os = "linux",
    target_os = "macos"
)))]
fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Err(io::ErrorKind::Unsupported.into())
}
