use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use http::header::AUTHORIZATION;
use http::{Request, Response, StatusCode};
use tokio::sync::Semaphore;
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_plugins_layers::credentials::{Token, TokenCredentialsLayer};
use tower_plugins_layers::{BoxError, Reason};

use crate::support::{is_pending, millis, reason, request, retry_after, secs, timed};

/// Where tokens come from, in a test: each takes a second, and lives for a minute.
#[derive(Clone, Default)]
struct Issuer {
    asked: Arc<AtomicU32>,
    failing: Arc<AtomicUsize>,
}

impl Issuer {
    fn asked(&self) -> u32 {
        self.asked.load(Ordering::SeqCst)
    }

    /// The next `n` times it fails.
    fn fail(&self, n: usize) {
        self.failing.store(n, Ordering::SeqCst);
    }

    fn layer(&self) -> TokenCredentialsLayer {
        let issuer = self.clone();
        let source = move || {
            let issuer = issuer.clone();
            async move {
                let n = issuer.asked.fetch_add(1, Ordering::SeqCst) + 1;
                tokio::time::sleep(secs(1)).await;
                let left = issuer.failing.load(Ordering::SeqCst);
                if left > 0 {
                    issuer.failing.store(left - 1, Ordering::SeqCst);
                    return Err(BoxError::from("the issuer is away"));
                }
                Ok(Token::new(&format!("t{n}"))?.expires_in(secs(60)))
            }
        };
        TokenCredentialsLayer::new(source, secs(20))
    }
}

/// What the service inside was shown, after it worked for `time`.
async fn shown(
    layer: &TokenCredentialsLayer,
    time: std::time::Duration,
) -> Result<String, BoxError> {
    let service = layer.layer(service_fn(move |request: Request<()>| async move {
        tokio::time::sleep(time).await;
        let value = request.headers()[AUTHORIZATION].clone();
        assert!(value.is_sensitive());
        Ok::<_, Infallible>(Response::new(value.to_str().unwrap().to_owned()))
    }));
    service.oneshot(request()).await.map(Response::into_body)
}

#[tokio::test(start_paused = true)]
async fn a_thousand_callers_share_one_refresh() {
    let issuer = Issuer::default();
    let layer = issuer.layer();
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..1000 {
        let layer = layer.clone();
        calls.spawn(async move { timed(shown(&layer, millis(0))).await });
    }
    while let Some(call) = calls.join_next().await {
        let (token, took) = call.unwrap();
        assert_eq!((token.unwrap().as_str(), took), ("Bearer t1", secs(1)));
    }
    assert_eq!(issuer.asked(), 1);
    assert_eq!(timed(shown(&layer, millis(0))).await.1, millis(0));
}

#[tokio::test(start_paused = true)]
async fn a_dropped_caller_loses_no_refresh_for_the_others() {
    let issuer = Issuer::default();
    let layer = issuer.layer();
    let mut first = Box::pin(shown(&layer, millis(0)));
    assert!(is_pending(&mut first).await);
    let second = tokio::spawn({
        let layer = layer.clone();
        async move { shown(&layer, millis(0)).await }
    });
    tokio::time::sleep(millis(500)).await;
    drop(first);
    assert_eq!(second.await.unwrap().unwrap(), "Bearer t1");
    assert_eq!(issuer.asked(), 1);

    // Nor for the next to come, if nobody else is there.
    let issuer = Issuer::default();
    let layer = issuer.layer();
    let mut alone = Box::pin(shown(&layer, millis(0)));
    assert!(is_pending(&mut alone).await);
    drop(alone);
    let (token, took) = timed(shown(&layer, millis(0))).await;
    assert_eq!(
        (token.unwrap().as_str(), took, issuer.asked()),
        ("Bearer t1", secs(1), 1)
    );
}

