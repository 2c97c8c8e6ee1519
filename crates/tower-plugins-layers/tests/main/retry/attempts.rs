use std::sync::atomic::{AtomicUsize, Ordering};

use http_body_util::BodyExt;
use tower_plugins_layers::test_util::{Answer, Probe};

use super::*;

#[tokio::test(start_paused = true)]
async fn attempts_and_their_delays_are_the_policy_s() {
    let run = run_all(policy(), request(Method::GET), || status(503)).await;
    assert_eq!(run.attempts, [ms(0), ms(100), ms(300), ms(700)]);
    assert_eq!(run.status(), 503);

    let one = policy().max_retries(1);
    let run = run_all(one, request(Method::GET), || Err("broken".into())).await;
    assert_eq!(run.attempts, [ms(0), ms(100)]);
    assert_eq!(run.outcome.unwrap_err().to_string(), "broken");
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_succeeds_is_the_last() {
    let run = run(policy(), request(Method::PUT), |n, _| async move {
        status(if n < 2 { 502 } else { 200 })
    })
    .await;
    assert_eq!(run.attempts.len(), 3);
    assert_eq!(run.status(), 200);
}

#[test]
fn jitter_draws_between_zero_and_the_ceiling() {
    let backoff = Backoff::new(ms(100), ms(1000)).multiplier(3.0);
    for (retry, ceiling) in [(1, 100), (2, 300), (3, 900), (4, 1000), (u32::MAX, 1000)] {
        let waits: Vec<_> = (0..1000).map(|_| backoff.wait(retry)).collect();
        let mean = waits.iter().sum::<Duration>() / 1000;
        assert!(waits.iter().all(|wait| *wait <= ms(ceiling)));
        assert!(mean > ms(ceiling * 4 / 10) && mean < ms(ceiling * 6 / 10));
    }
}

#[test]
fn a_backoff_of_odd_numbers_stays_under_its_ceiling() {
    for multiplier in [f64::NAN, f64::INFINITY, -2.0, 0.0, 1e300] {
        let backoff = Backoff::new(ms(100), ms(1000)).multiplier(multiplier);
        for retry in [0, 1, 2, 3, u32::MAX] {
            assert!(backoff.wait(retry) <= ms(1000));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn every_attempt_gets_the_same_request_with_its_number() {
    #[derive(Clone, Debug, PartialEq)]
    struct Mark(&'static str);

    for had_context in [false, true] {
        let mut request = request(Method::DELETE);
        request.extensions_mut().insert(Mark("mine"));
        if had_context {
            let context = CallContext::new().idempotent(had_context);
            request.extensions_mut().insert(context);
        }
        let run = run(policy(), request, move |n, request| async move {
            assert_eq!(request.method(), Method::DELETE);
            assert_eq!(request.uri(), "http://plugin/pkg.Greeter/Say?q=1");
            let many: Vec<_> = request.headers().get_all("x-many").iter().collect();
            assert_eq!(request.headers()["x-one"], "1");
            assert_eq!(many, ["2", "3"]);
            assert_eq!(request.extensions().get(), Some(&Mark("mine")));
            let now = CallContext::now(request.extensions());
            assert_eq!(now, Instant::now());
            let context = CallContext::of(&request);
            assert_eq!(context.is_some(), had_context || n > 0);
            assert_eq!(context.map_or(0, CallContext::attempt), n as u32);
            assert_eq!(context.is_some_and(CallContext::is_idempotent), had_context);
            assert_eq!(request.into_body().collect().await?.to_bytes(), "hello");
            refused(Reason::ConnectionLost)
        })
        .await;
        assert_eq!(run.attempts.len(), 4);
        assert_eq!(run.reason(), Some(Reason::ConnectionLost));
    }
}

#[tokio::test(start_paused = true)]
async fn only_what_may_be_repeated_is_repeated() {
    let count = async |policy: RetryPolicy, request| {
        run_all(policy, request, || status(503))
            .await
            .attempts
            .len()
    };
    for method in [
        Method::GET,
        Method::HEAD,
        Method::OPTIONS,
        Method::TRACE,
        Method::PUT,
    ] {
        assert_eq!(count(policy(), request(method)).await, 4);
    }
    assert_eq!(count(policy(), request(Method::POST)).await, 1);
    assert_eq!(count(policy(), request(Method::PATCH)).await, 1);

    let mut keyed = request(Method::POST);
    keyed
        .headers_mut()
        .insert("idempotency-key", "k1".parse().unwrap());
    assert_eq!(count(policy(), keyed).await, 4);

    for (idempotent, attempts) in [(true, 4), (false, 1)] {
        let mut marked = request(Method::POST);
        let context = CallContext::new().idempotent(idempotent);
        marked.extensions_mut().insert(context);
        assert_eq!(count(policy(), marked).await, attempts);
    }

    for (path, attempts) in [
        ("/pkg.Greeter/Say", 4),
        ("pkg.Greeter/Say", 4),
        ("/pkg.Greeter/*", 4),
        ("pkg.Greeter/S*", 4),
        ("*", 4),
        ("/pkg.Greeter/Sa", 1),
        ("/pkg.Greeter/Say/", 1),
        ("/pkg.Greeter/T*", 1),
        ("", 1),
    ] {
        let policy = policy().idempotent(["/other", path]);
        assert_eq!(
            count(policy, request(Method::POST)).await,
            attempts,
            "{path}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_came_back_unsent_goes_again_whatever_its_method() {
    let run = run(policy(), request(Method::POST), |n, request| async move {
        if n == 2 {
            assert_eq!(CallContext::of(&request).map(CallContext::attempt), Some(2));
            assert_eq!(request.headers()["x-one"], "1");
            return Ok(Response::new(Full::new(
                request.into_body().collect().await?.to_bytes(),
            )));
        }
        let cause = Refused::new(Reason::ConnectFailed);
        Err(Unsent::new(Some(request), cause).into())
    })
    .await;
    assert_eq!(run.attempts, [ms(0), ms(100), ms(300)]);
    let body = run.outcome.unwrap().into_body().collect().await.unwrap();
    assert_eq!(body.to_bytes(), "hello");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_came_back_without_its_context_keeps_the_calls_deadline() {
    let at = Instant::now() + Duration::from_secs(9);
    let mut post = request(Method::POST);
    CallContext::new().own_deadline(at).attach(&mut post);
    let run = run(policy(), post, move |n, mut request| async move {
        let context = CallContext::of(&request).unwrap();
        assert_eq!(
            (context.attempt(), context.deadline()),
            (n as u32, Some(at))
        );
        assert!(context.has_own_deadline());
        if n == 1 {
            return status(200);
        }
        CallContext::detach(&mut request);
        Err(Unsent::new(Some(request), Refused::new(Reason::ConnectFailed)).into())
    })
    .await;
    assert_eq!(run.status(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn an_unsent_request_that_did_not_come_back_goes_again_only_from_a_copy() {
    let unsent = || -> Outcome {
        let cause = Refused::new(Reason::ConnectFailed);
        Err(Unsent::<ReplayBody<Full<Bytes>>>::new(None, cause).into())
    };
    let run = run_all(policy(), request(Method::GET), unsent).await;
    assert_eq!(run.attempts.len(), 4);
    let run = run_all(policy(), request(Method::POST), unsent).await;
    assert_eq!(run.attempts.len(), 1);
    assert_eq!(run.reason(), Some(Reason::ConnectFailed));
}

#[tokio::test(start_paused = true)]
async fn an_unsent_request_whose_body_was_begun_goes_again_whole() {
    let run = run(
        policy(),
        request(Method::PUT),
        |n, mut request| async move {
            let frame = request.body_mut().frame().await.expect("a frame")?;
            assert_eq!(frame.into_data().expect("data"), "hello");
            if n == 1 {
                return status(200);
            }
            Err(Unsent::new(Some(request), "refused stream").into())
        },
    )
    .await;
    assert_eq!((run.attempts.len(), run.status()), (2, StatusCode::OK));
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_is_repeated_only_if_it_was_never_sent() {
    let upgrade = || {
        let mut request = request(Method::GET);
        let websocket = http::HeaderValue::from_static("websocket");
        request
            .headers_mut()
            .insert(http::header::UPGRADE, websocket);
        request
    };
    let policy = || policy().idempotent(["*"]);
    let run = run_all(policy(), upgrade(), || status(503)).await;
    assert_eq!((run.attempts.len(), run.status().as_u16()), (1, 503));
    let run: Run = super::run(policy(), upgrade(), |n, request| async move {
        if n == 1 {
            return status(101);
        }
        Err(Unsent::new(Some(request), "no connection").into())
    })
    .await;
    assert_eq!((run.attempts.len(), run.status().as_u16()), (2, 101));
}

#[tokio::test(start_paused = true)]
async fn refusals_that_would_only_come_again_are_not_repeated() {
    for (reason, attempts) in [
        (Reason::RateLimited, 1),
        (Reason::ConcurrencyLimited, 1),
        (Reason::BreakerOpen, 1),
        (Reason::NoEndpoint, 1),
        (Reason::Draining, 1),
        (Reason::DrainCancelled, 1),
        (Reason::DeadlineExceeded, 1),
        (Reason::ResponseTooLarge, 1),
        (Reason::Panicked, 1),
        (Reason::RequestBroken, 1),
        (Reason::RequestTooLarge, 1),
        (Reason::UpgradeUnsupported, 1),
        (Reason::AttemptTimeout, 4),
        (Reason::ConnectFailed, 4),
        (Reason::ConnectionLost, 4),
        (Reason::PoolExhausted, 4),
    ] {
        let run = run_all(policy(), request(Method::GET), move || refused(reason)).await;
        assert_eq!((run.attempts.len(), run.reason()), (attempts, Some(reason)));
        // An unsent request changes nothing about it.
        let run: Run = super::run(
            policy(),
            request(Method::POST),
            move |_, request| async move {
                Err(Unsent::new(Some(request), Refused::new(reason)).into())
            },
        )
        .await;
        assert_eq!((run.attempts.len(), run.reason()), (attempts, Some(reason)));
    }
}

#[tokio::test(start_paused = true)]
async fn statuses_are_retried_as_the_policy_says() {
    for (code, by_default, if_only_500) in [
        (500, 1, 4),
        (502, 4, 1),
        (503, 4, 1),
        (504, 4, 1),
        (429, 1, 1),
        (404, 1, 1),
        (200, 1, 1),
    ] {
        let run = run_all(policy(), request(Method::GET), move || status(code)).await;
        assert_eq!(
            (run.attempts.len(), run.status().as_u16()),
            (by_default, code)
        );
        let only_500 = policy().on([RetryOn::Status(StatusCode::INTERNAL_SERVER_ERROR)]);
        let run = run_all(only_500, request(Method::GET), move || status(code)).await;
        assert_eq!(
            (run.attempts.len(), run.status().as_u16()),
            (if_only_500, code)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_response_is_dropped_before_the_wait() {
    let inner = Probe::new(Answer::Frames);
    let journal = inner.journal();
    let unavailable = tower::util::MapResponse::new(inner, |mut response: Response<_>| {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        response
    });
    let service = RetryLayer::new(policy()).layer(unavailable);
    let call = tokio::spawn(call(service, request(Method::GET)));
    for calls in 1..=3 {
        tokio::time::sleep(ms(90)).await;
        assert_eq!(
            (journal.calls(), journal.under_way(), journal.bodies()),
            (calls, 0, 0)
        );
        tokio::time::sleep(ms([10, 110, 310][calls - 1])).await;
    }
    let response = call.await.unwrap().unwrap();
    assert_eq!((journal.calls(), journal.bodies()), (4, 1));
    drop(response);
    assert_eq!(journal.bodies(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_call_drops_its_attempt_or_its_wait() {
    for (answer, calls) in [(Answer::Never, 1), (Answer::Error("broken"), 2)] {
        let inner = Probe::new(answer);
        let journal = inner.journal();
        let call = call(RetryLayer::new(policy()).layer(inner), request(Method::GET));
        assert!(tokio::time::timeout(ms(150), call).await.is_err());
        assert_eq!(journal.calls(), calls);
        assert_eq!(journal.under_way(), 0);
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(journal.calls(), calls);
    }
}

#[tokio::test(start_paused = true)]
async fn retries_by_reference_too() {
    let inner = Probe::new(Answer::Error("broken"));
    let journal = inner.journal();
    let service = RetryLayer::new(policy()).layer(inner);
    let start = Instant::now();
    let error = call(&service, request(Method::GET)).await.unwrap_err();
    assert_eq!(error.to_string(), "broken");
    assert_eq!((journal.calls(), start.elapsed()), (4, ms(700)));
}

#[tokio::test(start_paused = true)]
async fn a_slow_attempt_is_repeated_until_the_deadline() {
    let inner = Probe::new(Answer::Never);
    let journal = inner.journal();
    let service = AttemptTimeoutLayer::new(ms(200)).layer(inner);
    let service = RetryLayer::new(policy()).layer(service);
    // Attempts at 0, 300 and 700 ms.
    for (deadline, calls, took, reason) in [
        (750, 3, 750, Reason::DeadlineExceeded),
        (650, 2, 500, Reason::AttemptTimeout),
    ] {
        let before = journal.calls();
        let service = DeadlineLayer::new(ms(deadline)).layer(&service);
        let start = Instant::now();
        let error = call(service, request(Method::GET)).await.unwrap_err();
        assert_eq!(Reason::of(&*error), Some(reason));
        assert_eq!(
            (journal.calls() - before, start.elapsed()),
            (calls, ms(took))
        );
        assert_eq!(journal.under_way(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn switched_off_it_repeats_nothing_and_leaves_the_body_alone() {
    for layer in [RetryLayer::off(), RetryLayer::new(policy().max_retries(0))] {
        let attempts = Arc::new(AtomicUsize::new(0));
        let inner = {
            let attempts = Arc::clone(&attempts);
            service_fn(move |request: Request<ReplayBody<Full<Bytes>>>| {
                attempts.fetch_add(1, Ordering::Relaxed);
                assert!(request.into_body().into_inner().is_ok());
                std::future::ready(status(503))
            })
        };
        let response = layer
            .layer(inner)
            .oneshot(request(Method::GET))
            .await
            .unwrap();
        assert_eq!(response.status(), 503);
        assert_eq!(attempts.load(Ordering::Relaxed), 1);
    }
}

#[test]
fn decorrelated_jitter_draws_between_the_first_wait_and_three_times_the_last() {
    let backoff = Backoff::new(ms(100), ms(1000)).jitter(Jitter::Decorrelated);
    for (previous, most) in [(0, 300), (100, 300), (200, 600), (900, 1000)] {
        let waits: Vec<_> = (0..1000)
            .map(|_| backoff.wait_after(ms(previous), 1))
            .collect();
        assert!(
            waits
                .iter()
                .all(|wait| *wait >= ms(100) && *wait <= ms(most))
        );
        assert!(waits.iter().any(|wait| *wait > ms(most * 9 / 10)));
        assert!(previous == 900 || waits.iter().any(|wait| *wait < ms(100 + most / 10)));
    }
    let odd = Backoff::new(Duration::MAX, ms(1)).jitter(Jitter::Decorrelated);
    assert_eq!(odd.wait_after(Duration::MAX, 7), ms(1));
}

#[tokio::test(start_paused = true)]
async fn a_path_that_is_never_repeated_is_not_whatever_else_holds() {
    let never = || policy().never(["pkg.Greeter/*"]).idempotent(["*"]);
    let run = run_all(never(), request(Method::GET), || status(503)).await;
    assert_eq!(run.attempts.len(), 1);
    let run: Run = super::run(never(), request(Method::GET), |_, request| async move {
        Err(Unsent::new(Some(request), Refused::new(Reason::ConnectFailed)).into())
    })
    .await;
    assert_eq!(run.attempts.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn failures_are_retried_by_their_words() {
    type Make = fn() -> Outcome;
    let kinds: [(&str, Make); 8] = [
        ("5xx", || status(501)),
        ("gateway-error", || status(502)),
        ("retry-after", || Ok(answer(429, &[("retry-after", "0")]))),
        ("connect-failure", || refused(Reason::ConnectFailed)),
        ("attempt-timeout", || refused(Reason::AttemptTimeout)),
        ("reset", || refused(Reason::ConnectionLost)),
        ("409", || status(409)),
        ("grpc:aborted", || Ok(answer(200, &[("grpc-status", "10")]))),
    ];
    for (word, make) in kinds {
        for (listed, _) in kinds {
            let policy = policy()
                .max_retries(1)
                .on([listed.parse::<RetryOn>().unwrap()]);
            let run = run_all(policy, request(Method::GET), make).await;
            let retried = listed == word || (listed, word) == ("5xx", "gateway-error");
            assert_eq!(run.attempts.len() == 2, retried, "{word} on {listed}");
        }
    }
    // What was never processed is of its own kind too.
    for (on, attempts) in [("refused-stream", 2), ("connect-failure", 2), ("reset", 1)] {
        let policy = policy().max_retries(1).on([on.parse::<RetryOn>().unwrap()]);
        let run: Run = super::run(policy, request(Method::POST), |_, request| async move {
            Err(Unsent::new(Some(request), Refused::new(Reason::ConnectFailed)).into())
        })
        .await;
        assert_eq!(run.attempts.len(), attempts, "{on}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_other_side_is_told_of_the_attempts_before() {
    for (grpc, header) in [
        (false, None),
        (false, Some("x-attempt")),
        (true, None),
        (true, Some("x-attempt")),
    ] {
        let mut request = request(Method::PUT);
        if grpc {
            let kind = "application/grpc".parse().unwrap();
            request.headers_mut().insert("content-type", kind);
        }
        let policy = policy().attempt_header(header.map(http::HeaderName::from_static));
        let run = run(policy, request, move |n, request| async move {
            let told = |name: &str| {
                request
                    .headers()
                    .get(name)
                    .map(|value| value.to_str().unwrap().to_owned())
            };
            let number = (n > 0).then(|| n.to_string());
            assert_eq!(
                told("grpc-previous-rpc-attempts"),
                number.clone().filter(|_| grpc)
            );
            assert_eq!(told("x-attempt"), number.filter(|_| header.is_some()));
            status(503)
        })
        .await;
        assert_eq!(run.attempts.len(), 4);
    }
}

#[test]
fn a_layer_with_a_name_counts_its_attempts_and_why() {
    use metrics_util::debugging::{DebugValue, DebuggingRecorder};

    let recorder = DebuggingRecorder::new();
    let snapshots = recorder.snapshotter();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    metrics::with_local_recorder(&recorder, || {
        let failures = [
            Some(Reason::ConnectFailed),
            Some(Reason::AttemptTimeout),
            None,
            None,
        ];
        let inner = {
            let n = Arc::new(AtomicUsize::new(0));
            service_fn(move |_: Request<ReplayBody<Full<Bytes>>>| {
                let n = n.fetch_add(1, Ordering::Relaxed);
                std::future::ready(failures[n].map_or_else(|| Err("broken".into()), refused))
            })
        };
        let policy = policy().budget(Budget::in_flight(0.0, 1));
        let layer = RetryLayer::named("search", policy);
        runtime
            .block_on(layer.layer(inner).oneshot(request(Method::GET)))
            .unwrap_err();
        let none = RetryLayer::named("none", super::policy().budget(Budget::new(0.0, 0)));
        let inner =
            service_fn(|_: Request<ReplayBody<Full<Bytes>>>| std::future::ready(status(503)));
        runtime
            .block_on(none.layer(inner).oneshot(request(Method::GET)))
            .unwrap();
    });
    let mut seen: Vec<_> = snapshots
        .snapshot()
        .into_vec()
        .into_iter()
        .map(|(key, _, _, value)| {
            let labels = key
                .key()
                .labels()
                .map(|label| label.value())
                .collect::<Vec<_>>()
                .join(" ");
            (format!("{} {labels}", key.key().name()), value)
        })
        .collect();
    seen.sort_by(|a, b| a.0.cmp(&b.0));
    let counts = [
        ("plugin_retries_refused_total none", 1),
        ("plugin_retries_refused_total search", 0),
        ("plugin_retries_total search attempt_timeout", 1),
        ("plugin_retries_total search connect_failed", 1),
        ("plugin_retries_total search error", 1),
    ];
    let counts = counts.map(|(name, count)| (name.to_owned(), DebugValue::Counter(count)));
    assert_eq!(seen, counts);
}
