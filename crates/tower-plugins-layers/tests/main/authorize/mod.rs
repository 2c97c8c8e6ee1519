mod jwt;
mod text;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::header::{AUTHORIZATION, HeaderMap, HeaderName};
use http::request::Parts;
use http::{Extensions, Request, Response};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_plugins_layers::authorize::{AuthorizeLayer, Callers, Denied, Principal};
use tower_plugins_layers::test_util::{Answer, Probe};
use tower_plugins_layers::{BoxError, CallContext, Reason, Refused};

use crate::support::{is_pending, millis, reason, timed};

const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// A request with these headers.
fn showing<'a>(headers: impl IntoIterator<Item = (HeaderName, &'a str)>) -> Request<()> {
    let mut request = Request::new(());
    for (name, value) in headers {
        request.headers_mut().append(name, value.parse().unwrap());
    }
    request
}

/// What the service inside sees of a request.
async fn inside(
    layer: &AuthorizeLayer,
    request: Request<()>,
) -> Result<(HeaderMap, Extensions), BoxError> {
    let service = layer.layer(service_fn(|request: Request<()>| async move {
        let (head, ()) = request.into_parts();
        Ok::<_, BoxError>(Response::new((head.headers, head.extensions)))
    }));
    Ok(service.oneshot(request).await?.into_body())
}

async fn name_of(layer: &AuthorizeLayer, request: Request<()>) -> Result<String, BoxError> {
    let (_, extensions) = inside(layer, request).await?;
    let name = extensions
        .get::<Principal>()
        .map(|one| one.name().to_owned());
    Ok(name.unwrap_or_else(|| "nobody".to_owned()))
}

fn layer() -> AuthorizeLayer {
    AuthorizeLayer::new(
        Callers::new()
            .api_key("billing", "k3y-of-billing")
            .api_key("search", "k3y-of-search")
            .bearer("ci", "t0ken-of-ci")
            .basic("ann", "YW5uOnMzY3JldA==")
            .realm("greeter \"quoted\""),
    )
}

#[tokio::test]
async fn each_caller_is_known_by_its_own_key_token_or_password() {
    for (header, value, name) in [
        (X_API_KEY, "k3y-of-billing", "billing"),
        (X_API_KEY, "k3y-of-search", "search"),
        (AUTHORIZATION, "Bearer t0ken-of-ci", "ci"),
        (AUTHORIZATION, "bearer  t0ken-of-ci", "ci"),
        (AUTHORIZATION, "BASIC YW5uOnMzY3JldA==", "ann"),
    ] {
        let known = name_of(&layer(), showing([(header, value)])).await.unwrap();
        assert_eq!(known, name);
    }
}

#[tokio::test]
async fn what_is_not_known_is_refused_and_never_reaches_the_service() {
    let probe = Probe::new(Answer::Frames);
    let journal = probe.journal();
    let wrong: [&[(HeaderName, &str)]; 11] = [
        &[],
        &[(X_API_KEY, "")],
        &[(X_API_KEY, "k3y-of-billin")],
        &[(X_API_KEY, "k3y-of-billingg")],
        &[(X_API_KEY, "t0ken-of-ci")],
        &[(AUTHORIZATION, "Bearer k3y-of-billing")],
        &[(AUTHORIZATION, "Bearer")],
        &[(AUTHORIZATION, "t0ken-of-ci")],
        &[(AUTHORIZATION, "Digest t0ken-of-ci")],
        &[(AUTHORIZATION, "Basic YW5uOnMzY3JldB==")],
        // The first that is shown must be good.
        &[(X_API_KEY, "wrong"), (AUTHORIZATION, "Bearer t0ken-of-ci")],
    ];
    for shown in wrong {
        let call = layer()
            .layer(probe.clone())
            .oneshot(showing(shown.iter().cloned()));
        assert_eq!(
            reason(call.await),
            Some(Reason::Unauthenticated),
            "{shown:?}"
        );
    }
    assert_eq!(journal.calls(), 0);
}