#[tokio::test(start_paused = true)]
async fn it_is_refreshed_before_it_expires_and_nobody_waits() {
    let issuer = Issuer::default();
    let layer = issuer.layer();
    shown(&layer, millis(0)).await.unwrap();
    tokio::time::sleep(secs(39)).await;
    shown(&layer, secs(0)).await.unwrap();
    assert_eq!(issuer.asked(), 1);
    tokio::time::sleep(secs(2)).await;
    // This call drives the refresh while it works, with the old token.
    let (token, took) = timed(shown(&layer, secs(3))).await;
    assert_eq!((token.unwrap().as_str(), took), ("Bearer t1", secs(3)));
    let (token, took) = timed(shown(&layer, millis(0))).await;
    assert_eq!((token.unwrap().as_str(), took), ("Bearer t2", millis(0)));
    assert_eq!(issuer.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_old_token_goes_on_while_its_refresh_fails_until_it_expires() {
    let issuer = Issuer::default();
    let layer = issuer.layer();
    shown(&layer, millis(0)).await.unwrap();
    tokio::time::sleep(secs(45)).await;
    issuer.fail(2);
    assert_eq!(shown(&layer, secs(2)).await.unwrap(), "Bearer t1");
    assert_eq!(shown(&layer, secs(2)).await.unwrap(), "Bearer t1");
    assert_eq!(issuer.asked(), 3);
    tokio::time::sleep(secs(60)).await;
    issuer.fail(1);
    assert_eq!(
        reason(shown(&layer, millis(0)).await),
        Some(Reason::CredentialsFailed)
    );
}

#[tokio::test(start_paused = true)]
async fn a_source_that_fails_is_left_alone_for_a_second() {
    let issuer = Issuer::default();
    let layer = issuer.layer();
    issuer.fail(1);
    let error = shown(&layer, millis(0)).await.unwrap_err();
    assert_eq!(Reason::of(&*error), Some(Reason::CredentialsFailed));
    let mut chain = vec![error.to_string()];
    let mut next = error.source();
    while let Some(error) = next {
        chain.push(error.to_string());
        next = error.source();
    }
    assert_eq!(chain.last().unwrap(), "the issuer is away");

    tokio::time::sleep(millis(400)).await;
    assert_eq!(
        retry_after(shown(&layer, millis(0)).await),
        Some(millis(600))
    );
    assert_eq!(issuer.asked(), 1);
    tokio::time::sleep(millis(600)).await;
    assert_eq!(shown(&layer, millis(0)).await.unwrap(), "Bearer t2");
}

#[tokio::test(start_paused = true)]
async fn a_401_gives_a_token_up_once_and_only_if_that_is_asked_for() {
    let refusing = || service_fn(|_: Request<()>| async { refusal(StatusCode::UNAUTHORIZED, "") });
    for (asked_for, tokens) in [(false, 1), (true, 2)] {
        let issuer = Issuer::default();
        let layer = issuer.layer().invalidate_on_401(asked_for);
        shown(&layer, millis(0)).await.unwrap();
        tokio::time::sleep(secs(1)).await;
        // Two calls with the same token are told of it; the second one finds another already.
        let mut one = layer.layer(refusing());
        let mut other = layer.layer(refusing());
        let (one, other) = (one.call(request()), other.call(request()));
        assert_eq!(one.await.unwrap().status(), StatusCode::UNAUTHORIZED);
        let next = shown(&layer, millis(0)).await.unwrap();
        assert_eq!(next, format!("Bearer t{tokens}"));
        other.await.unwrap();
        assert_eq!(shown(&layer, millis(0)).await.unwrap(), next);
        assert_eq!(issuer.asked(), tokens);
    }
}

fn refusal(status: StatusCode, code: &str) -> Result<Response<()>, BoxError> {
    let answer = Response::builder().status(status);
    Ok(answer.header("grpc-status", code).body(())?)
}

#[tokio::test(start_paused = true)]
async fn grpc_turns_a_token_away_in_the_head() {
    for (code, tokens) in [("0", 1), ("7", 1), ("16", 2)] {
        let issuer = Issuer::default();
        let layer = issuer.layer().invalidate_on_401(true);
        shown(&layer, millis(0)).await.unwrap();
        tokio::time::sleep(secs(1)).await;
        let refusing =
            service_fn(move |_: Request<()>| async move { refusal(StatusCode::OK, code) });
        layer.layer(refusing).oneshot(request()).await.unwrap();
        shown(&layer, millis(0)).await.unwrap();
        assert_eq!(issuer.asked(), tokens, "{code}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_that_has_just_come_is_not_given_up() {
    let issuer = Issuer::default();
    let layer = issuer.layer().invalidate_on_401(true);
    let refusing = || service_fn(|_: Request<()>| async { refusal(StatusCode::UNAUTHORIZED, "") });
    for _ in 0..9 {
        layer.layer(refusing()).oneshot(request()).await.unwrap();
        tokio::time::sleep(millis(100)).await;
    }
    assert_eq!(issuer.asked(), 1);
    tokio::time::sleep(millis(100)).await;
    layer.layer(refusing()).oneshot(request()).await.unwrap();
    shown(&layer, millis(0)).await.unwrap();
    assert_eq!(issuer.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_source_that_panics_fails_and_is_asked_again() {
    let asked = Arc::new(AtomicU32::new(0));
    let source = move || {
        let n = asked.fetch_add(1, Ordering::SeqCst);
        async move {
            assert_ne!(n, 0, "the first one panics");
            Token::new("t")
        }
    };
    let layer = TokenCredentialsLayer::new(source, secs(1));
    assert_eq!(
        reason(shown(&layer, millis(0)).await),
        Some(Reason::CredentialsFailed)
    );
    tokio::time::sleep(secs(1)).await;
    assert_eq!(shown(&layer, millis(0)).await.unwrap(), "Bearer t");
}

#[tokio::test(start_paused = true)]
async fn a_token_is_never_printed() {
    let layer = TokenCredentialsLayer::new(|| async { Token::new("s3cret") }, secs(1));
    shown(&layer, millis(0)).await.unwrap();
    let printed = format!("{layer:?} {:?} {:?}", layer.layer(()), Token::new("s3cret"));
    assert!(!printed.contains("s3cret"), "{printed}");
}

#[tokio::test(start_paused = true)]
async fn a_source_that_hangs_is_given_up_and_asked_again() {
    let asked = Arc::new(AtomicU32::new(0));
    let times = Arc::clone(&asked);
    let source = move || {
        let first = times.fetch_add(1, Ordering::SeqCst) == 0;
        async move {
            if first {
                std::future::pending::<()>().await;
            }
            Ok::<_, BoxError>(Token::new("t")?)
        }
    };
    let layer = TokenCredentialsLayer::new(source, secs(20));
    let (result, took) = timed(shown(&layer, millis(0))).await;
    assert_eq!(reason(result), Some(Reason::CredentialsFailed));
    assert_eq!(took, secs(30));
    tokio::time::sleep(secs(1)).await;
    assert_eq!(shown(&layer, millis(0)).await.unwrap(), "Bearer t");
    assert_eq!(asked.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_nobody_drove_for_long_is_begun_anew() {
    let issuer = Issuer::default();
    let layer = issuer.layer();
    // One begins it and leaves; nobody comes for a while.
    {
        let mut left = Box::pin(shown(&layer, millis(0)));
        assert!(is_pending(&mut left).await);
    }
    tokio::time::sleep(secs(31)).await;
    assert_eq!(shown(&layer, millis(0)).await.unwrap(), "Bearer t2");
}

/// One that nobody has polled for so long is given up; its waiters may come back all the same.
#[tokio::test(start_paused = true)]
async fn a_refresh_that_was_given_up_and_goes_on_makes_no_room_for_a_third() {
    let (asked, gates) = (Arc::new(AtomicU32::new(0)), Arc::new(Semaphore::new(0)));
    let layer = {
        let (asked, gates) = (Arc::clone(&asked), Arc::clone(&gates));
        let source = move || {
            let n = asked.fetch_add(1, Ordering::SeqCst) + 1;
            let gates = Arc::clone(&gates);
            async move {
                gates.acquire().await?.forget();
                Ok::<_, BoxError>(Token::new(&format!("t{n}"))?)
            }
        };
        TokenCredentialsLayer::new(source, secs(20))
    };
    let mut first = Box::pin(shown(&layer, millis(0)));
    assert!(is_pending(&mut first).await);
    tokio::time::sleep(secs(31)).await;
    let mut second = Box::pin(shown(&layer, millis(0)));
    assert!(is_pending(&mut second).await);
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    // The old one ends without a token: that is not how the new one goes.
    assert_eq!(reason(first.await), Some(Reason::CredentialsFailed));
    let mut third = Box::pin(shown(&layer, millis(0)));
    assert!(is_pending(&mut third).await);
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    gates.add_permits(1);
    assert_eq!(second.await.unwrap(), "Bearer t2");
    assert_eq!(third.await.unwrap(), "Bearer t2");
    assert_eq!(asked.load(Ordering::SeqCst), 2);
}
