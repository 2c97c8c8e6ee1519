//! Plugins that are killed under load.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tower_plugins::transport::subprocess::Exited;
use tower_plugins::{Plugin, Plugins};
use tower_plugins_interop::peer::peer_client::PeerClient;
use tower_plugins_interop::peer::{Empty, Number};
use tower_plugins_interop::{Version, go};

use super::{keys, within};
use crate::support::MODES;

/// Of each mode as many plugins.
const PLUGINS: usize = 3;

/// How often each is killed: a thousand times in all, and a few for each to begin with.
const KILLS: usize = 84;

#[derive(Default)]
struct Count {
    well: usize,
    lost: usize,
}

/// Calls until `stop`: each call is answered, or fails with how its process ended.
async fn load(plugin: Plugin, stop: &AtomicBool) -> Count {
    let (mut peer, mut count) = (PeerClient::new(plugin), Count::default());
    while !stop.load(Ordering::Relaxed) {
        match within(peer.double(Number { value: 21 })).await {
            Ok(answer) => {
                assert_eq!(answer.into_inner().value, 42);
                count.well += 1;
            }
            Err(status) => {
                let source = std::error::Error::source(&status).expect("it has a source");
                let exited = Exited::find(source).unwrap_or_else(|| panic!("{status:?}"));
                assert_eq!(exited.signal(), Some(9), "{status:?}");
                count.lost += 1;
            }
        }
    }
    count
}

/// The process that answers and is not `last`.
async fn another(plugin: &Plugin, last: i32) -> i32 {
    let mut peer = PeerClient::new(plugin.clone());
    let another = async {
        loop {
            if let Ok(said) = peer.describe(Empty {}).await
                && said.get_ref().pid != last
            {
                return said.into_inner().pid;
            }
        }
    };
    within(another).await
}

async fn kill(plugin: Plugin) -> Count {
    let stop = AtomicBool::new(false);
    let kills = async {
        let mut last = another(&plugin, 0).await;
        for _ in 0..KILLS {
            let killed = std::process::Command::new("kill")
                .args(["-KILL", &last.to_string()])
                .status();
            assert!(killed.unwrap().success());
            last = another(&plugin, last).await;
        }
        stop.store(true, Ordering::Relaxed);
    };
    let (one, two) = (load(plugin.clone(), &stop), load(plugin.clone(), &stop));
    let (one, two, ()) = tokio::join!(one, two, kills);
    Count {
        well: one.well + two.well,
        lost: one.lost + two.lost,
    }
}

/// What this program has: descriptors, threads, tasks, and the children among all processes.
fn left() -> [usize; 4] {
    let count = |path: &str| std::fs::read_dir(path).unwrap().count();
    let me = std::process::id().to_string();
    let is_mine = |entry: &std::fs::DirEntry| {
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let after = stat.rsplit(')').next().unwrap_or_default();
        after.split_whitespace().nth(1) == Some(&me)
    };
    let all = std::fs::read_dir("/proc").unwrap();
    let children = all.filter_map(Result::ok).filter(is_mine).count();
    let tasks = tokio::runtime::Handle::current().metrics();
    [
        count("/proc/self/fd"),
        count("/proc/self/task"),
        tasks.num_alive_tasks(),
        children,
    ]
}

/// Waits until there is no more of anything than in `before`.
async fn until_as(before: [usize; 4]) {
    let over = async {
        while left().iter().zip(&before).any(|(now, before)| now > before) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let over = tokio::time::timeout(super::BOUND, over).await;
    assert!(over.is_ok(), "{before:?} became {:?}", left());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "it counts what is left in its own process"]
async fn that_is_alone() {
    let Some(program) = go(Version::V1_8_0) else {
        return;
    };
    let sockets = tempfile::tempdir().unwrap();
    let mut all = String::new();
    for (at, mode) in MODES.into_iter().enumerate() {
        for one in 0..PLUGINS {
            let keys = keys(&program, &[]);
            let (tls, multiplex) = (mode.auto_mtls, mode.multiplexed);
            all += &format!(
                "p{at}{one}: {{ {keys}, process: {{ max_restarts: 100000 }}, connection: {{ request_timeout: 50s, connection_timeout: 40s }},
                 go_plugin: {{ auto_mtls: {tls}, multiplex: {multiplex}, socket_dir: '{}' }} }},\n",
                sockets.path().display()
            );
        }
    }
    let config = format!("plugins: {{ {all} }}");
    let config = tower_plugins::config::Config::parse(&config, tower_plugins::config::Format::Yaml);
    let before_any = left();
    let plugins = Plugins::builder().start(config.unwrap()).await.unwrap();
    let handles: Vec<_> = plugins
        .names()
        .iter()
        .map(|name| plugins.plugin(name))
        .collect();
    for plugin in &handles {
        another(plugin, 0).await;
    }
    let before = left();
    let killed = handles.into_iter().map(|plugin| tokio::spawn(kill(plugin)));
    let killed = futures_util::future::join_all(killed).await;
    let counts: Vec<_> = killed.into_iter().map(Result::unwrap).collect();
    let well: usize = counts.iter().map(|count| count.well).sum();
    let lost: usize = counts.iter().map(|count| count.lost).sum();
    println!(
        "{} kills: answered {well}, failed {lost}",
        MODES.len() * PLUGINS * KILLS
    );
    until_as(before).await;
    let directories = std::fs::read_dir(sockets.path()).unwrap().count();
    assert_eq!(directories, MODES.len() * PLUGINS);
    plugins.shutdown(super::BOUND).await.unwrap();
    drop(plugins);
    // The thread that starts processes, and what the runtime keeps, stay.
    let [descriptors, threads, tasks, children] = before_any;
    until_as([descriptors + 8, threads + 8, tasks + 2, children]).await;
    assert_eq!(std::fs::read_dir(sockets.path()).unwrap().count(), 0);
}

#[test]
fn a_thousand_kills_under_load_answer_or_fail_each_call_and_leave_nothing() {
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", "--test-threads=1"])
        .arg("host::load::that_is_alone")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let wrong = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{wrong}");
    eprintln!("{said}");
}
