//! A cgroup of a process's own: what bounds what it and all it starts may use, and ends with it.
//!
//! It is one folder in the hierarchy of version 2, where that has the controllers that are needed, and one in each of
//! version 1 for those that it does not have.

mod hierarchy;

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

use self::hierarchy::{Hierarchy, hierarchies};
use crate::config::ProcessLimits;

/// What the folders made here are called; then come the host's process id and a number.
const PREFIX: &str = "tower-plugins-";

/// How often a folder is tried again to be removed, which takes until the kernel is done with the last process in it.
const REMOVE_TRIES: u32 = 400;
const REMOVE_PAUSE: Duration = Duration::from_millis(5);

/// The kernel hands out processor time anew each tenth of a second.
const PERIOD: f64 = 100_000.0;

/// The cgroup of one process. Dropping it ends all that is in it, and removes it.
#[derive(Debug)]
pub(crate) struct Cgroup(Vec<Folder>);

/// Its folder in one hierarchy.
#[derive(Debug)]
struct Folder {
    path: PathBuf,
    is_v2: bool,
    /// What writes `0` to it is in the cgroup.
    procs: File,
    /// Locked as long as its host lives.
    _lock: File,
}

/// Why there is no cgroup.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoCgroup {
    #[error("`process.limits` cannot be had: {0}")]
    Missing(String),
    #[error("`process.limits` cannot be had: {0}: {1}")]
    Io(String, io::Error),
}

/// A file of a controller, and what is written into it.
struct Setting {
    file: &'static str,
    value: String,
    /// Whether a kernel may be without it.
    is_optional: bool,
}

impl Cgroup {
    /// A new one that holds what is put into it to `limits`. This blocks, for as long as a few files take.
    pub(super) fn make(limits: &ProcessLimits) -> Result<Self, NoCgroup> {
        let asked = [
            ("memory", limits.memory.is_some()),
            ("cpu", limits.cpu.is_some()),
            ("pids", limits.pids.is_some()),
        ];
        let asked = asked.into_iter().filter(|(_, is_asked)| *is_asked);
        let asked: Vec<_> = asked.map(|(controller, _)| controller).collect();
        let mut folders = Vec::new();
        for (hierarchy, controllers) in chosen(&asked, limits.cgroup.as_deref())? {
            let folder = Folder::make(&hierarchy, &controllers)?;
            // Those before it are removed when one cannot be had.
            folders.push(folder);
            let folder = &folders[folders.len() - 1];
            for controller in controllers {
                settings(controller, limits, hierarchy.is_v2)
                    .into_iter()
                    .try_for_each(|setting| folder.set(&setting))?;
            }
        }
        Ok(Self(folders))
    }

    /// What a child writes `0` to, to be in it with all it starts.
    pub(super) fn procs(&self) -> Vec<RawFd> {
        let procs = self.0.iter().map(|folder| folder.procs.as_raw_fd());
        procs.collect()
    }

    /// Kills all that is in it.
    pub(super) fn kill(&self) {
        self.0.iter().for_each(Folder::kill);
    }

    /// Whether something in it was killed because it needed more memory.
    pub(super) fn ran_out_of_memory(&self) -> bool {
        self.0.iter().any(Folder::ran_out_of_memory)
    }

    /// Ends all that is in it, and removes it, once. This blocks, as long as that takes.
    pub(super) fn remove(&self) {
        for folder in &self.0 {
            remove(&folder.path, folder.is_v2);
        }
    }

    /// Where it is, for a message.
    pub(super) fn shown(&self) -> String {
        let paths = self
            .0
            .iter()
            .map(|folder| folder.path.display().to_string());
        paths.collect::<Vec<_>>().join(", ")
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        self.remove();
    }
}

/// The hierarchies that have what is `asked`, and what of that each is for.
fn chosen<'a>(
    asked: &[&'a str],
    below: Option<&str>,
) -> Result<Vec<(Hierarchy, Vec<&'a str>)>, NoCgroup> {
    let mut all: Vec<_> = hierarchies(below)?
        .into_iter()
        .map(|hierarchy| (hierarchy, Vec::new()))
        .collect();
    for controller in asked {
        let with = all.iter_mut().find(|(one, _)| one.has(controller));
        let (_, controllers) = with.ok_or_else(|| {
            let why = format!("no cgroup of this program has the controller `{controller}`");
            NoCgroup::Missing(why)
        })?;
        controllers.push(*controller);
    }
    if asked.is_empty() {
        all.retain(|(one, _)| one.is_v2);
    } else {
        all.retain(|(_, controllers)| !controllers.is_empty());
    }
    if all.is_empty() {
        let why = "there are no cgroups of version 2 here".to_owned();
        return Err(NoCgroup::Missing(why));
    }
    Ok(all)
}

