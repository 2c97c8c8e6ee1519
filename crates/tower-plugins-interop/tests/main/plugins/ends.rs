//! How a plugin ends.

use std::path::Path;

use tower_plugins_interop::Version;

use super::pairs;
use crate::support::is_alive;

#[tokio::test]
async fn a_plugin_has_time_to_clean_up_when_its_host_is_done() {
    for pair in pairs(Version::ALL) {
        // A host waits for two seconds.
        let seen = pair.run("double,linger=500,kill").await;
        let kill = seen.step("kill");
        assert_eq!(kill["exited"], true, "{}", pair.name);
        assert_eq!(kill["forced"], false, "{}", pair.name);
        assert_eq!(kill["errors"], serde_json::json!([]), "{}", pair.name);
        assert!(
            kill["milliseconds"].as_u64().unwrap() >= 500,
            "{}",
            pair.name
        );
    }
}

#[tokio::test]
async fn a_plugin_that_takes_too_long_to_clean_up_is_killed() {
    for pair in pairs([Version::V1_0_1, Version::V1_8_0]) {
        let paused = pair.pause("linger=60000", "kill").await;
        let pid = paused.pid();
        let seen = paused.go_on().await.unwrap();
        assert_eq!(seen.step("kill")["forced"], true, "{}", pair.name);
        assert!(!is_alive(pid), "{}", pair.name);
    }
}

#[tokio::test]
async fn a_host_waits_for_the_answer_to_shutdown() {
    for pair in pairs([Version::V1_8_0]) {
        let seen = pair.run("stall=700,kill").await;
        let kill = seen.step("kill");
        assert_eq!(kill["forced"], false, "{}", pair.name);
        assert!(
            kill["milliseconds"].as_u64().unwrap() >= 700,
            "{}",
            pair.name
        );
    }
}

#[tokio::test]
async fn a_host_notices_the_end_of_a_killed_plugin_within_two_seconds() {
    for pair in pairs(Version::ALL) {
        let seen = pair.run("double,murder,ping,kill").await;
        let murder = seen.step("murder");
        assert_eq!(murder["done"], true, "{}", pair.name);
        assert!(
            murder["milliseconds"].as_u64().unwrap() < 2000,
            "{}",
            pair.name
        );
        assert!(seen.step("ping").get("error").is_some(), "{}", pair.name);
        assert_eq!(seen.step("kill")["exited"], true, "{}", pair.name);
    }
}

#[tokio::test]
async fn the_socket_is_removed_when_the_plugin_ends() {
    for pair in pairs(Version::ALL) {
        let paused = pair.pause("double", "kill").await;
        let socket = paused.address();
        assert!(Path::new(&socket).exists(), "{}", pair.name);
        paused.go_on().await.unwrap();
        assert!(!Path::new(&socket).exists(), "{}", pair.name);
    }
}
