use std::time::SystemTime;

use super::*;

#[tokio::test(start_paused = true)]
async fn retry_after_takes_the_place_of_the_backoff() {
    let in_30_s = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(31));
    // The value; the least and the most wait in seconds after a 429, whose retry it allows; whether
    // a 503 heeds it.
    for (value, wait) in [
        ("30", Some((30, 30))),
        ("0", Some((0, 0))),
        (&*in_30_s, Some((28, 31))),
        ("Fri, 31 Dec 9999 23:59:59 GMT", Some((300, 300))),
        ("Thu, 01 Jan 1970 00:00:00 GMT", Some((0, 0))),
        ("99999999999999999999999999", Some((300, 300))),
        ("-1", None),
        ("+1", None),
        ("1.5", None),
        ("abc", None),
        ("", None),
    ] {
        for code in [429, 503] {
            let value = value.to_owned();
            let run = run_all(policy().max_retries(1), request(Method::GET), move || {
                Ok(answer(code, &[("retry-after", &value)]))
            })
            .await;
            match wait {
                Some((least, most)) => {
                    assert_eq!(run.attempts.len(), 2);
                    assert!(run.took >= Duration::from_secs(least));
                    assert!(run.took <= Duration::from_secs(most) + ms(1));
                }
                None if code == 429 => assert_eq!(run.attempts, [ms(0)]),
                None => assert_eq!(run.attempts, [ms(0), ms(100)]),
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_says_how_long_to_wait_is_heeded() {
    let run = run_all(policy().max_retries(1), request(Method::GET), || {
        Err(Refused::new(Reason::ConnectFailed)
            .retry_after(ms(1500))
            .into())
    })
    .await;
    assert_eq!(run.attempts, [ms(0), ms(1500)]);
}

#[tokio::test(start_paused = true)]
async fn grpc_pushback_delays_or_forbids_the_retry() {
    let grpc = |code: &'static str, pushback: Option<&'static str>| {
        let mut request = request(Method::POST);
        request
            .extensions_mut()
            .insert(CallContext::new().idempotent(true));
        run_all(policy().max_retries(1), request, move || {
            let pushback = pushback.map(|value| ("grpc-retry-pushback-ms", value));
            let headers: Vec<_> = [("grpc-status", code)]
                .into_iter()
                .chain(pushback)
                .collect();
            Ok(answer(200, &headers))
        })
    };
    assert_eq!(grpc("14", None).await.attempts, [ms(0), ms(100)]);
    assert_eq!(grpc("14", Some("70")).await.attempts, [ms(0), ms(70)]);
    assert_eq!(grpc("14", Some("0")).await.attempts, [ms(0), ms(0)]);
    for no in ["-1", "junk", "", "1.0"] {
        assert_eq!(grpc("14", Some(no)).await.attempts, [ms(0)], "{no}");
    }
    for other in ["0", "4", "8", "13"] {
        assert_eq!(grpc(other, Some("70")).await.attempts, [ms(0)], "{other}");
    }
}

#[tokio::test(start_paused = true)]
async fn no_backoff_goes_past_the_deadline() {
    for (deadline, attempts, took) in [(300, 2, 100), (301, 3, 300), (50, 1, 0)] {
        let mut request = request(Method::GET);
        let at = Instant::now() + ms(deadline);
        request
            .extensions_mut()
            .insert(CallContext::new().own_deadline(at));
        let run = run_all(policy(), request, || status(503)).await;
        assert_eq!((run.attempts.len(), run.took), (attempts, ms(took)));
        assert_eq!(run.status(), 503);
    }
    let mut late = request(Method::GET);
    let at = Instant::now() + Duration::from_secs(10);
    late.extensions_mut()
        .insert(CallContext::new().own_deadline(at));
    let run = run_all(policy(), late, || Ok(answer(503, &[("retry-after", "11")]))).await;
    assert_eq!((run.attempts.len(), run.took), (1, ms(0)));
}
