//! A program started as a process of its own.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::unix::pipe;
use tokio::sync::{mpsc, oneshot};
use tower_plugins_layers::BoxError;

use super::cgroup::{Cgroup, NoCgroup};
use super::checked;
use super::describe::describe;
use super::dialect::{Start, Stdin};
use super::in_child::{self, InChild};
use super::process::Process;
use super::pty::Pty;
use super::rlimits::{self, AboveOwn};
use super::terminal::{Line, OnTerminal};
use crate::config::{ProcessInput, ProcessLimits, ProcessSpec};

/// What the host's environment has that a child is given.
const PASSED: [&str; 8] = [
    "PATH",
    "HOME",
    "USER",
    "LANG",
    "TZ",
    "TMPDIR",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
];

/// How many processes may wait to be started.
const QUEUE: usize = 64;

/// How often a program is tried again that is open for writing: a process that another thread of the host forks has a
/// copy of each descriptor until it executes.
const BUSY_TRIES: u32 = 10;
const BUSY_PAUSE: Duration = Duration::from_millis(5);

/// How one program is started, as often as need be.
pub(crate) struct Launch {
    executable: PathBuf,
    spec: ProcessSpec,
    /// Takes the terminal of each process.
    pub(super) on_terminal: Option<OnTerminal>,
    /// The bytes that were checked, once they were.
    checked: Mutex<Option<Arc<checked::Program>>>,
}

/// A process that was started, with its streams.
#[derive(Debug)]
pub(crate) struct Spawned {
    pub(crate) process: Process,
    /// There if it is piped.
    pub(crate) stdin: Option<pipe::Sender>,
    pub(crate) stdout: pipe::Receiver,
    pub(crate) stderr: pipe::Receiver,
    /// There with [`ProcessInput::Terminal`].
    pub(crate) terminal: Option<Line>,
}

