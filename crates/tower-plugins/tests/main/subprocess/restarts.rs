use std::time::Duration;

use http_body_util::BodyExt;
use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use tower_plugins::transport::{ExecJson, Transport};
use tower_plugins::{Plugins, Reason};

use super::{PID, ask, pid, python, signal, start, until_gone};
use crate::support::{causes, config, post};

#[tokio::test]
async fn a_process_that_was_killed_is_there_again_for_the_next_call() {
    let recorder = DebuggingRecorder::new();
    let counted = recorder.snapshotter();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let plugins = start(PID, "").await;
    let mut last = pid(&plugins).await;
    for _ in 0..3 {
        signal(last, "-KILL");
        until_gone(last).await;
        let next = pid(&plugins).await;
        assert_ne!(next, last);
        last = next;
    }
    let counters = counted.snapshot().into_vec();
    let restarts = counters.into_iter().find_map(|(key, _, _, value)| {
        let key = key.key();
        (key.name() == "plugin_process_restarts_total").then_some(value)
    });
    assert_eq!(restarts, Some(DebugValue::Counter(3)));
}

#[tokio::test]
async fn a_crash_loop_ends_and_a_reload_begins_anew() {
    let keys = "retry: off, circuit_breaker: off, process: { max_restarts: 2, restart_window: 1h }";
    let broken = format!("plugins: {{ p: {{ {}, {keys} }} }}", python("sys.exit(1)"));
    let plugins = Plugins::builder().start(config(&broken)).await.unwrap();
    let error = loop {
        let error = ask(&plugins, "1").await.unwrap_err();
        if causes(&error).contains("ended more than 2 times") {
            break error;
        }
    };
    assert_eq!(
        error.reason(),
        Some(Reason::ConnectFailed),
        "{}",
        causes(&error)
    );
    let wait = error.retry_after().unwrap();
    assert!(wait > Duration::from_secs(3000), "{wait:?}");
    assert!(causes(&error).contains("exited with code 1"));
    let well = format!("plugins: {{ p: {{ {}, {keys} }} }}", python(PID));
    plugins.reload(config(&well)).await.unwrap();
    pid(&plugins).await;
}

#[tokio::test]
async fn it_is_tried_again_when_the_window_is_over() {
    let folder = tempfile::tempdir().unwrap();
    let flag = folder.path().join("well");
    let code = format!(
        "
if not os.path.exists({flag:?}):
    sys.exit(1)
serve(lambda _: os.getpid())
"
    );
    let plugins = start(&code, "process: { max_restarts: 1, restart_window: 1s }").await;
    loop {
        let error = ask(&plugins, "1").await.unwrap_err();
        if causes(&error).contains("ended more than 1 times") {
            break;
        }
    }
    std::fs::write(&flag, "").unwrap();
    let well = async {
        while ask(&plugins, "1").await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    crate::support::within(well).await;
}

#[tokio::test]
async fn a_reload_that_changes_the_process_replaces_it_and_one_that_does_not_keeps_it() {
    let plugins = start(PID, "").await;
    let first = pid(&plugins).await;
    let with = |keys: &str| {
        let keys = format!("{}, {keys}", python(PID));
        config(&format!(
            "plugins: {{ p: {{ circuit_breaker: off, {keys} }} }}"
        ))
    };
    plugins
        .reload(with("concurrency: { max_concurrent: 9 }"))
        .await
        .unwrap();
    assert_eq!(pid(&plugins).await, first);
    plugins.reload(with("env: { A: b }")).await.unwrap();
    assert_ne!(pid(&plugins).await, first);
    until_gone(first).await;
}

#[tokio::test]
async fn a_window_without_an_end_is_one() {
    let read = format!("plugins: {{ p: {{ {} }} }}", python(PID));
    let mut spec = config(&read).plugins["p"].clone();
    spec.upstream.process.restart_window = Duration::MAX;
    spec.upstream.process.idle_timeout = Some(Duration::MAX);
    let upstream = &spec.upstream;
    let plugin = ExecJson::new(
        "p",
        super::interpreter(),
        &upstream.process,
        &upstream.connection,
    );
    let mut last = 0;
    for _ in 0..3 {
        let response = crate::support::within(plugin.call(post("/", "null"))).await;
        let pid = response
            .unwrap()
            .into_body()
            .collect()
            .await
            .unwrap()
            .to_bytes();
        let pid = serde_json::from_slice(&pid).unwrap();
        assert_ne!(pid, last);
        last = pid;
        signal(pid, "-KILL");
        until_gone(pid).await;
    }
}
