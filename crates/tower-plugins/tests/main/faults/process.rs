//! Faults of plugins that are processes.

#![cfg(target_os = "linux")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use tokio::runtime::Runtime;
use tokio::time::Instant;
use tower_plugins::transport::subprocess::Exited;
use tower_plugins::{Plugins, Reason};

use crate::alone::{Held, alone};
use crate::subprocess::checksum::{Program, script};
use crate::subprocess::fake::{self, Fake, called};
use crate::subprocess::host::children;
use crate::subprocess::limits::{has, until_over};
use crate::subprocess::{PID, ask, is_there, pid, python, start, until_gone};
use crate::support::{causes, config, post, text, within};

/// What the counter `name` has grown by.
pub(super) fn counted(recorded: &Snapshotter, name: &str) -> u64 {
    let counters = recorded.snapshot().into_vec().into_iter();
    let values = counters.filter_map(|(key, _, _, value)| match value {
        DebugValue::Counter(count) if key.key().name() == name => Some(count),
        _ => None,
    });
    values.sum()
}

/// The processor time of this process, in hundredths of a second.
pub(super) fn processor_time() -> u64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let after = stat.rsplit(')').next().unwrap();
    let fields: Vec<_> = after.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
fn fault_43_a_plugin_that_does_not_begin_as_it_should_is_refused_with_its_last_words() {
    let name = "faults::process::fault_43_a_plugin_that_does_not_begin_as_it_should_is_refused_with_its_last_words";
    alone(name, || {
        Runtime::new().unwrap().block_on(async {
            for (script, said) in [
                ("exit 3", "exited with code 3"),
                ("echo garbage; stay", "garbage"),
                ("head -c 10000000 /dev/zero | tr '\\0' x; stay", "at most 65536"),
                ("test \"$BASIC_PLUGIN\" = hello || exit 1", "exited with code 1"),
                ("echo '2|1|unix|/x|grpc|'; stay", "core protocol"),
                ("echo '1|7|unix|/x|grpc|'; stay", "version 7"),
                ("stay", "start_timeout"),
            ] {
                let fake = Fake::new();
                let script = format!("echo last words >&2; {script}");
                let keys = "go_plugin: { auto_mtls: false }, process: { start_timeout: 2s, max_restarts: 1 }";
                let plugins = fake::start(&format!("{}, {keys}", fake.keys(&script))).await;
                let begun = Instant::now();
                let error = causes(&within(called(&plugins)).await.unwrap_err());
                assert!(error.contains(said), "{script}: {error}");
                assert!(error.contains("last words"), "{error}");
                assert!(begun.elapsed() < Duration::from_secs(10));
                plugins.shutdown(Duration::from_secs(10)).await.unwrap();
                assert_eq!(children(), [0; 0]);
            }
        });
    });
}

/// Dies once at a call, and then answers.
fn dying_once(flag: &Path) -> String {
    format!(
        "
def answer(_):
    if not os.path.exists({flag:?}):
        open({flag:?}, 'w').close()
        os.kill(os.getpid(), signal.SIGKILL)
    return os.getpid()
serve(answer)
"
    )
}

#[tokio::test]
async fn fault_44_a_call_whose_process_is_killed_is_retried_or_fails_once() {
    let folder = tempfile::tempdir().unwrap();
    let flag = folder.path().join("flag");
    let plugins = config(&format!(
        "plugins: {{ p: {{ {} }} }}",
        python(&dying_once(&flag))
    ));
    let plugins = Plugins::builder().start(plugins).await.unwrap();
    let plugin = plugins.plugin("p");
    let error = text(&plugin, post("/", "1")).await.unwrap_err();
    assert_eq!(Exited::find(&error).unwrap().signal(), Some(9));
    text(&plugin, post("/", "1")).await.unwrap();

    fs::remove_file(&flag).unwrap();
    let mut request = post("/", "1");
    request
        .headers_mut()
        .insert("idempotency-key", "k".parse().unwrap());
    text(&plugin, request).await.unwrap();
    assert!(flag.exists(), "it died, and another answered");
}

