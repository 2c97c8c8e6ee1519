//! Hosts that attach to a plugin that runs already.

use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tower_plugins_interop::{GoHost, Seen, Version};

use super::pairs;
use crate::support::{is_alive, within};

async fn attached(version: Version, how: &Value, calls: &str) -> Seen {
    let host = GoHost::new(version).unwrap();
    let host = host.flags(["-attach", &how.to_string()]);
    host.run(calls, "").await.unwrap()
}

#[tokio::test]
async fn a_second_host_attaches_and_its_kill_ends_the_plugin() {
    for pair in pairs(Version::ALL) {
        let paused = pair.pause("double", "ping").await;
        let pid = paused.pid();
        let how = paused.attach(false);
        let seen = attached(pair.version, &how, "double,doubles=10,kill").await;
        assert_eq!(seen.failure(), None, "{}", pair.name);
        assert_eq!(seen.step("double")["value"], 42, "{}", pair.name);
        let seen = paused.go_on().await.unwrap();
        assert!(seen.step("ping").get("error").is_some(), "{}", pair.name);
        assert!(!is_alive(pid), "{}", pair.name);
    }
}

#[tokio::test]
async fn a_host_does_not_find_a_plugin_that_is_gone() {
    for pair in pairs(Version::ALL) {
        let paused = pair.pause("double", "kill").await;
        let how = paused.attach(false);
        paused.go_on().await.unwrap();
        let seen = attached(pair.version, &how, "double").await;
        assert!(seen.step("start").get("error").is_some(), "{}", pair.name);
    }
}

#[tokio::test]
async fn a_plugin_in_test_mode_says_how_to_attach_and_outlives_its_hosts() {
    for pair in pairs([Version::V1_4_10, Version::V1_6_3, Version::V1_8_0]) {
        let mut command = tokio::process::Command::new(&pair.plugin);
        if !pair.is_sdk {
            command.arg("plugin");
        }
        command.arg("-test").kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        command.stderr(Stdio::null());
        let mut plugin = command.spawn().unwrap();
        let mut lines = BufReader::new(plugin.stdout.take().unwrap()).lines();
        let how = within(lines.next_line()).await.unwrap().unwrap();
        let how: Value = serde_json::from_str(&how).unwrap();
        assert_eq!(how["Test"], true, "{}", pair.name);
        assert_eq!(how["Pid"], json!(plugin.id()), "{}", pair.name);
        for _ in 0..2 {
            let seen = attached(pair.version, &how, "double,doubles=10,kill").await;
            assert_eq!(seen.failure(), None, "{}", pair.name);
            assert_eq!(seen.step("start")["version"], 1, "{}", pair.name);
            assert_eq!(seen.step("double")["value"], 42, "{}", pair.name);
        }
        // It is told to stop.
        drop(plugin.stdin.take());
        assert!(
            within(plugin.wait()).await.unwrap().success(),
            "{}",
            pair.name
        );
    }
}
