//! That nothing is left of a thousand callbacks.

use tokio::task::JoinSet;
use tower_plugins_interop::peer::adder_server::AdderServer;
use tower_plugins_interop::{Version, go};

use super::{Adds, added, count, session};
use crate::host::{BOUND, keys, start, within};
use crate::support::Mode;

const CALLS: i64 = 1_000;

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Run by a test as a program of its own, to count what is left in its process.
#[test]
#[ignore = "a program of its own"]
fn that_is_called_back_a_thousand_times() {
    for multiplexed in [false, true] {
        let runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = { runtime }.worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(a_thousand_callbacks(multiplexed));
    }
}

async fn a_thousand_callbacks(multiplexed: bool) {
    let directory = tempfile::tempdir().unwrap();
    let auto_mtls = false;
    let mode = Mode {
        auto_mtls,
        multiplexed,
    };
    let key = mode.key().replace(
        "multiplex",
        &format!("socket_dir: '{}', multiplex", directory.path().display()),
    );
    let program = go(Version::V1_8_0).unwrap();
    let plugins = start(&format!("{}, {key}", keys(&program, &[]))).await;
    let session = session(&plugins).await;
    let adds = AdderServer::new(Adds::default());
    let offer = session.serve(adds.clone()).await.unwrap();
    count(&session, &offer, 1).await.unwrap();
    drop(offer);
    let left = || {
        let sockets = std::fs::read_dir(directory.path()).unwrap();
        let folder = sockets.map(|entry| entry.unwrap().path()).next().unwrap();
        let sockets = std::fs::read_dir(folder).unwrap().count();
        let runtime = tokio::runtime::Handle::current();
        (descriptors(), sockets, runtime.metrics().num_alive_tasks())
    };
    let settle = async |expected: Option<(usize, usize, usize)>| {
        let mut last = (0, 0, 0);
        let settled = tokio::time::timeout(BOUND, async {
            loop {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                let now = left();
                let done = expected.map_or(now == last, |expected| now <= expected);
                last = now;
                if done {
                    return;
                }
            }
        });
        assert!(settled.await.is_ok(), "{last:?}, not {expected:?}");
        last
    };
    let before = settle(None).await;
    for round in 0..CALLS / 20 {
        let mut calls = JoinSet::new();
        for _ in 0..20 {
            let (session, adds) = (session.clone(), adds.clone());
            calls.spawn(async move {
                let offer = session.serve(adds).await.unwrap();
                count(&session, &offer, 1).await.unwrap()
            });
        }
        within(calls.join_all()).await;
        let offered = added(&session, round, 1).await;
        assert_eq!(offered, round + 1);
    }
    // What the plugin itself offers stays until it ends: fifty sockets of its own.
    let (descriptors, sockets, tasks) = before;
    let own = match multiplexed {
        true => 0,
        false => usize::try_from(CALLS / 20).unwrap(),
    };
    settle(Some((descriptors, sockets + own, tasks))).await;
    within(plugins.shutdown(BOUND)).await.unwrap();
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn a_thousand_callbacks_leave_no_socket_no_descriptor_and_no_task() {
    if go(Version::V1_8_0).is_none() {
        return;
    }
    let ended = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", "--test-threads=1"])
        .arg("host::sessions::left::that_is_called_back_a_thousand_times")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ended.stdout);
    let log = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{said}{log}");
    assert!(said.contains("1 passed"), "{said}");
}
