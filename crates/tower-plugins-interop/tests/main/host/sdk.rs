//! A plugin of our own SDK.

use futures_util::{StreamExt, stream};
use serde_json::json;
use tower_plugins::transport::subprocess::Exited;
use tower_plugins_interop::peer::{Number, Payload};

use super::{describe, doubled, peer, start, until_gone, within};
use crate::support::MODES;

#[tokio::test]
async fn a_plugin_of_the_sdk_serves_our_host_in_each_mode() {
    for mode in MODES {
        let keys = format!(
            "transport: subprocess, executable: {}, retry: off, circuit_breaker: off, {}",
            json!(env!("CARGO_BIN_EXE_plugin")),
            mode.key()
        );
        let plugins = start(&keys).await;
        assert_eq!(doubled(&plugins, 21).await.unwrap(), 42, "{mode:?}");
        let numbers = stream::iter(0..1_000).map(|value| Number { value });
        let doubles = within(peer(&plugins).doubles(numbers)).await.unwrap();
        let doubles = doubles.into_inner().map(|answer| answer.unwrap().value);
        let doubles: Vec<_> = within(doubles.collect()).await;
        assert!(
            doubles.into_iter().eq((0..1_000).map(|value| 2 * value)),
            "{mode:?}"
        );
        let data = bytes::Bytes::from(vec![7; 70 << 20]);
        let echoed = within(peer(&plugins).echo(Payload { data: data.clone() })).await;
        assert!(echoed.unwrap().into_inner().data == data, "{mode:?}");

        let exits = within(peer(&plugins).exit(Number { value: 7 })).await;
        let status = exits.unwrap_err();
        let exited = Exited::find(std::error::Error::source(&status).unwrap());
        assert_eq!(exited.unwrap().code(), Some(7), "{mode:?}");
        let pid = describe(&plugins).await.pid;
        within(plugins.shutdown(super::BOUND)).await.unwrap();
        until_gone(pid).await;
    }
}
