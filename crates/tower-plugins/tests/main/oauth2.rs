//! Tokens that a plugin asks for: one at a time, ahead of their end, and kept as long as they are good.

mod way;

use http::StatusCode;
use tower::{ServiceExt, service_fn};
use tower_plugins::config::{Config, CredentialsSpec, OAuth2Spec, PluginSpec, Secret};
use tower_plugins::{Body, Error, Plugins, Reason};

use crate::effect::later;
use crate::issuer::{Issuer, token};
use crate::support::{causes, config, get, text, within};

/// Plugins at a service that gives back what it was shown.
struct Echo(Plugins);

fn yaml(keys: &str) -> Config {
    config(&format!(
        "plugins: {{ p: {{ transport: in-process, endpoint: echo, retry: off, circuit_breaker: off, {keys} }} }}"
    ))
}

impl Echo {
    async fn start(config: Config) -> Self {
        let echo = service_fn(|request: http::Request<Body>| async move {
            let shown = request.headers()["authorization"].to_str().unwrap();
            // A path says how it is answered.
            let status = request.uri().path()[1..].parse().unwrap_or(StatusCode::OK);
            let mut response = http::Response::new(Body::from(shown.to_owned()));
            *response.status_mut() = status;
            Ok::<_, std::convert::Infallible>(response)
        });
        Self(
            Plugins::builder()
                .service("echo", echo)
                .start(config)
                .await
                .unwrap(),
        )
    }

    /// The token that the plugin was shown.
    async fn shown(&self) -> Result<String, Error> {
        let shown = text(&self.0.plugin("p"), get("/")).await?;
        Ok(shown.strip_prefix("Bearer ").unwrap().to_owned())
    }

