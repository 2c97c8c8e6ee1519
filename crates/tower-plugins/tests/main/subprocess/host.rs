//! Hosts that are processes of their own, to be looked at and killed.

#![cfg(target_os = "linux")]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use tower_plugins::transport::subprocess::Exited;
use tower_plugins::{Plugin, Plugins};

use super::{PID, ask, asked, is_there, pid, signal, start, which};
use crate::support::{causes, config};

/// Runs the test `name` of this module as a program of its own.
fn host(name: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", "--test-threads=1"])
        .arg(format!("subprocess::host::{name}"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// What it says after `pid `.
fn said_pid(host: &mut Child) -> u32 {
    let lines = BufReader::new(host.stdout.take().unwrap()).lines();
    let mut lines = lines.map(Result::unwrap);
    lines
        .find_map(|line| line.rsplit_once("pid ")?.1.parse().ok())
        .expect("a host that says the id of its plugin")
}

#[test]
#[ignore = "a host that is killed by a test"]
fn that_waits() {
    // Threads that wait for work end soon, and one of them may have forked.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .thread_keep_alive(Duration::from_millis(10))
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let plugins = start(PID, "").await;
        let first = tokio::task::spawn_blocking({
            let plugins = plugins.clone();
            move || tokio::runtime::Handle::current().block_on(pid(&plugins))
        });
        let first = first.await.unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(pid(&plugins).await, first, "it lives on without the thread");
        println!("pid {first}");
        std::future::pending::<()>().await;
    });
}

#[test]
fn a_plugin_dies_with_its_host_within_a_second_and_not_with_a_thread_of_it() {
    let mut host = host("that_waits");
    let plugin = said_pid(&mut host);
    assert!(is_there(plugin));
    host.kill().unwrap();
    let begun = Instant::now();
    host.wait().unwrap();
    while !is_over(plugin) {
        assert!(begun.elapsed() < Duration::from_secs(1));
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Whether the process `pid` is over, be it not waited for.
fn is_over(pid: u32) -> bool {
    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => (stat.rsplit(')').next().unwrap().trim_start()).starts_with('Z'),
        Err(_) => true,
    }
}

#[test]
#[ignore = "a host that is killed by a test"]
fn whose_plugin_has_a_daemon() {
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        // Their ids are those of the host's namespace, as /proc is of that.
        let code = "
def begin(_):
    read, write = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            for fd in range(3):
                os.close(fd)
            os.write(write, os.readlink('/proc/self').encode())
            time.sleep(600)
        os._exit(0)
    return [int(os.readlink('/proc/self')), int(os.read(read, 20))]
serve(begin)
";
        let plugins = start(code, "process: { pid_namespace: true }").await;
        let both = ask(&plugins, "1").await.unwrap();
        println!("pid {}", both[0]);
        println!("pid {}", both[1]);
        std::future::pending::<()>().await;
    });
}

