use tokio::time::Instant;
use tower_plugins::Plugins;

use super::stage::SECOND;
use crate::health::checked::Checked;
use crate::support::{causes, config, within};

#[tokio::test(start_paused = true)]
async fn start_is_whether_a_plugin_has_to_be_ready_before_it_serves() {
    let begun = Instant::now();
    let lazy = Checked::sick("start: lazy, health_check: { }", None).await;
    assert!(lazy.is_ok() && begun.elapsed() < SECOND);
    let ready = "start: ready, health_check: { }";
    let well = Checked::sick(ready, Some(3 * SECOND)).await.unwrap();
    let waited = begun.elapsed();
    assert!(waited >= 3 * SECOND && waited <= 4 * SECOND, "{waited:?}");
    let error = Checked::sick(ready, None).await.err().unwrap();
    let said = causes(&error);
    let at = "in-process:s0: status 503 Service Unavailable";
    assert!(said.contains("plugin `p`") && said.contains(at), "{said}");
    assert!(said.contains("start: lazy"), "{said}");

    // A reload that would not be ready changes nothing; one that only restacks asks nobody.
    well.answers(0, 503);
    let other =
        "plugins: { p: { transport: in-process, endpoint: s0, start: ready, health_check: { } },
        q: { transport: in-process, endpoint: s0, start: ready, health_check: { } } }";
    let error = well.plugins.reload(config(other)).await.unwrap_err();
    assert_eq!(error.plugin(), Some("q"));
    assert_eq!(well.plugins.names(), ["p"]);
    assert_eq!(well.plugins.status().rejected, 1);
    well.reload(1, &format!("{ready}, drain_timeout: 1s")).await;
}

#[tokio::test(start_paused = true)]
async fn start_timeout_is_how_long_a_start_waits_for_a_plugin() {
    for (keys, seconds) in [("start_timeout: 3s", 3), ("", 10)] {
        let begun = Instant::now();
        let keys = format!(
            "start: ready, {keys}{} health_check: {{ }}",
            if keys.is_empty() { "" } else { "," }
        );
        assert!(Checked::sick(&keys, None).await.is_err());
        assert_eq!(begun.elapsed().as_secs(), seconds);
    }
}

#[tokio::test]
async fn a_plugin_without_a_health_check_is_ready_with_a_connection() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let yaml = format!(
        "{{ plugins: {{ p: {{ transport: http, endpoint: 'http://{address}', start: ready, start_timeout: 300ms }} }} }}"
    );
    within(Plugins::builder().start(config(&yaml)))
        .await
        .unwrap();
    drop(listener);
    let error = within(Plugins::builder().start(config(&yaml)))
        .await
        .unwrap_err();
    assert!(causes(&error).contains("refused"), "{}", causes(&error));
}
