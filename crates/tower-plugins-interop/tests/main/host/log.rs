//! What a plugin writes past go-plugin: its log, and what it was started with.

use tower_plugins_interop::peer::{Sink, Text, WriteRequest};
use tower_plugins_interop::{Version, go, pattern};
use tracing::Level;

use super::{keys, named, within};
use crate::events::{self, Line};

/// Fewer lines than are left out of a log.
const LENGTH: usize = 4_000 * 64;

#[tokio::test]
async fn what_is_written_to_the_raw_streams_is_logged_line_by_line() {
    for (name, version) in [
        ("writes-1-0-1", Version::V1_0_1),
        ("writes-1-8-0", Version::V1_8_0),
    ] {
        let Some(program) = go(version) else { return };
        events::listen();
        let (plugins, mut client) = named(name, &keys(&program, &[])).await;
        let is_of_pattern = |line: &Line| line.message.len() == 63 && !line.message.contains(' ');
        let length = i64::try_from(LENGTH).unwrap();
        for (nth, sink) in [Sink::RawStdout, Sink::RawStderr].into_iter().enumerate() {
            let sink = sink.into();
            within(client.write(WriteRequest { sink, length }))
                .await
                .unwrap();
            let before = nth * LENGTH / 64;
            let lines = events::lines(name, before + LENGTH / 64, is_of_pattern).await;
            let lines = lines[before..].iter();
            let logged: Vec<u8> = lines
                .flat_map(|line| line.message.bytes().chain(*b"\n"))
                .collect();
            assert!(logged == pattern(LENGTH), "{} {sink}", version.name());
        }
        within(plugins.shutdown(super::BOUND)).await.unwrap();
    }
}

#[tokio::test]
async fn what_hclog_writes_keeps_its_level_and_its_fields() {
    for (name, version) in [
        ("logs-1-0-1", Version::V1_0_1),
        ("logs-1-8-0", Version::V1_8_0),
    ] {
        let Some(program) = go(version) else { return };
        events::listen();
        let (plugins, mut client) = named(name, &keys(&program, &[])).await;
        let value = "a line".to_owned();
        within(client.log(Text { value })).await.unwrap();
        let lines = events::lines(name, 5, |line| line.message == "a line").await;
        let levels: Vec<_> = lines.iter().filter_map(|line| line.level).collect();
        let all = [
            Level::TRACE,
            Level::DEBUG,
            Level::INFO,
            Level::WARN,
            Level::ERROR,
        ];
        assert_eq!(levels, all);
        assert!(lines.iter().all(|line| line.module == "peer"), "{lines:?}");
        let has_field = |line: &Line| line.fields.contains(r#""number":7"#);
        assert!(lines.iter().all(has_field), "{lines:?}");
        within(plugins.shutdown(super::BOUND)).await.unwrap();
    }
}

#[tokio::test]
async fn a_panic_and_its_stack_are_logged_as_errors() {
    let Some(program) = go(Version::V1_8_0) else {
        return;
    };
    events::listen();
    let (_plugins, mut client) = named("panics", &keys(&program, &[])).await;
    let value = "the cellar is empty".to_owned();
    within(client.panic(Text { value })).await.unwrap_err();
    let is_error = |line: &Line| line.level == Some(Level::ERROR);
    let lines = events::lines("panics", 3, is_error).await;
    assert_eq!(lines[0].message, "panic: the cellar is empty");
    assert!(
        lines
            .iter()
            .any(|line| line.message.starts_with("goroutine ")),
        "{lines:?}"
    );
}
