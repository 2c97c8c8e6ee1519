//! What a process may use, and what becomes of one that wants more.

#![cfg(target_os = "linux")]

use std::path::{Path, PathBuf};

use tower_plugins::Reason;
use tower_plugins::transport::subprocess::Exited;

use super::{PID, ask, pid, start, until_gone};
use crate::support::{causes, skipped, within};

/// What stands after `begin` in the list of this process's cgroups.
pub(crate) fn cgroup_of(begin: &str) -> String {
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap();
    let line = own.lines().find_map(|line| line.split_once(begin));
    line.map(|(_, path)| path.to_owned()).unwrap_or_default()
}

/// The cgroup that this process is in in the hierarchy that has `controller`, if one can be made there; that of version 2
/// without one.
fn folder(controller: Option<&str>) -> Option<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let point = |kind: &str, option: Option<&str>| {
        let mount = mounts.lines().find(|line| {
            let (_, after) = line.split_once(" - ").unwrap();
            let options = after.rsplit(' ').next().unwrap();
            after.starts_with(&format!("{kind} "))
                && option.is_none_or(|one| options.split(',').any(|other| other == one))
        })?;
        mount.split(' ').nth(4).map(PathBuf::from)
    };
    let below = |point: PathBuf, begin: &str| {
        let own = cgroup_of(begin);
        point.join(own.trim_start_matches('/'))
    };
    let v2 = point("cgroup2", None).map(|point| below(point, "0::"));
    let has = |folder: &PathBuf| {
        let text = std::fs::read_to_string(folder.join("cgroup.controllers")).unwrap_or_default();
        controller.is_none_or(|one| text.split_whitespace().any(|other| other == one))
    };
    let v1 = || {
        let controller = controller?;
        let point = point("cgroup", Some(controller))?;
        Some(below(point, &format!(":{controller}:")))
    };
    v2.filter(has).or_else(v1)
}

/// Whether cgroups with `controller` can be made here.
pub(crate) fn has(controller: Option<&str>) -> bool {
    let probe = folder(controller).map(|folder| folder.join(format!("probe-{:p}", &controller)));
    let is_there = probe.is_some_and(|probe| {
        let controls = |folder: &Path| match controller {
            // One of version 2 has it only if the one above says so.
            Some(controller) => std::fs::read_dir(folder).unwrap().any(|file| {
                let name = file.unwrap().file_name();
                name.to_str()
                    .unwrap()
                    .starts_with(&format!("{controller}."))
            }),
            None => true,
        };
        std::fs::create_dir(&probe).is_ok_and(|()| {
            let controls = controls(&probe);
            std::fs::remove_dir(&probe).unwrap();
            controls
        })
    });
    if !is_there {
        skipped(&format!(
            "cgroup with {}",
            controller.unwrap_or("cgroup.kill")
        ));
    }
    is_there
}

/// The cgroups that this process has made for plugins.
fn made(controller: Option<&str>) -> Vec<PathBuf> {
    let own = format!("tower-plugins-{}-", std::process::id());
    let entries = std::fs::read_dir(folder(controller).unwrap()).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .filter(|path| {
            path.file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .starts_with(&own)
        })
        .collect()
}

/// The cgroup of the process `pid`.
fn group(pid: u32, controller: Option<&str>) -> PathBuf {
    let lists = |path: &PathBuf| {
        let pids = std::fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
        pids.lines().any(|line| line == pid.to_string())
    };
    made(controller).into_iter().find(lists).unwrap()
}

const DAEMON: &str = "
def begin(_):
    read, write = os.pipe()
    if os.fork() == 0:
        os.setsid()
        for fd in range(3):
            os.close(fd)
        os.write(write, str(os.getpid()).encode())
        time.sleep(600)
    return [os.getpid(), int(os.read(read, 20))]
serve(begin)
";

#[tokio::test]
async fn what_left_the_processes_group_ends_with_its_cgroup_which_is_removed() {
    for controller in [None, Some("pids")] {
        if !has(controller) {
            continue;
        }
        let limits = controller.map_or(String::new(), |one| format!("{one}: 100"));
        let plugins = start(DAEMON, &format!("process: {{ limits: {{ {limits} }} }}")).await;
        let both = ask(&plugins, "1").await.unwrap();
        let [first, daemon] = [0, 1].map(|at| u32::try_from(both[at].as_u64().unwrap()).unwrap());
        let group = group(first, controller);
        drop(plugins);
        until_gone(first).await;
        until_over(daemon).await;
        within(async {
            while group.exists() {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        })
        .await;
    }
}

/// Waits until `pid` is over, be it not waited for.
pub(crate) async fn until_over(pid: u32) {
    let is_over = || match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => (stat.rsplit(')').next().unwrap().trim_start()).starts_with('Z'),
        Err(_) => true,
    };
    within(async {
        while !is_over() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_plugin_whose_limits_cannot_be_had_is_not_started() {
    let keys = "limits: { memory: 64MiB, cgroup: /nowhere/at-all }";
    let plugins = start(PID, &format!("process: {{ {keys} }}")).await;
    let error = ask(&plugins, "1").await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::ConnectFailed));
    let said = causes(&error);
    assert!(said.contains("`process.limits` cannot be had"), "{said}");
    let own = std::process::Command::new("sh")
        .args(["-c", "ulimit -Hn"])
        .output();
    let own: u32 = String::from_utf8(own.unwrap().stdout)
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    let keys = format!("rlimits: {{ nofile: {} }}", own + 1);
    let plugins = start(PID, &format!("process: {{ {keys} }}")).await;
    let said = causes(&ask(&plugins, "1").await.unwrap_err());
    assert!(said.contains("`process.rlimits.nofile` is"), "{said}");
}

#[test]
fn what_a_killed_host_left_in_its_cgroup_ends_when_the_next_makes_one() {
    if !has(None) {
        return;
    }
    let name =
        "subprocess::limits::what_a_killed_host_left_in_its_cgroup_ends_when_the_next_makes_one";
    crate::alone::alone(name, || {
        // The place of a host that is gone: nobody holds its lock.
        let left = folder(None).unwrap().join("tower-plugins-1-00000000");
        std::fs::create_dir_all(&left).unwrap();
        let mut sleeper = std::process::Command::new("sleep")
            .arg("600")
            .spawn()
            .unwrap();
        std::fs::write(left.join("cgroup.procs"), sleeper.id().to_string()).unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            pid(&start(PID, "process: { limits: {} }").await).await;
        });
        assert!(!sleeper.wait().unwrap().success());
        assert!(!left.exists());
    });
}

#[tokio::test]
async fn one_that_is_out_of_memory_says_so_and_is_started_again() {
    if !has(Some("memory")) {
        return;
    }
    let code = "
def answer(n):
    held = b'x' * n
    return os.getpid()
serve(answer)
";
    let plugins = start(code, "process: { limits: { memory: 64MiB } }").await;
    let first = pid_of(&plugins).await;
    let error = ask(&plugins, "200000000").await.unwrap_err();
    assert!(Exited::find(&error).unwrap().is_out_of_memory());
    assert_ne!(pid_of(&plugins).await, first);
    pid_of(&plugins).await;
}

async fn pid_of(plugins: &tower_plugins::Plugins) -> u32 {
    let pid = ask(plugins, "1").await.unwrap();
    u32::try_from(pid.as_u64().unwrap()).unwrap()
}
