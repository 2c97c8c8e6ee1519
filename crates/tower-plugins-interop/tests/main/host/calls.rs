//! What goes over.

use futures_util::{StreamExt, stream};
use tower::ServiceExt;
use tower_plugins::transport::AppVersion;
use tower_plugins_interop::peer::{Number, Payload};
use tower_plugins_interop::{Version, go};

use super::{config, describe, doubled, keys, peer, start, within};
use crate::support::MODES;

/// Our host with a plugin of `version`, in each mode that it has.
async fn calls(version: Version) {
    let Some(program) = go(version) else { return };
    for mode in MODES.into_iter().filter(|mode| mode.is_of(version)) {
        let keys = format!("{}, {}", keys(&program, &[]), mode.key());
        let plugins = start(&keys).await;
        let at = format!("{} {mode:?}", version.name());
        assert_eq!(doubled(&plugins, 21).await.unwrap(), 42, "{at}");
        let numbers = stream::iter(1..=1_000).map(|value| Number { value });
        let answers = within(peer(&plugins).doubles(numbers)).await.unwrap();
        let answers = answers.into_inner().map(|answer| answer.unwrap().value);
        let answers: Vec<_> = within(answers.collect()).await;
        let doubles: Vec<_> = (1..=1_000).map(|value| 2 * value).collect();
        assert_eq!(answers, doubles, "{at}");
        within(plugins.shutdown(super::BOUND)).await.unwrap();
    }
}

#[tokio::test]
async fn a_plugin_of_1_0_1_is_called() {
    calls(Version::V1_0_1).await;
}

#[tokio::test]
async fn a_plugin_of_1_4_10_is_called() {
    calls(Version::V1_4_10).await;
}

#[tokio::test]
async fn a_plugin_of_1_6_3_is_called() {
    calls(Version::V1_6_3).await;
}

#[tokio::test]
async fn a_plugin_of_1_8_0_is_called() {
    calls(Version::V1_8_0).await;
}

#[tokio::test]
async fn messages_of_seventy_megabytes_go_both_ways() {
    let Some(program) = go(Version::V1_8_0) else {
        return;
    };
    let plugins = start(&keys(&program, &[])).await;
    for length in [5 << 20, 70 << 20] {
        let data = vec![7; length].into();
        let answer = within(peer(&plugins).echo(Payload { data })).await.unwrap();
        let data = answer.into_inner().data;
        assert!(data.len() == length && data.iter().all(|byte| *byte == 7));
    }
}

#[tokio::test]
async fn the_highest_common_version_is_spoken_and_each_response_says_it() {
    let Some(program) = go(Version::V1_8_0) else {
        return;
    };
    for (ours, theirs, spoken) in [
        ("[4, 5]", "4,5,6", 5),
        ("[6, 4]", "5,4", 4),
        ("[0]", "0,1", 0),
    ] {
        let keys = keys(&program, &["-versions", theirs]);
        let keys = format!("{keys}, go_plugin: {{ protocol_versions: {ours} }}");
        let plugins = start(&keys).await;
        assert_eq!(describe(&plugins).await.version, spoken);
        let mut request = http::Request::post("/peer.v1.Peer/Double");
        for (name, value) in [("content-type", "application/grpc"), ("te", "trailers")] {
            request = request.header(name, value);
        }
        let request = request.body(tower_plugins::Body::from(vec![0; 5])).unwrap();
        let response = within(plugins.plugin("p").oneshot(request)).await.unwrap();
        let said = response.extensions().get::<AppVersion>();
        assert_eq!(said.map(|said| i64::from(said.0)), Some(i64::from(spoken)));
    }
}

#[tokio::test]
async fn a_plugin_is_given_the_protocols_variables_and_no_more() {
    let Some(program) = go(Version::V1_8_0) else {
        return;
    };
    let base = tempfile::tempdir().unwrap();
    let keys = keys(&program, &["-versions", "1,7"]);
    let keys = format!(
        "{keys}, env: {{ OWN: '1' }}, work_dir: '{0}', go_plugin: {{ auto_mtls: false, protocol_versions: [7, 1], socket_dir: '{0}' }}",
        base.path().display()
    );
    let plugins = start(&keys).await;
    let said = describe(&plugins).await;
    let mut names: Vec<_> = (said.environment.iter())
        .filter_map(|variable| variable.split_once('='))
        .filter(|(name, _)| name.starts_with("PLUGIN_"))
        .collect();
    names.sort_unstable();
    let directory = names.pop().unwrap();
    let expected = [
        ("PLUGIN_MAX_PORT", "25000"),
        ("PLUGIN_MIN_PORT", "10000"),
        ("PLUGIN_PROTOCOL_VERSIONS", "1,7"),
    ];
    assert_eq!(names, expected);
    assert_eq!(directory.0, "PLUGIN_UNIX_SOCKET_DIR");
    let directory = std::path::Path::new(directory.1);
    assert_eq!(directory.parent(), Some(base.path()));
    assert_eq!(std::fs::read_dir(directory).unwrap().count(), 1);
    assert!(said.environment.contains(&"OWN=1".to_owned()));
    assert_eq!(
        said.directory,
        base.path().canonicalize().unwrap().to_str().unwrap()
    );
    assert_eq!(said.stdin, "/dev/null");
    within(plugins.shutdown(super::BOUND)).await.unwrap();
    assert_eq!(
        std::fs::read_dir(base.path()).unwrap().count(),
        0,
        "nothing is left"
    );
    drop(config(&keys));
}
