use http::HeaderMap;

use super::stage::Stage;

/// The headers that a plugin with this `auth` is sent.
async fn sent(auth: &str) -> HeaderMap {
    let stage = Stage::of(&format!("auth: {{ {auth} }}")).await;
    stage.call().await.unwrap();
    let seen = stage.seen();
    seen[0].request.headers().clone()
}

#[tokio::test]
async fn method_is_how_the_secret_is_sent() {
    assert_eq!(sent("method: none").await, HeaderMap::new());
    for (auth, header, value) in [
        ("method: api-key, api_key: k", "x-api-key", "k"),
        ("method: api_key, api_key: k", "x-api-key", "k"),
        ("method: bearer, token: t", "authorization", "Bearer t"),
        (
            "method: basic, username: u, password: p",
            "authorization",
            "Basic dTpw",
        ),
        ("method: custom, headers: { x-own: v }", "x-own", "v"),
    ] {
        let headers = sent(auth).await;
        assert_eq!(
            (headers.len(), headers.get(header)),
            (1, Some(&value.parse().unwrap())),
            "{auth}"
        );
    }
}

#[tokio::test]
async fn api_key_is_the_value_of_the_header() {
    for key in ["one", "two"] {
        let headers = sent(&format!("method: api-key, api_key: {key}")).await;
        assert_eq!(headers["x-api-key"], key);
    }
}

#[tokio::test]
async fn header_is_the_one_that_carries_the_api_key() {
    let headers = sent("method: api-key, api_key: k, header: X-Own-Key").await;
    assert_eq!(headers["x-own-key"], "k");
    assert!(!headers.contains_key("x-api-key"));
}

#[tokio::test]
async fn token_is_what_follows_bearer() {
    for token in ["one", "two"] {
        let headers = sent(&format!("method: bearer, token: {token}")).await;
        assert_eq!(headers["authorization"], format!("Bearer {token}"));
    }
}

#[tokio::test]
async fn username_is_the_first_half_of_basic_credentials() {
    for (username, encoded) in [("host", "aG9zdDpw"), ("guest", "Z3Vlc3Q6cA==")] {
        let headers = sent(&format!("method: basic, username: {username}, password: p")).await;
        assert_eq!(headers["authorization"], format!("Basic {encoded}"));
    }
}

#[tokio::test]
async fn password_is_the_second_half_of_basic_credentials() {
    for (password, encoded) in [("open", "dTpvcGVu"), ("a:b", "dTphOmI=")] {
        let headers = sent(&format!(
            "method: basic, username: u, password: '{password}'"
        ))
        .await;
        assert_eq!(headers["authorization"], format!("Basic {encoded}"));
    }
}

#[tokio::test]
async fn headers_are_all_sent_in_place_of_the_callers() {
    let stage = Stage::of("auth: { method: custom, headers: { X-One: a, x-two: b } }").await;
    let mut request = crate::support::get("/");
    let caller = request.headers_mut();
    caller.insert("x-one", "the caller's".parse().unwrap());
    caller.insert("x-three", "c".parse().unwrap());
    stage.send("p", request).await.unwrap();
    let seen = stage.seen();
    let headers = seen[0].request.headers();
    assert_eq!(headers.len(), 3);
    for (name, value) in [("x-one", "a"), ("x-two", "b"), ("x-three", "c")] {
        assert_eq!(headers.get_all(name).iter().collect::<Vec<_>>(), [value]);
    }
}
