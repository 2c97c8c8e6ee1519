use tower_plugins::Reason;

use super::stage::{SECOND, Stage};
use crate::issuer::{Asked, Issuer};
use crate::support::{causes, get, within};

/// What `auth` with these keys asks for.
async fn asked(keys: &str) -> Asked {
    let issuer = Issuer::start().await;
    let stage = Stage::of(&issuer.auth(keys)).await;
    stage.call().await.unwrap();
    let seen = stage.seen();
    assert_eq!(seen[0].request.headers()["authorization"], "Bearer t1");
    issuer.asked().remove(0)
}

#[tokio::test]
async fn token_url_is_where_tokens_are_asked_for() {
    let (one, other) = (Issuer::start().await, Issuer::start().await);
    for path in ["/token", "/o/token/", ""] {
        let url = format!("http://localhost:{}{path}", other.port);
        let auth = format!("method: oauth2, token_url: '{url}', client_id: a, client_secret: b");
        let stage = Stage::of(&format!("auth: {{ {auth} }}")).await;
        stage.call().await.unwrap();
        let asked = other.asked().pop().unwrap();
        assert_eq!(asked.path, if path.is_empty() { "/" } else { path });
        assert!(asked.form.contains("grant_type=client_credentials"));
    }
    assert_eq!(one.times_asked(), 0);
}

#[tokio::test]
async fn client_id_is_who_asks() {
    // The default of `auth` in these tests is `me`; base64 of `me:hunter2`.
    let asked = asked("").await;
    assert_eq!(asked.authorization.unwrap(), "Basic bWU6aHVudGVyMg==");
    let issuer = Issuer::start().await;
    let auth = issuer.auth("").replace("client_id: me", "client_id: you");
    Stage::of(&auth).await.call().await.unwrap();
    let asked = issuer.asked().remove(0);
    assert_eq!(asked.authorization.unwrap(), "Basic eW91Omh1bnRlcjI=");
}

#[tokio::test]
async fn client_secret_is_what_the_client_shows() {
    let issuer = Issuer::start().await;
    let auth = issuer
        .auth("auth_style: body")
        .replace("hunter2", "'a b&c'");
    Stage::of(&auth).await.call().await.unwrap();
    let asked = issuer.asked().remove(0);
    assert!(
        asked.form.contains("client_secret=a+b%26c"),
        "{}",
        asked.form
    );
}

#[tokio::test]
async fn scopes_are_what_is_asked_for() {
    assert_eq!(asked("").await.form, "grant_type=client_credentials");
    let asked = asked("scopes: [one, 'two:read']").await;
    assert!(
        asked.form.contains("scope=one+two%3Aread"),
        "{}",
        asked.form
    );
}

#[tokio::test]
async fn audience_is_whom_the_token_is_for() {
    let asked = asked("audience: search").await;
    assert!(asked.form.contains("audience=search"), "{}", asked.form);
}

#[tokio::test]
async fn auth_style_is_where_the_client_says_who_it_is() {
    let header = asked("auth_style: header").await;
    assert!(header.authorization.is_some());
    assert!(!header.form.contains("client_id"), "{}", header.form);
    let body = asked("auth_style: body").await;
    assert_eq!(body.authorization, None);
    assert!(body.form.contains("client_id=me"), "{}", body.form);
    assert!(body.form.contains("client_secret=hunter2"), "{}", body.form);
}

#[tokio::test]
async fn refresh_before_is_how_long_before_its_end_a_token_is_refreshed() {
    for (keys, seconds) in [
        ("", 30),
        ("refresh_before: 10s", 50),
        ("refresh_before: 1h", 30),
    ] {
        let issuer = Issuer::start().await;
        let stage = Stage::of(&issuer.auth(keys)).await;
        stage.call().await.unwrap();
        later(seconds - 1).await;
        stage.call().await.unwrap();
        assert_eq!(issuer.times_asked(), 1, "{keys}");
        later(2).await;
        // Calls go on with the token that is still good, and drive the refresh.
        within(async {
            while issuer.times_asked() == 1 {
                stage.call().await.unwrap();
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

/// So many seconds are over at once.
pub(crate) async fn later(seconds: u32) {
    tokio::time::pause();
    tokio::time::advance(SECOND * seconds).await;
    tokio::time::resume();
}

#[tokio::test]
async fn timeout_is_how_long_a_token_is_waited_for() {
    let issuer = Issuer::start().await;
    issuer.gives(false);
    let stage = Stage::of(&format!("retry: off, {}", issuer.auth("timeout: 50ms"))).await;
    let error = within(stage.send("p", get("/"))).await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::CredentialsFailed));
    let shown = causes(&error);
    assert!(
        shown.contains("no answer within the timeout of 50ms"),
        "{shown}"
    );
    assert!(!shown.contains("hunter2"), "{shown}");
}
