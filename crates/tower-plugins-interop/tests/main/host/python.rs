//! A plugin in Python, which has neither go-plugin's code nor a broker.

use std::path::Path;

use futures_util::{StreamExt, stream};
use serde_json::json;
use tower_plugins_interop::peer::{Number, Payload, Text};
use tower_plugins_interop::{pattern, python};
use tracing::Level;

use super::{named, within};
use crate::events;
use crate::support::MODES;

/// With AutoMTLS and without, but not on one socket.
async fn serves(name: &'static str, address: &str) {
    let Some(interpreter) = python() else { return };
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/plugin.py");
    events::listen();
    for mode in &MODES[..2] {
        let keys = format!(
            "transport: subprocess, executable: {}, args: [{}], env: {{ PEER_ADDRESS: {address} }}, retry: off, {}",
            json!(interpreter),
            json!(program),
            mode.key()
        );
        let (plugins, mut client) = named(name, &keys).await;
        let answer = within(client.double(Number { value: 21 })).await.unwrap();
        assert_eq!(answer.into_inner().value, 42, "{mode:?}");
        let numbers = stream::iter(0..100).map(|value| Number { value });
        let doubles = within(client.doubles(numbers)).await.unwrap().into_inner();
        let doubles = doubles.map(|answer| answer.unwrap().value);
        let doubles: Vec<_> = within(doubles.collect()).await;
        assert!(
            doubles.into_iter().eq((0..100).map(|value| 2 * value)),
            "{mode:?}"
        );
        let data = bytes::Bytes::from(pattern(1_000_000));
        let echoed = within(client.echo(Payload { data: data.clone() })).await;
        assert!(echoed.unwrap().into_inner().data == data, "{mode:?}");
        let value = format!("in {mode:?}");
        within(client.log(Text {
            value: value.clone(),
        }))
        .await
        .unwrap();
        let lines = events::lines(name, 5, |line| line.message == value).await;
        assert_eq!(lines[4].level, Some(Level::ERROR));
        within(plugins.shutdown(super::BOUND)).await.unwrap();
    }
}

#[tokio::test]
async fn a_plugin_in_python_serves_on_a_socket_with_and_without_auto_mtls() {
    serves("python", "unix").await;
}

#[tokio::test]
async fn a_plugin_in_python_serves_on_a_port_with_and_without_auto_mtls() {
    serves("python-tcp", "tcp").await;
}
