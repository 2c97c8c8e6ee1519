//! What a child does between fork and exec: the one place of this workspace with `unsafe`.
#![allow(
    unsafe_code,
    reason = "std has no safe way to run code between fork and exec, and none to ask for a signal when the parent dies"
)]

use std::ffi::{CString, OsStr, c_char};
use std::io;
use std::iter::once;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::{Resource, Rlimit};

const STDIN: RawFd = 0;

/// What a child asks of the kernel about itself.
#[derive(Clone, Debug)]
pub(super) struct InChild {
    /// The cgroups to be in, by their `cgroup.procs`.
    pub(super) cgroups: Vec<RawFd>,
    pub(super) rlimits: Vec<(Resource, u64)>,
    pub(super) umask: Option<u32>,
    pub(super) no_new_privileges: bool,
    /// Whether its standard input is a terminal, which is to be its own, at the head of a session.
    pub(super) terminal: bool,
    /// A descriptor that the program is to have open after exec.
    pub(super) keep: Option<RawFd>,
    /// The host, for a child that is in a namespace of its own, and sees no parent.
    pub(super) host: Option<RawFd>,
}

/// Has the child do what `what` says, execute the program of `command` under the name `name`, and die with the thread that forks it. The
/// descriptors of `what` are open until then. What `command` has of this program's environment is not seen, and cleared therefore.
pub(super) fn arrange(command: &mut Command, name: &OsStr, what: InChild) -> io::Result<()> {
    let program = Program::of(command, name)?;
    let parent = rustix::process::getpid();
    let prepare = move || {
        // First of all, so that nothing of it is outside.
        for fd in &what.cgroups {
            // SAFETY: the launcher keeps it open until the child has been made.
            let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(*fd) };
            // Whoever writes it.
            rustix::io::write(fd, b"0")?;
        }
        #[cfg(target_os = "linux")]
        {
            let signal = Some(rustix::process::Signal::KILL);
            rustix::process::set_parent_process_death_signal(signal)?;
            if what.no_new_privileges {
                rustix::thread::set_no_new_privs(true)?;
            }
        }
        // It may have died before the signal was asked for.
        let is_orphan = match what.host {
            #[cfg(target_os = "linux")]
            Some(host) => is_over(host)?,
            _ => rustix::process::getppid() != Some(parent),
        };
        if is_orphan {
            return Err(io::Error::from(rustix::io::Errno::SRCH));
        }
        if what.terminal {
            // It leads a group of its own with that.
            rustix::process::setsid()?;
            // SAFETY: it is open, as the standard input is put in place before.
            let terminal = unsafe { std::os::fd::BorrowedFd::borrow_raw(STDIN) };
            rustix::process::ioctl_tiocsctty(terminal)?;
        }
        if let Some(mask) = what.umask {
            rustix::process::umask(rustix::fs::Mode::from_raw_mode(mask as _));
        }
        for (resource, limit) in &what.rlimits {
            let limit = Rlimit {
                current: Some(*limit),
                maximum: Some(*limit),
            };
            rustix::process::setrlimit(*resource, limit)?;
        }
        if let Some(fd) = what.keep {
            // SAFETY: the launcher keeps it open until the child has been made.
            let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) };
            rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty())?;
        }
        // What `Command` would call comes to `/bin/sh` with what the kernel does not know.
        Err(program.execute())
    };
    // SAFETY: between fork and exec only system calls that are safe in a signal handler are made: each of these is one
    // call of the kernel, and nothing is allocated or locked.
    unsafe {
        command.pre_exec(prepare);
    }
    Ok(())
}

/// A program as the kernel takes it: made before the fork, as nothing can be allocated after it.
struct Program {
    path: CString,
    /// They point into `texts`, and end with a null.
    arguments: Vec<*const c_char>,
    environment: Vec<*const c_char>,
    _texts: (Vec<CString>, Vec<CString>),
}

// SAFETY: what its pointers point to is its own, and nobody changes it.
unsafe impl Send for Program {}
// SAFETY: the same.
unsafe impl Sync for Program {}

impl Program {
    fn of(command: &Command, name: &OsStr) -> io::Result<Self> {
        let text = |text: &OsStr| CString::new(text.as_bytes());
        let arguments = once(name).chain(command.get_args()).map(text);
        let arguments = arguments.collect::<Result<Vec<_>, _>>()?;
        let variables = command.get_envs();
        let variables = variables.filter_map(|(name, value)| Some((name, value?)));
        let environment = variables.map(|(name, value)| {
            let variable = [name.as_bytes(), b"=", value.as_bytes()].concat();
            CString::new(variable)
        });
        let environment = environment.collect::<Result<Vec<_>, _>>()?;
        let pointers = |texts: &[CString]| {
            let each = texts.iter().map(|text| text.as_ptr());
            each.chain(once(std::ptr::null())).collect()
        };
        Ok(Self {
            path: text(command.get_program())?,
            arguments: pointers(&arguments),
            environment: pointers(&environment),
            _texts: (arguments, environment),
        })
    }

    /// Does not come back unless it fails.
    fn execute(&self) -> io::Error {
        // SAFETY: all of them are texts that end with a zero, and lists of such that end with a null, and are there until this ends.
        unsafe {
            libc::execve(
                self.path.as_ptr(),
                self.arguments.as_ptr(),
                self.environment.as_ptr(),
            );
        }
        io::Error::last_os_error()
    }
}

/// Whether the process of the descriptor `process` has ended.
#[cfg(target_os = "linux")]
fn is_over(process: RawFd) -> io::Result<bool> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    // SAFETY: the launcher keeps it open until the child has been made.
    let process = unsafe { std::os::fd::BorrowedFd::borrow_raw(process) };
    let mut polled = [PollFd::from_borrowed_fd(process, PollFlags::IN)];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    Ok(poll(&mut polled, Some(&now))? > 0)
}

/// What `fork` gives, called on a thread whose next child is the first process of a PID namespace of its own.
///
/// # Panics
///
/// If the thread cannot go back to its own namespace, as it must not fork again then.
#[cfg(target_os = "linux")]
pub(super) fn in_own_namespace<T>(fork: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    use std::os::fd::AsFd;

    use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

    let own = std::fs::File::open("/proc/thread-self/ns/pid")?;
    // SAFETY: of what may be unshared it is descriptors that are dangerous, and they are not.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWPID)? };
    let forked = fork();
    let kind = Some(LinkNameSpaceType::ProcessID);
    let is_back = move_into_link_name_space(own.as_fd(), kind).is_ok();
    assert!(is_back, "a thread that left a namespace may go back to it");
    forked
}
