//! How a plugin's process ends.

use std::time::Duration;

use tokio::time::Instant;

use tower_plugins::transport::subprocess::Exited;
use tower_plugins_interop::peer::{Number, Text};
use tower_plugins_interop::{Version, go};

use super::{describe, doubled, keys, peer, start, until_gone, within};
use crate::support::MODES;

fn exited(status: &tonic::Status) -> Exited {
    let source = std::error::Error::source(status).expect("it has a source");
    let exited = Exited::find(source);
    exited.unwrap_or_else(|| panic!("{status:?}")).clone()
}

#[tokio::test]
async fn a_call_whose_process_panics_has_what_it_said_last() {
    let Some(program) = go(Version::V1_8_0) else {
        return;
    };
    for mode in MODES {
        let keys = format!("{}, {}", keys(&program, &[]), mode.key());
        let plugins = start(&keys).await;
        let value = "the cellar is empty".to_owned();
        let status = within(peer(&plugins).panic(Text { value })).await;
        let exited = exited(&status.unwrap_err());
        assert_eq!(exited.code(), Some(2), "{mode:?}");
        let said = exited.stderr().join("\n");
        assert!(said.contains("goroutine"), "{mode:?}: {said}");
        assert_eq!(doubled(&plugins, 4).await.unwrap(), 8, "it is there again");
    }
}

#[tokio::test]
async fn a_call_whose_process_exits_has_its_code_and_what_comes_next_is_served() {
    let Some(program) = go(Version::V1_8_0) else {
        return;
    };
    for mode in MODES {
        let keys = format!("{}, {}", keys(&program, &[]), mode.key());
        let plugins = start(&keys).await;
        let first = describe(&plugins).await.pid;
        let status = within(peer(&plugins).exit(Number { value: 7 })).await;
        assert_eq!(exited(&status.unwrap_err()).code(), Some(7), "{mode:?}");
        let next = describe(&plugins).await.pid;
        assert_ne!(next, first);
    }
}

#[tokio::test]
async fn a_plugin_cleans_up_when_it_is_told_to_shut_down() {
    for version in Version::ALL {
        let Some(program) = go(version) else { return };
        for mode in MODES.into_iter().filter(|mode| mode.is_of(version)) {
            let keys = format!(
                "{}, {}, process: {{ stop_timeout: 1m }}",
                keys(&program, &[]),
                mode.key()
            );
            let plugins = start(&keys).await;
            let pid = describe(&plugins).await.pid;
            let begun = Instant::now();
            let linger = Number { value: 300 };
            within(peer(&plugins).linger(linger)).await.unwrap();
            within(plugins.shutdown(super::BOUND)).await.unwrap();
            let took = begun.elapsed();
            assert!(
                took >= Duration::from_millis(300),
                "{}: {took:?}",
                version.name()
            );
            until_gone(pid).await;
        }
    }
}

#[tokio::test]
async fn a_plugin_that_hangs_in_shutdown_is_ended_all_the_same() {
    let Some(program) = go(Version::V1_8_0) else {
        return;
    };
    let keys = format!("{}, process: {{ stop_timeout: 1s }}", keys(&program, &[]));
    let plugins = start(&keys).await;
    let pid = describe(&plugins).await.pid;
    let stall = Number { value: 3_600_000 };
    within(peer(&plugins).stall_shutdown(stall)).await.unwrap();
    within(plugins.shutdown(super::BOUND)).await.unwrap();
    until_gone(pid).await;
}

#[tokio::test]
async fn a_grandchild_that_holds_the_pipes_holds_up_nothing() {
    let Some(program) = go(Version::V1_8_0) else {
        return;
    };
    let plugins = start(&keys(&program, &[])).await;
    let hold = Number { value: 3_600_000 };
    let child = within(peer(&plugins).spawn(hold)).await.unwrap();
    let child = i32::try_from(child.into_inner().value).unwrap();
    within(plugins.shutdown(super::BOUND)).await.unwrap();
    until_gone(child).await;
}
