//! Hosts in Go.

use std::process::Stdio;

use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tower_plugins_interop::{GoHost, Version};

use super::{PLUGIN, Running, command, within};
use crate::support::{MODES, assert_seen};

/// A host of that version, and our plugin, in each mode that it has.
async fn serves(version: Version) {
    for mode in MODES.into_iter().filter(|mode| mode.is_of(version)) {
        let Some(host) = GoHost::new(version) else {
            return;
        };
        let host = host.flags(mode.flags());
        let seen = host.run(&mode.calls(version), PLUGIN).await.unwrap();
        assert_seen(&seen, version, mode);
    }
}

#[tokio::test]
async fn a_plugin_serves_a_go_host_of_1_0_1() {
    serves(Version::V1_0_1).await;
}

#[tokio::test]
async fn a_plugin_serves_a_go_host_of_1_4_10() {
    serves(Version::V1_4_10).await;
}

#[tokio::test]
async fn a_plugin_serves_a_go_host_of_1_6_3() {
    serves(Version::V1_6_3).await;
}

#[tokio::test]
async fn a_plugin_serves_a_go_host_of_1_8_0() {
    serves(Version::V1_8_0).await;
}

#[tokio::test]
async fn with_certificates_a_go_host_of_1_0_1_and_its_plugin_call_each_other() {
    // Which it cannot with a plugin of its own, whose certificate lacks the name that it looks for.
    let Some(host) = GoHost::new(Version::V1_0_1) else {
        return;
    };
    let seen = host
        .flags(["-automtls"])
        .run("broker=4,kill", PLUGIN)
        .await
        .unwrap();
    assert_eq!(seen.failure(), None);
    assert_eq!(seen.step("broker")["sums"], json!([41, 42, 43, 44]));
}

#[tokio::test]
async fn more_services_than_may_be_offered_at_once_are_offered_after_one_another() {
    let Some(host) = newest() else { return };
    for flags in [&[][..], &["-multiplexed"]] {
        let host = host.clone().flags(flags.iter().copied());
        let seen = host.run("broker=1100,kill", PLUGIN).await.unwrap();
        assert_eq!(seen.failure(), None, "{flags:?}");
        assert_eq!(seen.step("broker")["sums"].as_array().unwrap().len(), 1100);
    }
}

fn newest() -> Option<GoHost> {
    GoHost::new(Version::V1_8_0)
}

#[tokio::test]
async fn messages_of_70_megabytes_go_both_ways() {
    let Some(host) = newest() else { return };
    let seen = host
        .flags(["-automtls"])
        .run("echo=70000000,kill", PLUGIN)
        .await
        .unwrap();
    assert_eq!(seen.step("echo")["same"], true);
}

#[tokio::test]
async fn a_go_host_sees_that_it_is_not_healthy_and_when_it_is_gone() {
    let Some(host) = newest() else { return };
    let calls = "set-health=0,health=plugin,set-health=1,health=plugin,murder,ping";
    let seen = host.run(calls, PLUGIN).await.unwrap();
    assert_eq!(seen.step("health")["status"], "SERVING");
    let said: Vec<_> = seen.steps().iter().map(|step| &step["status"]).collect();
    assert!(said.contains(&&json!("NOT_SERVING")), "{said:?}");
    assert_eq!(seen.step("murder")["done"], true);
    assert!(seen.step("ping").get("error").is_some());
}

#[tokio::test]
async fn a_go_host_waits_for_its_end_and_kills_what_does_not_end() {
    let Some(host) = newest() else { return };
    let seen = host.clone().run("stall=1000,kill", PLUGIN).await.unwrap();
    let kill = seen.step("kill");
    assert_eq!(kill["forced"], false);
    assert!(kill["milliseconds"].as_u64().unwrap() >= 1000, "{kill}");
    let seen = host.run("linger=60000,kill", PLUGIN).await.unwrap();
    let kill = seen.step("kill");
    assert_eq!(
        (&kill["forced"], &kill["exited"]),
        (&json!(true), &json!(true))
    );
}

#[tokio::test]
async fn a_panic_and_its_stack_are_errors_in_a_go_hosts_log() {
    let Some(host) = newest() else { return };
    let host = host.env("RUST_BACKTRACE", "1");
    let seen = host.run("panic=broken", PLUGIN).await.unwrap();
    let panic = seen.step("panic");
    let lines = panic["lines"].as_array().unwrap();
    assert!(lines.len() >= 10, "{lines:?}");
    assert_eq!(lines[0]["@message"], "panic: broken");
    assert!(
        lines[0]["at"].as_str().unwrap().contains("plugin.rs"),
        "{lines:?}"
    );
    assert_ne!(panic["call"], "<nil>");
}

#[tokio::test]
async fn a_go_host_that_wants_another_version_says_so() {
    let Some(host) = newest() else { return };
    let host = host
        .flags(["-versions", "7,8"])
        .arguments(["-versions", "4,5"]);
    let seen = host.run("double", PLUGIN).await.unwrap();
    let error = seen.step("start")["error"].to_string();
    assert!(error.contains('4') && error.contains('7'), "{error}");
    let host = newest()
        .unwrap()
        .flags(["-versions", "4,5,6"])
        .arguments(["-versions", "5,4"]);
    let seen = host.run("describe,kill", PLUGIN).await.unwrap();
    assert_eq!(seen.step("start")["version"], 5);
    assert_eq!(seen.step("describe")["version"], 5);
}

#[tokio::test]
async fn a_second_go_host_attaches_and_ends_it() {
    let Some(host) = newest() else { return };
    let directory = tempfile::tempdir().unwrap();
    let plugin = Running::start(command(directory.path())).await;
    let how = json!({
        "Protocol": "grpc",
        "ProtocolVersion": 1,
        "Pid": plugin.child.id(),
        "Test": false,
        "Addr": {"Network": "unix", "String": plugin.address().to_string()},
    });
    let how = how.to_string();
    let host = host.flags(["-attach", &how]);
    // The host looks whether there is such a process, and there is until it is waited for.
    let seen = host.run("double,broker=2,stdout=1000000,kill", "");
    let (seen, ended) = tokio::join!(seen, plugin.ended());
    let seen = seen.unwrap();
    assert_eq!(seen.failure(), None);
    assert_eq!(seen.step("kill")["exited"], true);
    assert_eq!(ended.0, Some(0));
}

#[tokio::test]
async fn in_test_mode_it_outlives_its_hosts_and_ends_when_it_is_told() {
    for version in [Version::V1_4_10, Version::V1_8_0] {
        let Some(host) = GoHost::new(version) else {
            return;
        };
        let directory = tempfile::tempdir().unwrap();
        let mut command = Command::new(PLUGIN);
        command
            .args(["-test", "-versions", "6"])
            .env("TMPDIR", directory.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        let mut plugin = command.spawn().unwrap();
        let mut said = BufReader::new(plugin.stdout.take().unwrap());
        let mut how = String::new();
        within(said.read_line(&mut how)).await.unwrap();
        let host = host.flags(["-versions", "6", "-attach", how.trim()]);
        for _ in 0..2 {
            let seen = host.run("double,broker=2,kill", "").await.unwrap();
            assert_eq!(seen.failure(), None);
            assert_eq!(seen.step("start")["version"], 6);
        }
        drop(plugin.stdin.take());
        assert_eq!(within(plugin.wait()).await.unwrap().code(), Some(0));
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
