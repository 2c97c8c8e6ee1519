//! Hosts that are processes of their own, to be looked at and killed.

#![cfg(target_os = "linux")]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::time::Instant;
use tower_plugins::transport::subprocess::Exited;

use super::{PID, ask, is_there, pid, signal, start};
use crate::support::causes;

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
    let is_over = || match std::fs::read_to_string(format!("/proc/{plugin}/stat")) {
        Ok(stat) => stat
            .rsplit(')')
            .next()
            .unwrap()
            .trim_start()
            .starts_with('Z'),
        Err(_) => true,
    };
    while !is_over() {
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
fn children() -> Vec<u32> {
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

const KILLS: usize = 100;

#[test]
#[ignore = "a host that counts what is left in its own process"]
fn whose_plugin_is_killed_under_load() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let keys = "connection: { connection_timeout: 10s, request_timeout: 20s },
                    process: { max_restarts: 100000 }";
        let plugins = start(PID, keys).await;
        let before = (pid(&plugins).await, descriptors(), threads());
        let stop = std::sync::atomic::AtomicBool::new(false);
        let load = async || {
            let (mut well, mut lost) = (0, 0);
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                match ask(&plugins, "null").await {
                    Ok(_) => well += 1,
                    Err(error) => {
                        let exited = Exited::find(&error);
                        let exited = exited.unwrap_or_else(|| panic!("{}", causes(&error)));
                        assert_eq!(exited.signal(), Some(9));
                        lost += 1;
                    }
                }
            }
            (well, lost)
        };
        let kills = async {
            let mut last = before.0;
            for _ in 0..KILLS {
                signal(last, "-KILL");
                // It serves again.
                last = loop {
                    match ask(&plugins, "null").await {
                        Ok(pid) if pid != last => {
                            break u32::try_from(pid.as_u64().unwrap()).unwrap();
                        }
                        _ => {}
                    }
                };
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        };
        let (a, b, c, ()) = tokio::join!(load(), load(), load(), kills);
        let (well, lost) = (a.0 + b.0 + c.0, a.1 + b.1 + c.1);
        println!("answered {well}, failed {lost}");
        let last = pid(&plugins).await;
        assert!(well > KILLS);
        assert_eq!(children(), [last], "no zombie, and no process beside it");
        let left = async {
            while (descriptors(), threads()) > (before.1, before.2) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        crate::support::within(left).await;
    });
}

#[test]
fn a_hundred_kills_under_load_answer_or_fail_each_call_and_leave_nothing() {
    let output = host("whose_plugin_is_killed_under_load")
        .wait_with_output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let wrong = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{wrong}");
    assert!(said.contains("answered"), "{said}");
    eprintln!("{said}");
}
