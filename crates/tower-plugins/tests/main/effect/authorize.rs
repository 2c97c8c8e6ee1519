use http::{HeaderMap, Request};
use tower_plugins::{Body, Reason};

use super::stage::Stage;

fn showing(header: &str, value: &str) -> Request<Body> {
    let request = Request::get("/").header(header, value);
    request.body(Body::default()).unwrap()
}

/// What the plugin was sent of a call that shows `value`, or why the call was refused.
pub(super) async fn sent(stage: &Stage, header: &str, value: &str) -> Result<HeaderMap, Reason> {
    match stage.send("p", showing(header, value)).await {
        Ok(_) => Ok(stage.seen().remove(0).request.headers().clone()),
        Err(error) => {
            assert!(stage.seen().is_empty());
            assert!(!error.is_retryable());
            Err(error.reason().unwrap())
        }
    }
}

#[tokio::test]
async fn api_keys_are_those_with_which_a_call_goes_in_and_they_go_no_further() {
    let stage = Stage::of("authorize: { api_keys: { billing: one, search: two } }").await;
    for key in ["one", "two"] {
        assert_eq!(sent(&stage, "x-api-key", key).await, Ok(HeaderMap::new()));
    }
    for key in ["", "three", "billing"] {
        assert_eq!(
            sent(&stage, "x-api-key", key).await,
            Err(Reason::Unauthenticated)
        );
    }
    assert_eq!(stage.refusal().await, Some(Reason::Unauthenticated));
}

#[tokio::test]
async fn api_key_header_is_where_keys_are_looked_for() {
    let stage = Stage::of("authorize: { api_keys: { a: one }, api_key_header: X-Own }").await;
    assert_eq!(sent(&stage, "x-own", "one").await, Ok(HeaderMap::new()));
    assert_eq!(
        sent(&stage, "x-api-key", "one").await,
        Err(Reason::Unauthenticated)
    );
}

#[tokio::test]
async fn bearer_tokens_are_those_with_which_a_call_goes_in() {
    let keys = "authorize: { bearer_tokens: { ci: one } }, auth: { method: bearer, token: ours }";
    let stage = Stage::of(keys).await;
    // What the caller showed is taken off, and what the plugin is shown is the program's own.
    let headers = sent(&stage, "authorization", "Bearer one").await.unwrap();
    assert_eq!(headers["authorization"], "Bearer ours");
    for wrong in ["Bearer ours", "Bearer two", "one"] {
        let refused = sent(&stage, "authorization", wrong).await;
        assert_eq!(refused, Err(Reason::Unauthenticated), "{wrong}");
    }
}

#[tokio::test]
async fn jwt_is_one_of_three_ways_in() {
    let stage = Stage::of(
        "authorize: { api_keys: { a: k }, bearer_tokens: { b: t },
            jwt: { secret: 'a secret of more than thirty-two bytes', algorithms: [HS256] } }",
    )
    .await;
    let token = super::jwt::hs256(&serde_json::json!({}));
    for (header, value) in [
        ("x-api-key", "k"),
        ("authorization", "Bearer t"),
        ("authorization", &token),
    ] {
        assert_eq!(sent(&stage, header, value).await, Ok(HeaderMap::new()));
    }
    let refused = sent(&stage, "authorization", &format!("{token}x")).await;
    assert_eq!(refused, Err(Reason::Unauthenticated));
}

#[tokio::test]
async fn anonymous_lets_in_who_shows_nothing() {
    let stage = Stage::of("authorize: { api_keys: { a: one }, anonymous: true }").await;
    assert_eq!(stage.asked(2).await, 2);
    assert_eq!(sent(&stage, "x-api-key", "one").await, Ok(HeaderMap::new()));
    // A key that is wrong is not as good as none.
    let refused = sent(&stage, "x-api-key", "two").await;
    assert_eq!(refused, Err(Reason::Unauthenticated));
}

#[tokio::test]
async fn forward_credentials_lets_what_was_shown_go_on() {
    let callers = "api_keys: { a: one }, bearer_tokens: { b: two }, forward_credentials: true";
    let stage = Stage::of(&format!("authorize: {{ {callers} }}")).await;
    let headers = sent(&stage, "x-api-key", "one").await.unwrap();
    assert_eq!(headers["x-api-key"], "one");
    let refused = sent(&stage, "x-api-key", "three").await;
    assert_eq!(refused, Err(Reason::Unauthenticated));

    // What the program shows takes the place of what its caller did.
    let keys = format!("authorize: {{ {callers} }}, auth: {{ method: bearer, token: ours }}");
    let stage = Stage::of(&keys).await;
    let headers = sent(&stage, "authorization", "Bearer two").await.unwrap();
    assert_eq!(headers["authorization"], "Bearer ours");
}