    /// Calls until the plugin is shown `token`; until then every call is to succeed.
    async fn until(&self, token: &str) {
        within(async {
            while self.shown().await.unwrap() != token {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

#[tokio::test]
async fn many_calls_at_once_ask_for_one_token() {
    let issuer = Issuer::start().await;
    issuer.gives(false);
    let echo = Echo::start(yaml(&issuer.auth(""))).await;
    let calls: Vec<_> = (0..50)
        .map(|_| tokio::spawn(echo.0.plugin("p").oneshot(get("/"))))
        .collect();
    within(async {
        while issuer.times_asked() == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    issuer.gives(true);
    for call in calls {
        within(call).await.unwrap().unwrap();
    }
    assert_eq!(issuer.times_asked(), 1);
    assert_eq!(echo.shown().await.unwrap(), "t1");
}

#[tokio::test]
async fn a_token_is_refreshed_ahead_of_its_end_and_no_call_waits() {
    let issuer = Issuer::start().await;
    let echo = Echo::start(yaml(&issuer.auth(""))).await;
    assert_eq!(echo.shown().await.unwrap(), "t1");
    later(31).await;
    issuer.gives(false);
    for _ in 0..20 {
        assert_eq!(echo.shown().await.unwrap(), "t1");
    }
    issuer.gives(true);
    echo.until("t2").await;
    assert_eq!(issuer.times_asked(), 2);
}

#[tokio::test]
async fn the_old_token_is_used_until_its_end_when_no_new_one_can_be_had() {
    let issuer = Issuer::start().await;
    let echo = Echo::start(yaml(&issuer.auth(""))).await;
    echo.shown().await.unwrap();
    later(31).await;
    issuer.answers((503, "hunter2".to_owned()));
    within(async {
        while issuer.times_asked() == 1 {
            assert_eq!(echo.shown().await.unwrap(), "t1");
            tokio::task::yield_now().await;
        }
    })
    .await;
    later(30).await;
    let refusal = r#"{"error":"invalid_client","error_description":"hunter2 is wrong"}"#;
    issuer.answers((401, refusal.to_owned()));
    // What is left of the question before comes to its end first.
    let error = within(async {
        loop {
            let error = echo.shown().await.unwrap_err();
            if causes(&error).contains("invalid_client") {
                return error;
            }
            assert_eq!(error.reason(), Some(Reason::CredentialsFailed));
            later(2).await;
        }
    })
    .await;
    assert_eq!(error.reason(), Some(Reason::CredentialsFailed));
    let shown = format!("{} {error:?}", causes(&error));
    assert!(!shown.contains("hunter2"), "{shown}");
    later(2).await;
    echo.shown().await.unwrap();
}

#[tokio::test]
async fn a_401_of_the_plugin_makes_one_refresh() {
    let issuer = Issuer::start().await;
    let echo = Echo::start(yaml(&issuer.auth(""))).await;
    echo.shown().await.unwrap();
    later(2).await;
    let plugin = echo.0.plugin("p");
    let both = tokio::join!(
        crate::support::call(&plugin, get("/401")),
        crate::support::call(&plugin, get("/401")),
    );
    for answer in [both.0, both.1] {
        assert_eq!(answer.unwrap().status(), StatusCode::UNAUTHORIZED);
    }
    assert_eq!(echo.shown().await.unwrap(), "t2");
    // One that has just come is not asked for again, however often it is turned away.
    for _ in 0..5 {
        crate::support::call(&plugin, get("/401")).await.unwrap();
    }
    assert_eq!(issuer.times_asked(), 2);
}

#[tokio::test]
async fn a_reload_keeps_the_token_as_long_as_auth_is_equal() {
    let issuer = Issuer::start().await;
    let echo = Echo::start(yaml(&issuer.auth(""))).await;
    echo.shown().await.unwrap();
    let other = format!("concurrency: {{ max_concurrent: 9 }}, {}", issuer.auth(""));
    echo.0.reload(yaml(&other)).await.unwrap();
    assert_eq!(echo.shown().await.unwrap(), "t1");
    let changed = yaml(&issuer.auth("scopes: [more]"));
    let report = echo.0.reload(changed).await.unwrap();
    assert_eq!(report.plan.to_string(), "restack p (concurrency, auth)");
    assert_eq!(echo.shown().await.unwrap(), "t2");
}

#[tokio::test]
async fn endpoints_of_one_plugin_share_a_token() {
    let issuer = Issuer::start().await;
    let config = config(&format!(
        "plugins: {{ p: {{ transport: in-process, endpoints: [echo, other], load_balancing: {{ strategy: round-robin }}, {} }} }}",
        issuer.auth("")
    ));
    let service = || {
        service_fn(|request: http::Request<Body>| async move {
            assert_eq!(request.headers()["authorization"], "Bearer t1");
            Ok::<_, std::convert::Infallible>(http::Response::new(Body::empty()))
        })
    };
    let builder = Plugins::builder().service("echo", service());
    let plugins = builder
        .service("other", service())
        .start(config)
        .await
        .unwrap();
    for _ in 0..4 {
        text(&plugins.plugin("p"), get("/")).await.unwrap();
    }
    assert_eq!(issuer.times_asked(), 1);
}

#[tokio::test]
async fn an_answer_that_is_no_token_is_told_without_what_it_says() {
    for (answer, told) in [
        ((200, "hunter2".to_owned()), "is not one of RFC 6749"),
        ((200, String::new()), "is not one of RFC 6749"),
        ((302, "hunter2".to_owned()), "the answer is 302"),
        (
            (400, r#"{"error":"hunter2"}"#.to_owned()),
            "an error that is not one of RFC 6749",
        ),
        (
            (
                200,
                r#"{"access_token":"hunter2","token_type":"mac"}"#.to_owned(),
            ),
            "another kind than Bearer",
        ),
        (token("hunter2\\n"), "no header can carry"),
        (token(&"hunter2".repeat(20_000)), "max_response_body"),
    ] {
        let issuer = Issuer::start().await;
        issuer.answers(answer);
        let echo = Echo::start(yaml(&issuer.auth(""))).await;
        let error = echo.shown().await.unwrap_err();
        assert_eq!(error.reason(), Some(Reason::CredentialsFailed));
        let shown = format!("{} {error:?}", causes(&error));
        assert!(shown.contains(told), "{shown}");
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}

#[tokio::test]
async fn a_token_endpoint_that_is_down_fails_calls_and_no_start() {
    let port = Issuer::start().await.port;
    let auth = format!(
        "auth: {{ method: oauth2, token_url: 'http://127.0.0.1:{port}/', client_id: me, client_secret: hunter2 }}"
    );
    let echo = Echo::start(yaml(&auth)).await;
    let error = within(async {
        loop {
            // The server that was there ends when the runtime comes to it.
            match echo.shown().await {
                Err(error) => return error,
                Ok(_) => later(61).await,
            }
        }
    })
    .await;
    assert_eq!(error.reason(), Some(Reason::CredentialsFailed));
    let shown = format!("{} {error:?}", causes(&error));
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[tokio::test]
async fn a_client_is_made_in_code_as_well() {
    let issuer = Issuer::start().await;
    let url = format!("http://127.0.0.1:{}/token", issuer.port);
    let mut plugin = PluginSpec::in_process("p", "echo").unwrap();
    let oauth2 = OAuth2Spec::new(&url, "me", Secret::new("hunter2".to_owned())).unwrap();
    plugin.policy.credentials = CredentialsSpec::OAuth2(Box::new(oauth2));
    assert!(!format!("{plugin:?}").contains("hunter2"));
    let echo = Echo::start(Config::new().with(plugin)).await;
    assert_eq!(echo.shown().await.unwrap(), "t1");

    for refused in [
        "http://issuer.example/token",
        "https://u:hunter2@h/",
        "ftp://h",
    ] {
        let error = OAuth2Spec::new(refused, "me", Secret::new("s".to_owned())).unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}
