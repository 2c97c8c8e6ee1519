//! Hosts that have no descriptors, or no disk, left.

#![cfg(target_os = "linux")]

use std::fs;
use std::process::Command;
use std::time::Duration;

use metrics_util::debugging::DebuggingRecorder;
use tokio::runtime::Runtime;
use tokio::time::Instant;
use tower_plugins::config::Protocol;
use tower_plugins::{Plugins, Reason};

use super::process::{counted, processor_time};
use crate::subprocess::{PID, ask, python};
use crate::support::{
    Server, Shelf, Socket, causes, config, echo, get, post, skipped, text, within,
};

/// Runs the test `name` of this module by a shell that has run `before` first, in a mount namespace of its own if it is
/// `mounting`.
fn run(name: &str, before: &str, mounting: bool) -> bool {
    let script = format!("{before}\nexec \"$0\" \"$@\"");
    let mut command = match mounting {
        true => Command::new("unshare"),
        false => Command::new("sh"),
    };
    if mounting {
        let able = Command::new("unshare").args(["-m", "true"]).status();
        if !able.is_ok_and(|status| status.success()) {
            skipped("leave to mount, or unshare,");
            return false;
        }
        command.args(["-m", "sh"]);
    }
    let output = command
        .args(["-ec", &script])
        .arg(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", "--test-threads=1"])
        .arg(format!("faults::exhausted::{name}"))
        .output()
        .unwrap();
    let (said, wrong) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{said}\n{wrong}");
    assert!(said.contains("1 passed"), "{said}");
    true
}

#[test]
#[ignore = "with few descriptors"]
fn without_descriptors() {
    Runtime::new().unwrap().block_on(async {
        let server = Server::start(Socket::Tcp, Protocol::Http1, echo).await;
        let yaml = format!(
            "plugins: {{
                p: {{ retry: off, circuit_breaker: off, process: {{ max_restarts: 100 }}, {} }},
                h: {{ retry: off, circuit_breaker: off, transport: http, endpoint: '{}' }},
                s: {{ transport: in-process, endpoint: shelf }} }}",
            python(PID),
            server.address
        );
        let shelf = Shelf::default();
        let plugins = Plugins::builder()
            .service("shelf", shelf)
            .start(config(&yaml))
            .await
            .unwrap();
        let (begun, before) = (Instant::now(), processor_time());
        let mut held = Vec::new();
        while let Ok(file) = fs::File::open("/dev/null") {
            held.push(file);
        }
        while begun.elapsed() < Duration::from_secs(1) {
            let error = text(&plugins.plugin("p"), post("/", "1"))
                .await
                .unwrap_err();
            assert!(causes(&error).contains("os error 24"), "{}", causes(&error));
            let error = text(&plugins.plugin("h"), get("/")).await.unwrap_err();
            assert!(causes(&error).contains("os error 24"), "{}", causes(&error));
            assert_eq!(error.reason(), Some(Reason::ConnectFailed));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        // To look at it takes one.
        held.pop();
        let took = processor_time() - before;
        held.extend(fs::File::open("/dev/null"));
        assert!(took < 50, "{took} hundredths of a second in one");
        // What is here needs none.
        plugins
            .reload(config(&yaml.replace(" s: {", " t: {")))
            .await
            .unwrap();
        let answer = text(&plugins.plugin("t"), get("/")).await;
        assert_eq!(answer.unwrap(), "hello");
        drop(held);
        within(async {
            while ask(&plugins, "1").await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        text(&plugins.plugin("h"), post("/", "1")).await.unwrap();
    });
}

#[test]
fn fault_51_without_descriptors_calls_fail_with_why_and_nothing_spins() {
    run("without_descriptors", "ulimit -n 100", false);
}

#[test]
#[ignore = "on a disk of its own"]
fn without_room() {
    let disk = std::path::PathBuf::from(std::env::var_os("DISK").unwrap());
    let recorder = DebuggingRecorder::new();
    let recorded = recorder.snapshotter();
    recorder.install().unwrap();
    Runtime::new().unwrap().block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("plugins.yaml");
        let write = |name: &str| {
            let yaml =
                format!("plugins: {{ {name}: {{ transport: in-process, endpoint: shelf }} }}");
            let beside = folder.path().join("new");
            fs::write(&beside, yaml).unwrap();
            fs::rename(beside, &file).unwrap();
        };
        write("one");
        let builder = Plugins::builder().service("shelf", Shelf::default());
        let builder = builder.keep_last_good(disk.join("kept"));
        let plugins = within(builder.watch(&file)).await.unwrap();
        write("two");
        let mut status = plugins.subscribe();
        within(status.wait_for(|status| status.generation.get() == 2))
            .await
            .unwrap();
        assert_eq!(plugins.names(), ["two"]);
        let answer = text(&plugins.plugin("two"), get("/")).await;
        assert_eq!(answer.unwrap(), "hello");
        let mut failed = 0;
        within(async {
            while failed == 0 {
                failed += counted(&recorded, "plugin_config_kept_total");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        let before = processor_time();
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!(processor_time() - before < 25, "it tries again and again");
    });
}

/// A disk of its own, on which nothing can be written, as `how` makes it so.
fn on_a_disk(how: &str) {
    let disk = tempfile::tempdir().unwrap();
    let disk = disk.path().display();
    let before = format!(
        "export DISK='{disk}'\nmount -t tmpfs -o size=64k none \"$DISK\"\nmkdir \"$DISK/kept\"\nchmod 700 \"$DISK/kept\"\n{how}"
    );
    run("without_room", &before, true);
}

#[test]
fn fault_51_a_full_disk_keeps_no_config_and_hinders_no_reload() {
    on_a_disk("head -c 100000 /dev/zero > \"$DISK/full\" 2>/dev/null || true");
}

#[test]
fn fault_51_a_directory_for_reading_alone_keeps_no_config_and_hinders_no_reload() {
    on_a_disk("mount -o remount,ro \"$DISK\"");
}
