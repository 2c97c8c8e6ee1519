//! From the start of a plugin to the first call.

use serde_json::Value;
use tower_plugins_interop::Version;

use super::pairs;

#[tokio::test]
async fn the_highest_version_that_both_have_is_spoken() {
    for pair in pairs(Version::ALL) {
        let pair = pair.flags(["-versions=4,5,6"]);
        let pair = pair.arguments(["-versions=3,5,4,9"]);
        let seen = pair.run("describe,double,kill").await;
        assert_eq!(seen.failure(), None, "{}", pair.name);
        assert_eq!(seen.step("start")["version"], 5, "{}", pair.name);
        assert_eq!(seen.step("describe")["version"], 5, "{}", pair.name);
    }
}

#[tokio::test]
async fn a_plugin_without_a_version_in_common_speaks_its_lowest_and_is_refused() {
    for pair in pairs(Version::ALL) {
        let pair = pair.flags(["-versions=7,8"]).arguments(["-versions=4,3"]);
        let seen = pair.run("double").await;
        let said = seen.step("start")["error"].as_str().unwrap().to_owned();
        // The plugin's, and the host's.
        assert!(
            said.contains('3') && said.contains('7'),
            "{}: {said}",
            pair.name
        );
        assert_eq!(*seen.step("double"), Value::Null, "{}", pair.name);
    }
}

#[tokio::test]
async fn a_host_that_takes_only_net_rpc_refuses_a_plugin_of_grpc() {
    for pair in pairs(Version::ALL) {
        let pair = pair.flags(["-netrpc"]);
        let seen = pair.run("double").await;
        let said = seen.step("start")["error"].as_str().unwrap().to_owned();
        assert!(
            said.contains("Unsupported plugin protocol")
                || said.contains("unsupported plugin protocol"),
            "{}: {said}",
            pair.name
        );
    }
}

#[tokio::test]
async fn a_plugin_has_the_hosts_environment_and_standard_input() {
    for pair in pairs(Version::ALL) {
        let mut pair = pair;
        pair.host = pair.host.env("FROM_THE_HOST", "yes");
        let seen = pair.run("describe,kill").await;
        let described = seen.step("describe");
        let environment = described["environment"].as_array().unwrap();
        assert!(
            environment.contains(&"FROM_THE_HOST=yes".into()),
            "{}",
            pair.name
        );
        // The one that it had when it was started.
        assert_eq!(described["stdin"], "/dev/null", "{}", pair.name);
    }
}

#[tokio::test]
async fn a_plugin_starts_without_the_hosts_environment() {
    for pair in pairs([Version::V1_6_3, Version::V1_8_0]) {
        let mut pair = pair.flags(["-skip-environment"]);
        pair.host = pair.host.env("FROM_THE_HOST", "yes");
        let seen = pair.run("describe,double,kill").await;
        assert_eq!(seen.failure(), None, "{}", pair.name);
        let environment = seen.step("describe")["environment"].as_array().unwrap();
        assert!(
            !environment.contains(&"FROM_THE_HOST=yes".into()),
            "{}",
            pair.name
        );
    }
}

#[tokio::test]
async fn a_plugin_that_somebody_starts_by_hand_says_so_and_fails() {
    for pair in pairs([Version::V1_8_0]) {
        let mut command = tokio::process::Command::new(&pair.plugin);
        if !pair.is_sdk {
            command.arg("plugin");
        }
        let output = command.output().await.unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", pair.name);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("plugin"), "{}: {said}", pair.name);
        assert!(output.stdout.is_empty(), "{}", pair.name);
    }
}

#[tokio::test]
async fn health_is_what_the_plugin_says_of_itself() {
    for pair in pairs(Version::ALL) {
        let seen = pair
            .run("health=plugin,set-health=0,health=plugin,ping")
            .await;
        // The last that was said of it.
        assert_eq!(
            seen.step("health")["status"],
            "NOT_SERVING",
            "{}",
            pair.name
        );
        let seen = pair
            .run("set-health=0,set-health=1,health=plugin,kill")
            .await;
        assert_eq!(seen.step("health")["status"], "SERVING", "{}", pair.name);
    }
}

#[tokio::test]
async fn messages_of_seventy_megabytes_go_both_ways() {
    for pair in pairs([Version::V1_0_1, Version::V1_8_0]) {
        let pair = pair.flags(["-automtls"]);
        let seen = pair.run("echo=70000000,fill=70000000,double,kill").await;
        assert_eq!(seen.failure(), None, "{}", pair.name);
        for step in ["echo", "fill"] {
            assert_eq!(seen.step(step)["length"], 70_000_000, "{}", pair.name);
            assert_eq!(seen.step(step)["same"], true, "{}", pair.name);
        }
    }
}