/// Why a program was not started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotStarted {
    #[error("{0} cannot be run: {1}. {what}", what = describe(.0.as_ref()))]
    Refused(String, io::Error),
    #[error("{0} cannot be run in {1}: {2}")]
    NotIn(String, String, io::Error),
    #[error(
        "`process.pid_namespace` cannot be had: {0}. It takes Linux, and a host that is root or has CAP_SYS_ADMIN"
    )]
    NoNamespace(io::Error),
    #[error("`process.stdin: terminal` cannot be had: {0}")]
    NoTerminal(io::Error),
    #[error(transparent)]
    Unchecked(#[from] checked::Unchecked),
    #[error(transparent)]
    Unlimited(#[from] NoCgroup),
    #[error(transparent)]
    AboveOwn(#[from] AboveOwn),
    #[error("{0}")]
    Host(&'static str, #[source] BoxError),
}

impl NotStarted {
    /// Whether it would be so the next time, too, if nobody changes what there is.
    pub(crate) fn is_lasting(&self) -> bool {
        match self {
            Self::Refused(_, error) | Self::NotIn(_, _, error) | Self::NoNamespace(error) => {
                is_lasting(error)
            }
            Self::Unchecked(checked::Unchecked::Io(_, error)) => is_lasting(error),
            Self::Unchecked(_) | Self::AboveOwn(_) => true,
            Self::Unlimited(no_cgroup) => matches!(no_cgroup, NoCgroup::Missing(_)),
            Self::Host(..) | Self::NoTerminal(_) => false,
        }
    }
}

/// Whether it is what the file is, or where, and not how much else is going on.
fn is_lasting(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidInput, NotADirectory, NotFound, PermissionDenied};

    let is_no_program = error.raw_os_error() == Some(rustix::io::Errno::NOEXEC.raw_os_error());
    let kind = error.kind();
    is_no_program
        || matches!(
            kind,
            InvalidInput | NotADirectory | NotFound | PermissionDenied
        )
}

impl Launch {
    pub(crate) fn new(executable: impl Into<PathBuf>, spec: &ProcessSpec) -> Self {
        Self {
            executable: executable.into(),
            spec: spec.clone(),
            on_terminal: None,
            checked: Mutex::default(),
        }
    }

    /// Has `take` take the terminal of each process, with [`ProcessInput::Terminal`].
    pub(crate) fn on_terminal(mut self, take: Option<OnTerminal>) -> Self {
        self.on_terminal = take;
        self
    }

    /// Starts it, with what `start` says. Within a tokio runtime.
    pub(crate) async fn spawn(&self, start: &Start) -> Result<Spawned, NotStarted> {
        let program = self.program().await?;
        let host = |error: io::Error| NotStarted::Host("its streams cannot be read", error.into());
        let job = Prepared {
            executable: self.executable.clone(),
            command: self.command(program.as_deref(), start),
            in_child: self.in_child(program.as_deref(), start)?,
            limits: self.spec.limits.clone(),
            pid_namespace: self.spec.pid_namespace,
            _program: program,
        };
        let Started {
            mut child,
            process,
            terminal,
        } = fork(job).await?;
        let missing = || io::Error::other("a stream is missing");
        let stdin = child.stdin.take().map(OwnedFd::from);
        let stdin = stdin.map(pipe::Sender::from_owned_fd).transpose();
        let stdout = child.stdout.take().map(OwnedFd::from).ok_or_else(missing);
        let stderr = child.stderr.take().map(OwnedFd::from).ok_or_else(missing);
        Ok(Spawned {
            stdin: stdin.map_err(host)?,
            stdout: stdout
                .and_then(pipe::Receiver::from_owned_fd)
                .map_err(host)?,
            stderr: stderr
                .and_then(pipe::Receiver::from_owned_fd)
                .map_err(host)?,
            terminal: terminal.map(Line::new).transpose().map_err(host)?,
            process,
        })
    }

    /// The checked bytes, where there is a checksum. They are read once: what is run again is what was checked.
    async fn program(&self) -> Result<Option<Arc<checked::Program>>, NotStarted> {
        let Some(checksum) = &self.spec.checksum else {
            return Ok(None);
        };
        let known = || self.checked.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(program) = &*known() {
            return Ok(Some(Arc::clone(program)));
        }
        let (path, checksum) = (self.executable.clone(), *checksum);
        let read = tokio::task::spawn_blocking(move || checked::Program::read(&path, &checksum));
        let program = read.await;
        let program = program
            .map_err(|error| NotStarted::Host("its bytes cannot be checked", error.into()))?;
        let program = Arc::new(program?);
        *known() = Some(Arc::clone(&program));
        Ok(Some(program))
    }

    fn command(&self, program: Option<&checked::Program>, start: &Start) -> Command {
        let spec = &self.spec;
        let mut command = match program {
            None => Command::new(&self.executable),
            Some(program) => Command::new(program.path()),
        };
        command
            .args(&spec.args)
            .env_clear()
            .envs(passed(spec.inherit_env, std::env::vars_os()))
            .envs(spec.env.iter().map(|(name, value)| (name, value.expose())))
            .envs(start.env.iter().map(|(name, value)| (name, value)))
            .stdin(match (start.stdin, spec.stdin) {
                (Stdin::Piped, _) => Stdio::piped(),
                // A terminal is made for each start.
                (Stdin::Null, ProcessInput::None | ProcessInput::Terminal) => Stdio::null(),
                (Stdin::Null, ProcessInput::Inherit) => Stdio::inherit(),
            })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if !self.has_terminal(start) {
            command.process_group(0);
        }
        if let Some(directory) = &spec.work_dir {
            command.current_dir(directory);
        }
        command
    }

    fn has_terminal(&self, start: &Start) -> bool {
        start.stdin == Stdin::Null && self.spec.stdin == ProcessInput::Terminal
    }

    fn in_child(
        &self,
        program: Option<&checked::Program>,
        start: &Start,
    ) -> Result<InChild, AboveOwn> {
        let keep = program.filter(|program| program.is_script());
        Ok(InChild {
            cgroups: Vec::new(),
            rlimits: rlimits::of(&self.spec.rlimits)?,
            umask: self.spec.umask,
            no_new_privileges: self.spec.no_new_privileges,
            terminal: self.has_terminal(start),
            keep: keep.map(|program| program.as_raw_fd()),
            host: None,
        })
    }
}

impl fmt::Debug for Launch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Launch")
            .field("executable", &self.executable)
            .finish_non_exhaustive()
    }
}

/// What a child has of `host`, the host's environment. A variable of the protocol between a host and its plugin is never
/// among it: a plugin that is a host itself would take its own host's for its own.
fn passed(
    all: bool,
    host: impl Iterator<Item = (OsString, OsString)>,
) -> impl Iterator<Item = (OsString, OsString)> {
    let begins = |name: &OsStr, with: &str| name.as_encoded_bytes().starts_with(with.as_bytes());
    host.filter(move |(name, _)| {
        let is_named = PASSED.iter().any(|passed| name == passed) || begins(name, "LC_");
        !begins(name, "PLUGIN_") && (all || is_named)
    })
}

/// One to be started.
struct Prepared {
    executable: PathBuf,
    command: Command,
    in_child: InChild,
    limits: Option<ProcessLimits>,
    pid_namespace: bool,
    /// Open until it is started.
    _program: Option<Arc<checked::Program>>,
}

/// One that was started.
struct Started {
    child: Child,
    process: Process,
    terminal: Option<Pty>,
}

/// One to be started, and who waits for it.
struct Job {
    prepared: Prepared,
    answer: oneshot::Sender<Result<Started, NotStarted>>,
}