#[test]
fn what_a_plugin_started_in_a_namespace_dies_with_the_host_within_a_second_too() {
    if !super::namespaces() {
        return;
    }
    let mut host = host("whose_plugin_has_a_daemon");
    let lines = BufReader::new(host.stdout.take().unwrap()).lines();
    let pids = lines.filter_map(|line| line.unwrap().rsplit_once("pid ")?.1.parse().ok());
    let pids: Vec<u32> = pids.take(2).collect();
    assert_eq!(pids.len(), 2);
    assert!(pids.iter().all(|pid| !is_over(*pid)));
    host.kill().unwrap();
    let begun = Instant::now();
    host.wait().unwrap();
    while !pids.iter().all(|pid| is_over(*pid)) {
        assert!(begun.elapsed() < Duration::from_secs(1));
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

/// The children of this process, be they over.
pub(crate) fn children() -> Vec<u32> {
    let me = std::process::id().to_string();
    let is_mine = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let after = stat.rsplit(')').next().unwrap_or_default();
        after.split_whitespace().nth(1) == Some(&me)
    };
    let all = std::fs::read_dir("/proc").unwrap();
    let pids = all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(is_mine).collect()
}

/// How many plugins are killed, and how often each.
const PLUGINS: usize = 10;
const KILLS: usize = 100;

/// A plugin that begins at once, and answers with its process id.
const SHELL: &str = r#"while read -r line; do
    id=${line#*\"id\":\"}
    echo "{\"id\":\"${id%%\"*}\",\"result\":$$}"
done"#;

/// What became of calls.
#[derive(Default)]
struct Count {
    well: usize,
    lost: usize,
}

/// Calls `plugin` until `stop`.
async fn load(plugin: &Plugin, stop: &AtomicBool) -> Count {
    let mut count = Count::default();
    while !stop.load(Ordering::Relaxed) {
        match asked(plugin, "null").await {
            Ok(_) => count.well += 1,
            Err(error) => {
                let exited = Exited::find(&error);
                let exited = exited.unwrap_or_else(|| panic!("{}", causes(&error)));
                assert_eq!(exited.signal(), Some(9));
                count.lost += 1;
            }
        }
    }
    count
}

/// The process that answers and is not `last`.
async fn another(plugin: &Plugin, last: u32) -> u32 {
    loop {
        let pid = asked(plugin, "null").await.ok();
        let pid = pid.and_then(|pid| u32::try_from(pid.as_u64()?).ok());
        if let Some(pid) = pid.filter(|pid| *pid != last) {
            return pid;
        }
    }
}

/// Kills `plugin` under load; which process serves in the end.
async fn kill(plugin: &Plugin) -> (Count, u32) {
    let stop = AtomicBool::new(false);
    let kills = async {
        let mut last = another(plugin, 0).await;
        for _ in 0..KILLS {
            for _ in 0..fastrand::u8(..16) {
                let _ = asked(plugin, "null").await;
            }
            signal(last, "-KILL");
            // It serves again.
            last = another(plugin, last).await;
        }
        stop.store(true, Ordering::Relaxed);
        last
    };
    let (a, b, last) = tokio::join!(load(plugin, &stop), load(plugin, &stop), kills);
    let count = Count {
        well: a.well + b.well,
        lost: a.lost + b.lost,
    };
    (count, last)
}

#[test]
#[ignore = "a host that counts what is left in its own process"]
fn whose_plugins_are_killed_under_load() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let args = serde_json::to_string(&["-c", &SHELL.replace("${", "$${")]).unwrap();
        let shell = which("sh").display().to_string();
        let keys = format!(
            "transport: exec-json, executable: '{shell}', args: {args}, retry: off, circuit_breaker: off,
             connection: {{ connection_timeout: 10s, request_timeout: 20s }},
             process: {{ max_restarts: 100000 }}"
        );
        let all: String = (0..PLUGINS)
            .map(|at| format!("p{at}: {{ {keys} }},\n"))
            .collect();
        let plugins = Plugins::builder()
            .start(config(&format!("plugins: {{ {all} }}")))
            .await
            .unwrap();
        let handles: Vec<_> = (0..PLUGINS)
            .map(|at| plugins.plugin(&format!("p{at}")))
            .collect();
        for plugin in &handles {
            another(plugin, 0).await;
        }
        let left = || {
            let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
            (descriptors(), threads(), tasks)
        };
        let before = left();
        let killed = futures_util::future::join_all(handles.iter().map(kill)).await;
        let well: usize = killed.iter().map(|(count, _)| count.well).sum();
        let lost: usize = killed.iter().map(|(count, _)| count.lost).sum();
        println!("{} kills: answered {well}, failed {lost}", PLUGINS * KILLS);
        assert!(well > PLUGINS * KILLS);
        let mut last: Vec<_> = killed.iter().map(|(_, last)| *last).collect();
        let mut there = children();
        last.sort_unstable();
        there.sort_unstable();
        assert_eq!(there, last, "no zombie, and no process beside them");
        let over = async {
            loop {
                let (descriptors, threads, tasks) = left();
                if descriptors <= before.0 && threads <= before.1 && tasks <= before.2 {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        crate::support::within(over).await;
    });
}

#[test]
fn a_thousand_kills_under_load_answer_or_fail_each_call_and_leave_nothing() {
    let output = host("whose_plugins_are_killed_under_load")
        .wait_with_output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let wrong = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{wrong}");
    assert!(said.contains("answered"), "{said}");
    eprintln!("{said}");
}