#[tokio::test]
async fn fault_44_the_pauses_before_starts_double_from_a_tenth_of_a_second() {
    let keys = "connection: { connection_timeout: 1ms }, process: { max_restarts: 100 }";
    let plugins = start("sys.exit(1)", keys).await;
    let mut pauses = Vec::new();
    let longest = |pauses: &[Duration]| pauses.iter().max().copied().unwrap_or_default();
    within(async {
        while longest(&pauses) < Duration::from_millis(700) {
            let error = ask(&plugins, "1").await.unwrap_err();
            pauses.extend(error.retry_after());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
    assert!(pauses[0] <= Duration::from_millis(100), "{pauses:?}");
    assert!(longest(&pauses) < Duration::from_millis(1700), "{pauses:?}");
}

#[test]
fn fault_45_a_crash_loop_ends_takes_no_time_and_can_be_begun_anew() {
    let name = "faults::process::fault_45_a_crash_loop_ends_takes_no_time_and_can_be_begun_anew";
    alone(name, || {
        Runtime::new().unwrap().block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let (starts, well) = (folder.path().join("starts"), folder.path().join("well"));
            let code = format!(
                "
with open({starts:?}, 'a') as file:
    file.write('x')
if not os.path.exists({well:?}):
    sys.exit(1)
serve(lambda _: os.getpid())
"
            );
            let plugins = start(&code, "").await;
            let error = loop {
                let error = ask(&plugins, "1").await.unwrap_err();
                if causes(&error).contains("ended more than 5 times in 60s") {
                    break error;
                }
            };
            assert!(error.retry_after().unwrap() > Duration::from_secs(40));
            let begun = (
                processor_time(),
                fs::read(&starts).unwrap().len(),
                Instant::now(),
            );
            assert_eq!(begun.1, 6);
            while begun.2.elapsed() < Duration::from_secs(1) {
                let error = ask(&plugins, "1").await.unwrap_err();
                assert_eq!(error.reason(), Some(Reason::ConnectFailed));
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            assert_eq!(fs::read(&starts).unwrap().len(), 6);
            let took = processor_time() - begun.0;
            assert!(took < 30, "{took} hundredths of a second in one");
            fs::write(&well, "").unwrap();
            plugins.revive("p");
            pid(&plugins).await;
        });
    });
}

/// A plugin of go-plugin whose sockets are in `folder`, once it has answered.
async fn with_sockets_in(folder: &Path) -> (Fake, Plugins) {
    let fake = Fake::new();
    let keys = format!(
        "go_plugin: {{ auto_mtls: false, socket_dir: '{}' }}",
        folder.display()
    );
    let plugins = fake.start(&keys).await;
    assert_eq!(within(called(&plugins)).await.unwrap(), "/hello");
    (fake, plugins)
}

#[test]
#[ignore = "a host that is killed by a test"]
fn with_sockets() {
    let folder = std::path::PathBuf::from(std::env::var_os("SOCKETS").unwrap());
    Runtime::new().unwrap().block_on(async {
        let (_fake, _plugins) = with_sockets_in(&folder).await;
        println!("it answers");
        std::future::pending::<()>().await;
    });
}

#[tokio::test]
async fn fault_46_what_a_killed_host_left_of_its_sockets_hinders_no_other() {
    let folder = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let mut host = Command::new(std::env::current_exe().unwrap())
            .args([
                "--ignored",
                "--exact",
                "--nocapture",
                "faults::process::with_sockets",
            ])
            .env("SOCKETS", folder.path())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let lines = std::io::BufRead::lines(std::io::BufReader::new(host.stdout.take().unwrap()));
        let answers = lines
            .map_while(Result::ok)
            .any(|line| line.contains("it answers"));
        host.kill().unwrap();
        host.wait().unwrap();
        assert!(answers);
    }
    assert!(fs::read_dir(folder.path()).unwrap().count() > 0);
    with_sockets_in(folder.path()).await;
}

#[tokio::test]
async fn fault_47_what_ignores_to_be_asked_is_killed_with_its_children() {
    let code = "
signal.signal(signal.SIGTERM, signal.SIG_IGN)
children = []
for _ in range(3):
    child = os.fork()
    if child == 0:
        while True:
            time.sleep(60)
    children.append(child)
serve(lambda _: [os.getpid()] + children)
while True:
    time.sleep(60)
";
    let plugins = start(code, "process: { stop_timeout: 300ms }").await;
    let all = ask(&plugins, "1").await.unwrap();
    let all: Vec<u32> = serde_json::from_value(all).unwrap();
    assert!(all.iter().all(|pid| is_there(*pid)));
    let begun = Instant::now();
    drop(plugins);
    until_gone(all[0]).await;
    assert!(begun.elapsed() >= Duration::from_millis(300));
    for child in &all[1..] {
        until_over(*child).await;
    }
}

#[tokio::test]
async fn fault_48_a_program_replaced_at_any_time_is_refused_or_the_one_that_was_checked() {
    let program = Program::of(&script("checked"));
    let (checksum, path) = (program.checksum(), program.path.clone());
    let stop = Arc::new(AtomicBool::new(false));
    let replacing = std::thread::spawn({
        let stop = Arc::clone(&stop);
        let put = move |answer: &str| {
            let beside = path.with_extension("new");
            fs::write(&beside, script(answer)).unwrap();
            fs::set_permissions(&beside, PermissionsExt::from_mode(0o755)).unwrap();
            fs::rename(&beside, &path).unwrap();
        };
        move || {
            while !stop.load(Ordering::Relaxed) {
                put("other");
                put("checked");
            }
        }
    });
    // One that is refused is not tried again.
    let keys = "[], connection: { connection_timeout: 60ms }";
    let (mut ran, mut refused) = (0, 0);
    while ran < 5 || refused < 5 {
        let plugins = program.start(&checksum, keys).await;
        match ask(&plugins, "1").await {
            Ok(answer) => {
                assert_eq!(answer[0], "checked");
                ran += 1;
            }
            Err(error) => {
                let said = causes(&error);
                let is_late = said.contains("within the connection_timeout");
                let is_other = said.contains("is not what `checksum` says");
                assert!(is_other || is_late, "{said}");
                refused += usize::from(is_other);
            }
        }
    }
    stop.store(true, Ordering::Relaxed);
    replacing.join().unwrap();
}

#[test]
fn fault_49_a_flood_of_log_is_bounded_counted_and_holds_up_no_call() {
    let name = "faults::process::fault_49_a_flood_of_log_is_bounded_counted_and_holds_up_no_call";
    alone(name, || {
        let recorder = DebuggingRecorder::new();
        let recorded = recorder.snapshotter();
        recorder.install().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            // As much as the pipe takes: from another thread, as fast as it can.
            let code = "
import threading
written = 0
def flood():
    global written
    piece = (b'x' * 99 + b'\\n') * 10_000
    while True:
        written += os.write(2, piece)
threading.Thread(target=flood, daemon=True).start()
serve(lambda _: written)
";
            let plugins = start(code, "").await;
            ask(&plugins, "1").await.unwrap();
            let (before, begun) = (Held::now().bytes(), Instant::now());
            let (mut answered, mut most, mut written) = (0, 0, 0);
            while begun.elapsed() < Duration::from_secs(3) {
                written = ask(&plugins, "1").await.unwrap().as_u64().unwrap();
                answered += 1;
                most = most.max(Held::now().bytes());
            }
            let dropped = counted(&recorded, "plugin_process_log_dropped_total");
            let more = most.saturating_sub(before);
            println!("{answered} calls, {written} bytes written, {dropped} lines left out, {more} bytes more");
            assert!(answered > 10 && written > 10_000_000);
            assert!(dropped > 10_000);
            assert!(more < 1 << 20);
        });
    });
}

#[tokio::test]
async fn fault_50_ten_gigabytes_with_a_limit_of_256_megabytes_end_the_plugin_alone() {
    if !has(Some("memory")) {
        return;
    }
    let greedy = "
def take(n):
    held = []
    for _ in range(n):
        held.append(b'x' * (16 << 20))
    return os.getpid()
serve(take)
";
    let plugins = config(&format!(
        "plugins: {{ p: {{ retry: off, {}, process: {{ limits: {{ memory: 256MiB }} }} }}, q: {{ {} }} }}",
        python(greedy),
        python(PID)
    ));
    let plugins = Plugins::builder().start(plugins).await.unwrap();
    let other = plugins.plugin("q");
    let before = text(&other, post("/", "1")).await.unwrap();
    let error = ask(&plugins, "640").await.unwrap_err();
    let exited = Exited::find(&error).unwrap_or_else(|| panic!("{}", causes(&error)));
    assert!(exited.is_out_of_memory());
    assert_eq!(error.reason(), Some(Reason::ConnectionLost));
    assert_eq!(text(&other, post("/", "1")).await.unwrap(), before);
    ask(&plugins, "1").await.unwrap();
}