/// Starts it on a thread that lives as long as this program: the kernel ends a child with the thread that forked it, and
/// those of a runtime come and go.
async fn fork(prepared: Prepared) -> Result<Started, NotStarted> {
    let launcher = launcher().map_err(|error| NotStarted::Host(NO_THREAD, error.into()))?;
    let (answer, started) = oneshot::channel();
    let job = Job { prepared, answer };
    let no_thread = || NotStarted::Host(NO_THREAD, "it has ended".into());
    launcher.send(job).await.map_err(|_| no_thread())?;
    started.await.map_err(|_| no_thread())?
}

const NO_THREAD: &str = "the thread that starts processes cannot be had";

fn launcher() -> io::Result<mpsc::Sender<Job>> {
    static LAUNCHER: Mutex<Option<mpsc::Sender<Job>>> = Mutex::new(None);
    let mut launcher = LAUNCHER.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(launcher) = launcher.as_ref().filter(|launcher| !launcher.is_closed()) {
        return Ok(launcher.clone());
    }
    let (jobs, mut next) = mpsc::channel::<Job>(QUEUE);
    let run = move || {
        while let Some(job) = next.blocking_recv() {
            // A process that nobody waits for any more ends with its handle.
            drop(job.answer.send(job.prepared.start()));
        }
    };
    let name = "tower-plugins-launcher".to_owned();
    std::thread::Builder::new().name(name).spawn(run)?;
    Ok(launcher.insert(jobs).clone())
}

impl Prepared {
    fn start(mut self) -> Result<Started, NotStarted> {
        let cgroup = self.limits.as_ref().map(Cgroup::make).transpose()?;
        self.in_child.cgroups = cgroup.as_ref().map_or_else(Vec::new, Cgroup::procs);
        let host = self.pid_namespace.then(this_process).transpose();
        let host = host.map_err(NotStarted::NoNamespace)?;
        self.in_child.host = host.as_ref().map(OwnedFd::as_raw_fd);
        let has_terminal = self.in_child.terminal;
        let executable = self.executable.display().to_string();
        let arranged = in_child::arrange(
            &mut self.command,
            self.executable.as_os_str(),
            self.in_child,
        );
        if let Err(error) = arranged {
            return Err(NotStarted::Refused(executable, error));
        }
        let mut tries = 0;
        let (started, terminal) = loop {
            // Anew each time: the end of a child at the head of a session hangs its terminal up.
            let terminal = has_terminal.then(|| Pty::give(&mut self.command));
            let terminal = terminal.transpose().map_err(NotStarted::NoTerminal)?;
            let started = match host {
                Some(_) => in_namespace(&mut self.command),
                None => self.command.spawn(),
            };
            let is_busy = |error: &io::Error| error.kind() == io::ErrorKind::ExecutableFileBusy;
            if tries == BUSY_TRIES || !started.as_ref().is_err_and(is_busy) {
                break (started, terminal);
            }
            tries += 1;
            std::thread::sleep(BUSY_PAUSE);
        };
        let place = cgroup.as_ref().map(Cgroup::shown);
        let started = started.and_then(|child| {
            let process = Process::watch(child.id(), cgroup)?;
            Ok(Started {
                child,
                process,
                terminal,
            })
        });
        started.map_err(|error| match place {
            Some(place) if !is_lasting(&error) => NotStarted::NotIn(executable, place, error),
            _ => NotStarted::Refused(executable, error),
        })
    }
}

/// This process, by a descriptor that stands for it, if it may make namespaces.
#[cfg(target_os = "linux")]
fn this_process() -> io::Result<OwnedFd> {
    use rustix::process::{PidfdFlags, getpid, pidfd_open};

    in_child::in_own_namespace(|| Ok(()))?;
    Ok(pidfd_open(getpid(), PidfdFlags::empty())?)
}

#[cfg(target_os = "linux")]
fn in_namespace(command: &mut Command) -> io::Result<Child> {
    in_child::in_own_namespace(|| command.spawn())
}

#[cfg(not(target_os = "linux"))]
fn this_process() -> io::Result<OwnedFd> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(not(target_os = "linux"))]
fn in_namespace(command: &mut Command) -> io::Result<Child> {
    command.spawn()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(all: bool) -> Vec<String> {
        let host = [
            "PATH",
            "LC_ALL",
            "AWS_SECRET_ACCESS_KEY",
            "PLUGIN_CLIENT_CERT",
            "LCX",
        ];
        let host = host.map(|name| (name.into(), "x".into())).into_iter();
        passed(all, host)
            .map(|(name, _)| name.into_string().unwrap())
            .collect()
    }

    #[test]
    fn a_child_is_given_what_it_needs_and_never_what_is_between_a_host_and_its_plugin() {
        assert_eq!(names(false), ["PATH", "LC_ALL"]);
        assert_eq!(
            names(true),
            ["PATH", "LC_ALL", "AWS_SECRET_ACCESS_KEY", "LCX"]
        );
    }
}
