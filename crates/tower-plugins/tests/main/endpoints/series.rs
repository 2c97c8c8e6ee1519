//! What metrics call endpoints that come and go.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use futures_util::stream;
use metrics_util::debugging::{DebuggingRecorder, Snapshotter};
use tokio::sync::mpsc;
use tower::discover::Change;
use tower_plugins::Plugins;
use tower_plugins::config::{Address, EndpointSpec};

use super::dns::server::NameServer;
use crate::support::{config, within};

/// The endpoints that any metric has had a series for.
fn endpoints(snapshots: &Snapshotter) -> BTreeSet<String> {
    let series = snapshots.snapshot().into_vec();
    let labels = series.iter().flat_map(|(key, ..)| key.key().labels());
    let endpoints = labels.filter(|label| label.key() == "endpoint");
    endpoints.map(|label| label.value().to_owned()).collect()
}

/// Waits until the plugin is at these places, and no others.
async fn until(plugins: &Plugins, places: &[&str]) {
    let settled = async || {
        tokio::task::yield_now().await;
        let breakers = plugins.breakers("p");
        breakers.len() == places.len()
            && breakers
                .iter()
                .zip(places)
                .all(|((address, _), place)| address.to_string().contains(place))
    };
    within(async { while !settled().await {} }).await;
}

#[tokio::test]
async fn endpoints_that_a_program_tells_of_leave_no_series_behind() {
    let recorder = DebuggingRecorder::new();
    let snapshots = recorder.snapshotter();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let (sender, receiver) = mpsc::unbounded_channel();
    let changes = stream::unfold(receiver, |mut receiver| async {
        let change: Change<u8, EndpointSpec> = receiver.recv().await?;
        Some((Ok::<_, std::io::Error>(change), receiver))
    });
    let yaml =
        "plugins: { p: { transport: http, endpoints: ['http://127.0.0.1:9', { from: hosts }],
        health_check: { kind: tcp, interval: 1h } } }";
    let builder = Plugins::builder().endpoints("hosts", changes);
    let plugins = builder.start(config(yaml)).await.unwrap();
    for n in 1..100 {
        let place = format!("10.0.0.{n}");
        let address = Address::http(&format!("http://{place}")).unwrap();
        sender.send(Change::Insert(1, address.into())).unwrap();
        until(&plugins, &["127.0.0.1:9", &place]).await;
    }
    // As many at once as there are while one takes the place of the other.
    let known = ["hosts#1", "hosts#2", "http://127.0.0.1:9"];
    assert_eq!(endpoints(&snapshots), known.map(str::to_owned).into());
}

#[tokio::test]
async fn endpoints_that_a_name_server_tells_of_leave_no_series_behind() {
    let recorder = DebuggingRecorder::new();
    let snapshots = recorder.snapshotter();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let names = NameServer::start().await;
    let url = names.url("search.test:80");
    let yaml = format!(
        "plugins: {{ p: {{ transport: http, endpoint: '{url}', health_check: {{ kind: tcp, interval: 1h }},
            dns: {{ min_ttl: 1ms, max_ttl: 2ms }} }} }}"
    );
    names.addresses("search.test", 0, &[Ipv4Addr::new(10, 0, 0, 1)]);
    let plugins = Plugins::builder().start(config(&yaml)).await.unwrap();
    for n in 1..50 {
        let place = Ipv4Addr::new(10, 0, 0, n);
        names.addresses("search.test", 0, &[place]);
        until(&plugins, &[&format!("at {place}:80")]).await;
    }
    let known = [format!("{url}#1"), format!("{url}#2")];
    assert_eq!(endpoints(&snapshots), known.into());
}
