//! Policies of retry and hedge as text.

use serde_json::{Value, from_value, json, to_value};
use tower_plugins_layers::hedge::HedgePolicy;
use tower_plugins_layers::retry::RetryPolicy;

fn retry(text: Value) -> Result<Value, String> {
    let policy: RetryPolicy = from_value(text).map_err(|error| error.to_string())?;
    Ok(to_value(policy).unwrap_or_default())
}

fn hedge(text: Value) -> Result<Value, String> {
    let policy: HedgePolicy = from_value(text).map_err(|error| error.to_string())?;
    Ok(to_value(policy).unwrap_or_default())
}

#[tokio::test]
async fn retry_and_hedge_are_read_as_they_are_written_and_what_is_absent_is_the_default() {
    assert_eq!(
        retry(json!({})),
        to_value(RetryPolicy::new()).map_err(|error| error.to_string())
    );
    let full = json!({
        "max_retries": 2,
        "backoff": {"initial": "50ms", "max": "2s", "multiplier": 3.0, "jitter": "decorrelated"},
        "budget": {"kind": "in_flight", "share": 0.5, "min": 2},
        "max_replay": 1024,
        "on": ["5xx", "429", "grpc:resource-exhausted", "connect-failure"],
        "idempotent": ["/search", "/pkg.Catalog/Get*"],
        "never": ["/pay*"],
        "attempt_header": "x-attempt",
        "first_frame_wait": "50ms",
        "hedge": {
            "max_hedges": 2,
            "delay": "20ms",
            "quantile": 0.99,
            "min_samples": 10,
            "paths": ["/search"],
        },
    });
    assert_eq!(retry(full.clone()), Ok(full.clone()));
    assert_eq!(hedge(full["hedge"].clone()), Ok(full["hedge"].clone()));
    let tokens = json!({"budget": {"kind": "tokens"}});
    let written = retry(tokens).unwrap_or_default();
    assert_eq!(
        written["budget"],
        json!({"kind": "tokens", "max": 10, "ratio": 0.1})
    );
}

#[tokio::test]
async fn what_makes_no_sense_of_retry_and_hedge_is_refused() {
    for (text, says) in [
        (json!({"retries": 3}), "unknown field"),
        (json!({"max_retries": 101}), "from 0 to 100"),
        (
            json!({"on": ["sometimes"]}),
            "nothing is retried on `sometimes`",
        ),
        (
            json!({"on": ["grpc:ok"]}),
            "nothing is retried on `grpc:ok`",
        ),
        (json!({"on": ["200"]}), "nothing is retried on `200`"),
        (
            json!({"budget": {"kind": "ratio", "ratio": -1.0}}),
            "0 to 1000",
        ),
        (
            json!({"budget": {"kind": "tokens", "max": 0}}),
            "at least one token",
        ),
        (
            json!({"budget": {"kind": "ratio", "share": 1.0}}),
            "unknown field",
        ),
        (
            json!({"backoff": {"initial": "2s", "max": "1s"}}),
            "not longer",
        ),
        (json!({"backoff": {"multiplier": 0.5}}), "from 1 to 100"),
        (json!({"backoff": {"initial": 100}}), "expected a duration"),
        (json!({"attempt_header": "x attempt"}), "header"),
        (json!({"hedge": {"max_hedges": 0}}), "from 1 to 4"),
    ] {
        let error = retry(text.clone()).err().unwrap_or_default();
        assert!(error.contains(says), "{text}: {error}");
    }
    for (text, says) in [
        (json!({"max_hedges": 5}), "from 1 to 4"),
        (json!({"quantile": 1.0}), "between 0 and 1"),
        (json!({"quantile": null}), "needs a `quantile` or a `delay`"),
        (json!({"delays": "1s"}), "unknown field"),
    ] {
        let error = hedge(text.clone()).err().unwrap_or_default();
        assert!(error.contains(says), "{text}: {error}");
    }
}