#[tokio::test]
async fn a_header_that_is_there_twice_is_refused_even_if_both_are_good() {
    for (name, one, other) in [
        (X_API_KEY, "k3y-of-billing", "k3y-of-search"),
        (AUTHORIZATION, "Bearer t0ken-of-ci", "Bearer t0ken-of-ci"),
    ] {
        let request = showing([(name.clone(), one), (name, other)]);
        assert_eq!(
            reason(inside(&layer(), request).await),
            Some(Reason::Unauthenticated)
        );
    }
}

#[tokio::test]
async fn nobody_known_is_everybody_refused() {
    let nobody = AuthorizeLayer::new(Callers::new());
    let request = showing([(X_API_KEY, ""), (AUTHORIZATION, "Bearer ")]);
    assert_eq!(
        reason(inside(&nobody, request).await),
        Some(Reason::Unauthenticated)
    );
}

#[tokio::test]
async fn what_was_shown_goes_no_further_unless_it_is_forwarded() {
    let both = || {
        showing([
            (X_API_KEY, "k3y-of-billing"),
            (AUTHORIZATION, "Bearer of-somebody"),
            (HeaderName::from_static("accept"), "*/*"),
        ])
    };
    let (headers, _) = inside(&layer(), both()).await.unwrap();
    assert_eq!(headers.len(), 1, "{headers:?}");
    assert_eq!(headers["accept"], "*/*");

    let (headers, _) = inside(&layer().forward_credentials(true), both())
        .await
        .unwrap();
    assert_eq!(headers[X_API_KEY], "k3y-of-billing");
    assert_eq!(headers.len(), 3);
}

#[tokio::test]
async fn a_refusal_says_what_to_show_and_not_what_was_shown() {
    let error = inside(&layer(), Request::new(())).await.unwrap_err();
    assert_eq!(
        Denied::find(&*error).unwrap().challenge().unwrap(),
        "Bearer realm=\"greeter quoted\", \
         Basic realm=\"greeter quoted\", charset=\"UTF-8\", \
         ApiKey realm=\"greeter quoted\", header=\"x-api-key\""
    );
    let request = showing([(AUTHORIZATION, "Bearer m1staken")]);
    let error = inside(&layer(), request).await.unwrap_err();
    let challenge = Denied::find(&*error).unwrap().challenge().unwrap();
    assert!(
        challenge
            .to_str()
            .unwrap()
            .contains("Bearer realm=\"greeter quoted\", error=\"invalid_token\"")
    );
    assert!(!format!("{error} {error:?}").contains("m1staken"));
    assert!(
        error
            .to_string()
            .starts_with("the caller did not say who it is"),
        "{error}"
    );
}

#[test]
fn no_secret_is_printed_or_kept() {
    let printed = format!("{:?} {:?}", layer(), layer().layer(()));
    for secret in ["k3y", "t0ken", "YW5u"] {
        assert!(!printed.contains(secret), "{printed}");
    }
    let callers = format!("{:?}", Callers::new().api_key("billing", "k3y"));
    assert!(
        callers.contains("billing") && !callers.contains("k3y"),
        "{callers}"
    );
}

#[tokio::test]
async fn a_caller_without_a_scope_is_known_and_forbidden() {
    let callers = Callers::new()
        .api_key(Principal::new("reader").scope("read"), "r3ad")
        .api_key(
            Principal::new("writer").scope("read").scope("write"),
            "wr1te",
        );
    let layer = AuthorizeLayer::new(callers)
        .require_scope("read")
        .require_scope("write");
    let key = |key| showing([(X_API_KEY, key)]);
    assert_eq!(
        reason(inside(&layer, key("r3ad")).await),
        Some(Reason::Forbidden)
    );
    assert_eq!(name_of(&layer, key("wr1te")).await.unwrap(), "writer");
}

