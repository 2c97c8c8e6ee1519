//! Policies as text.

use super::*;

#[test]
fn a_policy_is_read_from_text_and_written_as_it_was() {
    let text = r#"{"consecutive_failures":null,"failure_rate":0.25,"slow_call":"2s","slow_rate":0.5,"window_calls":50,"min_requests":5,"recovery":"3s","max_recovery":"1m","jitter":0.1,"success_threshold":2}"#;
    let policy: BreakerPolicy = serde_json::from_str(text).expect("a policy");
    let built = BreakerPolicy::new()
        .consecutive_failures(None)
        .failure_rate(0.25)
        .slow_call(Duration::from_secs(2))
        .slow_rate(0.5)
        .window_calls(50)
        .min_requests(5)
        .recovery(Duration::from_secs(3))
        .max_recovery(Duration::from_secs(60))
        .jitter(0.1)
        .success_threshold(2);
    assert_eq!(policy, built);
    assert_eq!(serde_json::to_string(&policy).expect("text"), text);
    let absent: BreakerPolicy = serde_json::from_str("{}").expect("a policy");
    assert_eq!(absent, BreakerPolicy::new());
    let written = serde_json::to_string(&absent).expect("text");
    assert_eq!(
        serde_json::from_str::<BreakerPolicy>(&written).expect("a policy"),
        absent
    );
}

#[test]
fn a_policy_that_makes_no_sense_is_refused_with_what_to_write() {
    for (text, says) in [
        (r#"{"consecutive_failures":0}"#, "at least 1"),
        (r#"{"failure_rate":0.0}"#, "above 0"),
        (r#"{"failure_rate":1.5}"#, "at most 1"),
        (r#"{"slow_rate":2}"#, "at most 1"),
        (r#"{"window":"1ms"}"#, "at least 10ms"),
        (r#"{"window":"10s","window_calls":10}"#, "keep one"),
        (r#"{"window_calls":0}"#, "between 1 and 65536"),
        (r#"{"window_calls":70000}"#, "between 1 and 65536"),
        (r#"{"recovery":"0s"}"#, "at least 1ms"),
        (r#"{"jitter":-0.5}"#, "between 0 and 1"),
        (r#"{"success_threshold":0}"#, "at least 1"),
        (r#"{"recovery":5}"#, "invalid type"),
        (r#"{"failures":5}"#, "unknown field"),
    ] {
        let error = serde_json::from_str::<BreakerPolicy>(text)
            .expect_err(text)
            .to_string();
        assert!(error.contains(says), "{text}: {error}");
    }
}
