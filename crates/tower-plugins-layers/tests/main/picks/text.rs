//! Policies as text.

use http::HeaderName;
use serde_json::json;
use std::borrow::Cow;
use tower_plugins_layers::balance::{BalancePolicy, KeyFrom, Strategy, SubsetFallback};

#[test]
fn a_policy_is_written_and_read_again() {
    let policy = BalancePolicy::new(Strategy::RingHash)
        .bias(2.0)
        .hash_on(KeyFrom::header(HeaderName::from_static("x-user")))
        .hash_on(KeyFrom::cookie("session"))
        .load_factor(1.5)
        .panic_threshold(0.2)
        .overprovisioning(2.0)
        .zone("a")
        .subset("version", "2")
        .subset_on(
            "tenant",
            KeyFrom::header(HeaderName::from_static("x-tenant")),
        )
        .subset_fallback(SubsetFallback::None);
    let text = serde_json::to_value(&policy).expect("text");
    assert_eq!(
        text,
        json!({
            "strategy": "ring-hash", "bias": 2.0, "load_factor": 1.5, "panic_threshold": 0.2,
            "hash_on": [{ "header": "x-user" }, { "cookie": "session" }],
            "overprovisioning": 2.0, "zone": "a", "subset": { "version": "2" },
            "subset_on": { "tenant": { "header": "x-tenant" } }, "subset_fallback": "none",
        })
    );
    assert_eq!(
        serde_json::from_value::<BalancePolicy>(text).expect("a policy"),
        policy
    );
    let absent: BalancePolicy = serde_json::from_value(json!({})).expect("a policy");
    assert_eq!(absent, BalancePolicy::default());
    for strategy in Strategy::ALL {
        let text = serde_json::to_value(strategy).expect("text");
        assert_eq!(
            serde_json::from_value::<Strategy>(text).expect("one"),
            strategy
        );
    }
}

#[test]
fn a_policy_that_makes_no_sense_is_refused() {
    for (text, why) in [
        (json!({ "strategy": "fastest" }), "fastest"),
        (json!({ "load_factor": 0.9 }), "load_factor"),
        (json!({ "panic_threshold": 1.5 }), "panic_threshold"),
        (json!({ "panic_threshold": -0.1 }), "panic_threshold"),
        (json!({ "overprovisioning": 0.5 }), "overprovisioning"),
        (json!({ "bias": -1.0 }), "bias"),
        (
            json!({ "hash_on": [{ "header": "no header" }] }),
            "no header",
        ),
        (json!({ "hash_on": [{ "cookie": "a=b" }] }), "a=b"),
        (json!({ "weights": [1] }), "weights"),
    ] {
        let error = serde_json::from_value::<BalancePolicy>(text).expect_err("refused");
        assert!(error.to_string().contains(why), "{error}");
    }
    let function = KeyFrom::function(|_| Some(Cow::Borrowed(b"same")));
    let policy = BalancePolicy::default().hash_on(function);
    assert!(serde_json::to_value(&policy).is_err());
}