#[tokio::test]
async fn the_anonymous_go_in_only_where_that_is_asked_for_and_only_if_they_show_nothing() {
    let open = layer().anonymous(true).require_scope("any");
    assert_eq!(name_of(&open, Request::new(())).await.unwrap(), "nobody");
    let wrong = showing([(X_API_KEY, "wrong")]);
    assert_eq!(
        reason(inside(&open, wrong).await),
        Some(Reason::Unauthenticated)
    );
}

#[tokio::test]
async fn a_principal_that_somebody_else_put_there_is_not_believed() {
    let mut request = Request::new(());
    request.extensions_mut().insert(Principal::new("root"));
    let open = layer().anonymous(true);
    assert_eq!(name_of(&open, request).await.unwrap(), "nobody");
}

#[tokio::test]
async fn off_asks_nothing_and_takes_nothing_away() {
    let request = showing([(AUTHORIZATION, "Bearer theirs")]);
    let (headers, extensions) = inside(&AuthorizeLayer::off(), request).await.unwrap();
    assert_eq!(headers[AUTHORIZATION], "Bearer theirs");
    assert!(extensions.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_policy_of_ones_own_is_waited_for_and_the_service_is_called_afterwards() {
    let slow = AuthorizeLayer::policy(|head: &Parts| {
        let user = head.headers.get("x-user").cloned();
        async move {
            tokio::time::sleep(millis(50)).await;
            match user.as_ref().map(|user| user.as_bytes()) {
                Some(b"root") => Err(Denied::forbidden()),
                Some(b"broken") => Err(Denied::failed("the database is away")),
                Some(_) => Ok(Principal::new("ann")),
                None => Err(Denied::unauthenticated()),
            }
        }
    });
    let user = |user| {
        let mut request = showing([(HeaderName::from_static("x-user"), user)]);
        request.extensions_mut().insert(CallContext::new());
        request
    };
    let (result, took) = timed(name_of(&slow, user("ann"))).await;
    assert_eq!((result.unwrap().as_str(), took), ("ann", millis(50)));
    for (request, why) in [
        (user("root"), Reason::Forbidden),
        (user("broken"), Reason::FilterFailed),
        (Request::new(()), Reason::Unauthenticated),
    ] {
        assert_eq!(reason(inside(&slow, request).await), Some(why));
    }
}

#[tokio::test(start_paused = true)]
async fn a_dropped_call_drops_what_its_policy_does_and_calls_nothing() {
    struct Asked(Arc<AtomicUsize>);
    impl Drop for Asked {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }
    let asked = Arc::new(AtomicUsize::new(0));
    let never = AuthorizeLayer::policy({
        let asked = Arc::clone(&asked);
        move |_: &Parts| {
            asked.fetch_add(1, Ordering::SeqCst);
            let held = Asked(Arc::clone(&asked));
            async move {
                std::future::pending::<()>().await;
                drop(held);
                Ok(Principal::new("nobody"))
            }
        }
    });
    let probe = Probe::new(Answer::Frames);
    let journal = probe.journal();
    let mut service = never.layer(probe);
    std::future::poll_fn(|cx| Service::<Request<()>>::poll_ready(&mut service, cx))
        .await
        .unwrap();
    let mut call = Box::pin(service.call(Request::new(())));
    assert!(is_pending(&mut call).await);
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    drop(call);
    assert_eq!((asked.load(Ordering::SeqCst), journal.calls()), (0, 0));
}

#[tokio::test]
async fn what_a_policy_says_of_its_failure_is_in_the_chain() {
    let broken = AuthorizeLayer::policy(|_: &Parts| async { Err(Denied::failed("away")) });
    let error = inside(&broken, Request::new(())).await.unwrap_err();
    let refused = Refused::find(&*error).unwrap();
    assert_eq!(
        std::error::Error::source(refused).unwrap().to_string(),
        "away"
    );
}
