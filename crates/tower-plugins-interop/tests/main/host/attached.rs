//! Plugins that run already.

use std::path::Path;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tower_plugins::config::Reattach;
use tower_plugins::session::SessionError;
use tower_plugins::{Plugins, Reason};
use tower_plugins_interop::peer::Number;
use tower_plugins_interop::peer::adder_server::AdderServer;
use tower_plugins_interop::{Version, go};
use tower_plugins_proto::go_plugin::Address;

use super::refusals::causes;
use super::sessions::{Adds, both_ways};
use super::{BOUND, doubled, peer, until_gone, within};

/// A plugin in Go that nobody hosts, and what it says of where it is. It ends with its stdin.
async fn in_test_mode(program: &Path) -> (Child, Reattach) {
    let mut child = Command::new(program)
        .args(["plugin", "-test"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let said = within(lines.next_line()).await.unwrap().unwrap();
    (child, serde_json::from_str(&said).unwrap())
}

/// The plugin `p`, attached to at `reattach`.
async fn attached(reattach: &Reattach) -> Plugins {
    let said = serde_json::to_string(reattach).unwrap();
    super::start(&format!(
        "transport: subprocess, retry: off, go_plugin: {{ reattach: '{said}' }}"
    ))
    .await
}

#[tokio::test]
async fn a_plugin_in_test_mode_is_attached_to_twice_and_lives_on() {
    let Some(program) = go(Version::V1_8_0) else {
        return;
    };
    let (mut child, reattach) = in_test_mode(&program).await;
    assert!(reattach.test && Some(reattach.pid) == child.id());
    for _ in 0..2 {
        let plugins = attached(&reattach).await;
        assert_eq!(doubled(&plugins, 21).await.unwrap(), 42);
        within(plugins.shutdown(BOUND)).await.unwrap();
    }
    assert!(child.try_wait().unwrap().is_none());
    drop(child.stdin.take());
    within(child.wait()).await.unwrap();
}

#[tokio::test]
async fn one_that_is_this_hosts_is_ended_with_the_plugins() {
    let Some(program) = go(Version::V1_8_0) else {
        return;
    };
    let (mut child, mut reattach) = in_test_mode(&program).await;
    reattach.test = false;
    let plugins = attached(&reattach).await;
    assert_eq!(doubled(&plugins, 21).await.unwrap(), 42);
    let stopped = async { tokio::join!(plugins.shutdown(BOUND), child.wait()) };
    let (shut_down, ended) = within(stopped).await;
    assert!(shut_down.is_ok() && ended.is_ok());
}

#[tokio::test]
async fn the_end_of_its_process_is_noticed_and_no_other_is_attached_to() {
    let Some(program) = go(Version::V1_8_0) else {
        return;
    };
    let (mut child, reattach) = in_test_mode(&program).await;
    let plugins = attached(&reattach).await;
    assert_eq!(doubled(&plugins, 21).await.unwrap(), 42);
    let mut client = peer(&plugins);
    let waits = tokio::spawn(async move { client.wait(Number { value: 60_000 }).await });
    assert_eq!(doubled(&plugins, 1).await.unwrap(), 2);
    child.kill().await.unwrap();
    until_gone(i32::try_from(reattach.pid).unwrap()).await;
    let lost = within(waits).await.unwrap().unwrap_err();
    assert_eq!(Reason::of(&lost), Some(Reason::ConnectionLost));
    let lost = doubled(&plugins, 1).await.unwrap_err();
    let said = causes(&lost);
    assert!(said.contains("has ended"), "{said}");
}

#[tokio::test]
async fn one_that_is_attached_to_and_this_host_call_each_other() {
    let Some(program) = go(Version::V1_8_0) else {
        return;
    };
    let (mut child, reattach) = in_test_mode(&program).await;
    let plugins = attached(&reattach).await;
    let session = within(plugins.plugin("p").session()).await.unwrap();
    both_ways(&session, "attached").await;
    child.kill().await.unwrap();
    within(session.ended()).await;
    let offer = session.serve(AdderServer::new(Adds::default())).await;
    assert!(matches!(offer, Err(SessionError::Ended(_))), "{offer:?}");
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let Some(program) = go(Version::V1_8_0) else {
        return;
    };
    let (mut child, reattach) = in_test_mode(&program).await;
    let elsewhere = Reattach {
        address: Address::Unix("/nowhere".into()),
        ..reattach.clone()
    };
    let said = causes(&doubled(&attached(&elsewhere).await, 1).await.unwrap_err());
    assert!(said.contains("/nowhere"), "{said}");
    child.kill().await.unwrap();
    within(child.wait()).await.unwrap();
    let said = causes(&doubled(&attached(&reattach).await, 1).await.unwrap_err());
    let expected = format!("there is no process {} to attach to", reattach.pid);
    assert!(said.contains(&expected), "{said}");
}

#[tokio::test]
async fn a_plugin_of_our_sdk_says_where_it_is_as_gos_tools_do() {
    let serving = tower_plugins_sdk::Plugin::new("p", "1.0.0").test().await;
    let serving = serving.unwrap();
    let said = serving.reattach().to_string();
    let reattach: Reattach = serde_json::from_str(&said).unwrap();
    assert_eq!(serde_json::to_string(&reattach).unwrap(), said);
    assert_eq!((reattach.pid, reattach.test), (std::process::id(), true));
    let plugins = attached(&reattach).await;
    let unimplemented = doubled(&plugins, 1).await.unwrap_err();
    assert_eq!(unimplemented.code(), tonic::Code::Unimplemented);
    within(plugins.shutdown(BOUND)).await.unwrap();
    within(serving.stop()).await;
}