fn settings(controller: &str, limits: &ProcessLimits, is_v2: bool) -> Vec<Setting> {
    let must = |file, value: String| Setting {
        file,
        value,
        is_optional: false,
    };
    let may = |file, value: String| Setting {
        is_optional: true,
        ..must(file, value)
    };
    match (controller, is_v2) {
        ("memory", true) => limits.memory.map_or_else(Vec::new, |bytes| {
            vec![
                must("memory.max", bytes.to_string()),
                may("memory.swap.max", "0".to_owned()),
                may("memory.oom.group", "1".to_owned()),
            ]
        }),
        ("memory", false) => limits.memory.map_or_else(Vec::new, |bytes| {
            vec![
                must("memory.limit_in_bytes", bytes.to_string()),
                may("memory.memsw.limit_in_bytes", bytes.to_string()),
            ]
        }),
        ("cpu", _) => limits.cpu.map_or_else(Vec::new, |cpus| {
            let quota = (cpus.get() * PERIOD).round();
            match is_v2 {
                true => vec![must("cpu.max", format!("{quota} {PERIOD}"))],
                false => vec![
                    must("cpu.cfs_period_us", PERIOD.to_string()),
                    must("cpu.cfs_quota_us", quota.to_string()),
                ],
            }
        }),
        _ => limits
            .pids
            .map_or_else(Vec::new, |pids| vec![must("pids.max", pids.to_string())]),
    }
}

impl Folder {
    fn make(hierarchy: &Hierarchy, controllers: &[&str]) -> Result<Self, NoCgroup> {
        let parent = &hierarchy.parent;
        sweep(hierarchy);
        hierarchy.enable(controllers)?;
        loop {
            let name = format!("{PREFIX}{}-{:08x}", std::process::id(), fastrand::u32(..));
            let path = parent.join(name);
            match fs::create_dir(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(NoCgroup::at(&path, error)),
            }
            match Self::open(&path, hierarchy.is_v2) {
                // One that was swept away before it was locked.
                Ok(None) => {}
                Ok(Some(folder)) => return Ok(folder),
                Err(error) => {
                    let _ = fs::remove_dir(&path);
                    return Err(NoCgroup::at(&path, error));
                }
            }
        }
    }

    fn open(path: &Path, is_v2: bool) -> io::Result<Option<Self>> {
        let open = || {
            let lock = File::open(path)?;
            flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
            let procs = OpenOptions::new()
                .write(true)
                .open(path.join("cgroup.procs"))?;
            Ok((lock, procs))
        };
        match open() {
            Ok((lock, procs)) => Ok(Some(Self {
                path: path.to_owned(),
                is_v2,
                procs,
                _lock: lock,
            })),
            Err(_) if !path.exists() => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn set(&self, setting: &Setting) -> Result<(), NoCgroup> {
        let path = self.path.join(setting.file);
        match write(&path, &setting.value) {
            Err(_) if setting.is_optional => Ok(()),
            Err(error) => Err(NoCgroup::at(&path, error)),
            Ok(()) => Ok(()),
        }
    }

    fn kill(&self) {
        kill(&self.path, self.is_v2);
    }

    fn ran_out_of_memory(&self) -> bool {
        let file = match self.is_v2 {
            true => "memory.events",
            false => "memory.oom_control",
        };
        let text = fs::read_to_string(self.path.join(file)).unwrap_or_default();
        let killed = text
            .lines()
            .find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok());
        killed.unwrap_or(0_u64) > 0
    }
}

impl NoCgroup {
    fn at(path: &Path, error: io::Error) -> Self {
        Self::Io(path.display().to_string(), error)
    }
}

fn write(path: &Path, value: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).open(path)?;
    file.write_all(value.as_bytes())
}

fn kill(path: &Path, is_v2: bool) {
    if is_v2 && write(&path.join("cgroup.kill"), "1").is_ok() {
        return;
    }
    #[cfg(target_os = "linux")]
    kill_each(path);
}

/// Kills those in it, each by a descriptor that stands for it and for no other that comes to have its id.
#[cfg(target_os = "linux")]
fn kill_each(path: &Path) {
    use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

    let pids = || {
        let text = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
        let pids = text
            .lines()
            .filter_map(|line| Pid::from_raw(line.parse().ok()?));
        pids.collect::<Vec<_>>()
    };
    let opened: Vec<_> = pids()
        .into_iter()
        .filter_map(|pid| Some((pid, pidfd_open(pid, PidfdFlags::empty()).ok()?)))
        .collect();
    let still = pids();
    for (pid, process) in opened {
        if still.contains(&pid) {
            let _ = pidfd_send_signal(process, Signal::KILL);
        }
    }
}

/// Ends what is in the cgroup at `path`, and removes it.
fn remove(path: &Path, is_v2: bool) {
    for _ in 0..REMOVE_TRIES {
        match fs::remove_dir(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {}
            _ => return,
        }
        kill(path, is_v2);
        std::thread::sleep(REMOVE_PAUSE);
    }
    tracing::warn!(
        path = %path.display(),
        "the cgroup of a plugin that ended cannot be removed: the next host that makes one beside it tries again"
    );
}

/// Ends what hosts that were killed left in their cgroups, once for each place.
fn sweep(hierarchy: &Hierarchy) {
    static SWEPT: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
    let parent = &hierarchy.parent;
    let mut swept = SWEPT.lock().unwrap_or_else(PoisonError::into_inner);
    if !swept.insert(parent.clone()) {
        return;
    }
    drop(swept);
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let is_ours = (entry.file_name().to_str()).is_some_and(|name| name.starts_with(PREFIX));
        let Ok(lock) = File::open(entry.path()) else {
            continue;
        };
        // Its host holds the lock as long as it lives.
        if is_ours && flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
            remove(&entry.path(), hierarchy.is_v2);
        }
    }
}

#[cfg(test)]
mod tests;
