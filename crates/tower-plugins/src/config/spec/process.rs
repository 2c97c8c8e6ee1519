//! `args`, `env`, `work_dir` and `process`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::super::{Number, Secret};

/// How the process of a plugin is started, and what is done when it ends: of a plugin that is an executable
/// (`transport: exec-json` or `subprocess`).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProcessSpec {
    /// What it is given as arguments (`args`).
    pub args: Vec<String>,
    /// What its environment has beside what is passed on (`env`).
    pub env: BTreeMap<String, Secret>,
    /// The directory that it begins in; `None` is that of this program (`work_dir`).
    pub work_dir: Option<PathBuf>,
    /// Whether all of this program's environment is passed on, less what begins with `PLUGIN_`.
    pub inherit_env: bool,
    /// What the bytes of the executable must be.
    pub checksum: Option<Checksum>,
    /// Whether a change of the executable is a change of the config that names it.
    pub watch: bool,
    /// What the bytes of the executable were when the config was read, with `watch`.
    pub digest: Option<Checksum>,
    /// What it reads on its standard input, where its protocol does not use that.
    pub stdin: ProcessInput,
    /// The mode bits that files it makes do not get; `None` are those of this program.
    pub umask: Option<u32>,
    /// Whether it, and what it starts, can gain no privileges by executing a file (on Linux).
    pub no_new_privileges: bool,
    /// Whether it is the first process of a PID namespace of its own (on Linux), so that all it starts ends with it, and
    /// with this program.
    pub pid_namespace: bool,
    /// What it and all it starts may use together, by a cgroup of its own (on Linux); `None` is no cgroup.
    pub limits: Option<ProcessLimits>,
    /// What it, and each process that it starts, may use.
    pub rlimits: Rlimits,
    /// How long it may take from its start until calls can go to it.
    pub start_timeout: Duration,
    /// How long it may take to end when it is asked to.
    pub stop_timeout: Duration,
    /// How long it may be without a call until it is stopped, and started again by the next; `None` is for ever.
    pub idle_timeout: Option<Duration>,
    /// When another is started in its place.
    pub restart: Restart,
    /// How often that is done within `restart_window`, until no more are started before it is over.
    pub max_restarts: u32,
    /// The time in which restarts are counted.
    pub restart_window: Duration,
}

/// `process.limits`: what a process and all it starts may use together. They are a cgroup of their own, which ends with the
/// process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProcessLimits {
    /// Bytes of memory. What needs more is killed.
    pub memory: Option<u64>,
    /// Processors' time for each second that passes.
    pub cpu: Option<Number>,
    /// Processes and threads.
    pub pids: Option<u32>,
    /// The cgroup in which theirs is made, as `/proc/self/cgroup` writes it, or relative to this program's own; `None` is
    /// that.
    pub cgroup: Option<String>,
}

/// `process.rlimits`: what one process may use, and each that it starts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rlimits {
    /// Open descriptors.
    pub nofile: Option<u32>,
    /// Bytes of address space.
    pub address_space: Option<u64>,
    /// Bytes of a core file.
    pub core: Option<u64>,
    /// Bytes of a file that it writes.
    pub fsize: Option<u64>,
    /// Processor time, in seconds.
    pub cpu: Option<u32>,
    /// Processes and threads of its user.
    pub nproc: Option<u32>,
}

/// `process.restart`: when a process that ended is started again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Restart {
    /// `always`.
    #[default]
    Always,
    /// `on-failure`: unless it exited with the code 0.
    OnFailure,
    /// `never`.
    Never,
}

/// `process.stdin`: the standard input of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ProcessInput {
    /// `none`: it is at its end.
    #[default]
    None,
    /// `inherit`: this program's.
    Inherit,
    /// `terminal`: a pseudo-terminal of its own, which is its controlling terminal too.
    Terminal,
}

/// The SHA-256 of a file. As text it is `sha256:` and 64 hexadecimal digits, as `sha256sum` prints them.
///
/// ```
/// use tower_plugins::config::Checksum;
///
/// let text = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
/// let checksum: Checksum = text.parse()?;
/// assert_eq!(checksum.to_string(), text);
/// # Ok::<(), tower_plugins::config::InvalidChecksum>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Checksum([u8; 32]);

impl Checksum {
    /// The checksum `sha256`.
    #[must_use]
    pub const fn sha256(sha256: [u8; 32]) -> Self {
        Self(sha256)
    }
}

/// A text that is no [`Checksum`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not `sha256:` and 64 hexadecimal digits")]
pub struct InvalidChecksum;

impl FromStr for Checksum {
    type Err = InvalidChecksum;

    fn from_str(text: &str) -> Result<Self, InvalidChecksum> {
        let digits = text.strip_prefix("sha256:").ok_or(InvalidChecksum)?;
        if digits.len() != 64 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(InvalidChecksum);
        }
        let mut bytes = [0; 32];
        for (byte, at) in bytes.iter_mut().zip((0..64).step_by(2)) {
            let pair = digits.get(at..at + 2).ok_or(InvalidChecksum)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| InvalidChecksum)?;
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
