//! Processes that nobody needs for a while.

use std::time::Duration;

use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use tokio::time::Instant;
use tower_plugins::HealthStatus;

use super::{PID, ask, pid, start, until_gone};

#[tokio::test]
async fn a_call_under_way_keeps_its_process_however_long_it_takes() {
    let code = "
def answer(seconds):
    time.sleep(seconds)
    return os.getpid()
serve(answer)
";
    let plugins = start(code, "process: { idle_timeout: 100ms }").await;
    let slow = ask(&plugins, "1").await.unwrap();
    let pid = u32::try_from(slow.as_u64().unwrap()).unwrap();
    until_gone(pid).await;
    assert_ne!(ask(&plugins, "0").await.unwrap(), slow);
}

#[tokio::test]
async fn a_process_that_was_idle_is_no_restart_and_no_failure() {
    let recorder = DebuggingRecorder::new();
    let counted = recorder.snapshotter();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let keys = "process: { idle_timeout: 50ms, restart: never }";
    let plugins = start(PID, keys).await;
    for _ in 0..10 {
        let last = pid(&plugins).await;
        until_gone(last).await;
    }
    let counters = counted.snapshot().into_vec().into_iter();
    for (key, _, _, value) in counters {
        if key.key().name() == "plugin_process_restarts_total" {
            assert_eq!(value, DebugValue::Counter(0));
        }
    }
}

#[tokio::test]
async fn calls_that_come_while_it_ends_wait_for_the_next() {
    let code = "
import threading
ended = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: ended.set())
serve(lambda _: os.getpid())
time.sleep(0.2)
";
    let plugins = start(code, "process: { idle_timeout: 30ms }").await;
    let begun = Instant::now();
    let (mut last, mut seen) = (0, 0);
    while begun.elapsed() < Duration::from_secs(3) {
        let now = pid(&plugins).await;
        seen += usize::from(now != last);
        last = now;
        // About as long as it takes until it is stopped.
        let pause = 20 + u64::from(fastrand::u8(..30));
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
    assert!(seen > 3, "{seen}");
}

#[tokio::test]
async fn a_check_neither_keeps_it_nor_starts_it_again() {
    let starts = tempfile::NamedTempFile::new().unwrap();
    let code = format!(
        "
with open({:?}, 'a') as file:
    file.write('x')
serve(lambda _: os.getpid())
",
        starts.path()
    );
    let keys = "process: { idle_timeout: 200ms }, start: ready,
                health_check: { interval: 100ms, unhealthy_interval: 100ms }";
    let plugins = start(&code, keys).await;
    let first = pid(&plugins).await;
    until_gone(first).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let health = plugins.plugin("p").health().unwrap();
    assert_eq!(health.status, HealthStatus::Healthy);
    let started = || std::fs::read(starts.path()).unwrap().len();
    assert_eq!(started(), 1);
    assert_ne!(pid(&plugins).await, first);
    assert_eq!(started(), 2);
}
