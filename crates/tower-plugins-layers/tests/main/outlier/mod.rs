//! Which endpoints are left out, and for how long.

mod limit;
mod model;
mod traffic;

use std::time::Duration;

use http::{Request, Response};
use tokio::sync::broadcast::Receiver;
use tokio::time::{Instant, advance};
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};
use tower_plugins_layers::outlier::{
    OutlierChange, OutlierDetector, OutlierEvent, OutlierLayer, OutlierPolicy,
};
use tower_plugins_layers::test_util::{Answer, Probe, ScriptedBody};
use tower_plugins_layers::*;

use crate::support::{request, secs};

/// One call that ends with `status`; the layer is applied anew for it, as axum does.
pub(super) async fn call(layer: &OutlierLayer, status: u16) {
    let service = service_fn(move |_: Request<()>| async move {
        let response = Response::builder().status(status);
        Ok::<_, BoxError>(response.body(String::new()).unwrap())
    });
    let response = layer.layer(service).oneshot(request()).await.unwrap();
    assert_eq!(response.status(), status);
}

pub(super) async fn calls(layer: &OutlierLayer, good: usize, bad: usize) {
    for _ in 0..good {
        call(layer, 200).await;
    }
    for _ in 0..bad {
        call(layer, 500).await;
    }
}

pub(super) fn endpoints(detector: &OutlierDetector, n: usize) -> Vec<OutlierLayer> {
    (0..n).map(|i| detector.endpoint(&i.to_string())).collect()
}

pub(super) fn out(layers: &[OutlierLayer]) -> Vec<usize> {
    let now = Instant::now();
    (0..layers.len())
        .filter(|&i| layers[i].is_ejected(now))
        .collect()
}

fn reasons(events: &mut Receiver<OutlierEvent>) -> Vec<(String, Option<Reason>)> {
    std::iter::from_fn(|| events.try_recv().ok())
        .map(|event| {
            let reason = match event.change {
                OutlierChange::Ejected { reason, .. } => Some(reason),
                _ => None,
            };
            (event.endpoint.to_string(), reason)
        })
        .collect()
}

#[tokio::test(start_paused = true)]
async fn failures_in_a_row_eject_at_once_and_a_success_between_them_does_not() {
    let detector = OutlierDetector::new(OutlierPolicy::new());
    let layers = endpoints(&detector, 2);
    calls(&layers[0], 0, 4).await;
    calls(&layers[0], 1, 4).await;
    assert_eq!(out(&layers), [] as [usize; 0]);
    calls(&layers[0], 0, 1).await;
    assert_eq!(out(&layers), [0]);
    let status = detector.status();
    assert_eq!(status[0].ejected, Some(Reason::ConsecutiveFailures));
    assert_eq!(status[0].remaining, Some(secs(30)));
    assert_eq!((status[1].ejected, detector.ejected()), (None, 1));
}

#[tokio::test(start_paused = true)]
async fn an_ejection_is_over_at_its_time_without_a_call() {
    let layers = endpoints(&OutlierDetector::new(OutlierPolicy::new()), 2);
    calls(&layers[0], 0, 5).await;
    advance(secs(30) - Duration::from_millis(1)).await;
    assert_eq!(out(&layers), [0]);
    advance(Duration::from_millis(1)).await;
    assert_eq!(out(&layers), [] as [usize; 0]);
    // It begins with a clean sheet.
    calls(&layers[0], 0, 4).await;
    assert_eq!(out(&layers), [] as [usize; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_success_rate_far_below_the_others_ejects_at_the_end_of_the_interval() {
    let policy = OutlierPolicy::new().consecutive_failures(None);
    let detector = OutlierDetector::new(policy);
    let mut events = detector.subscribe();
    let layers = endpoints(&detector, 5);
    for layer in &layers[..4] {
        calls(layer, 99, 1).await;
    }
    calls(&layers[4], 50, 50).await;
    assert_eq!(detector.status()[4].failures, 50);
    advance(secs(9)).await;
    call(&layers[0], 200).await;
    assert_eq!(out(&layers), [] as [usize; 0]);
    advance(secs(1)).await;
    // Any call does it, of whatever endpoint.
    call(&layers[0], 200).await;
    assert_eq!(out(&layers), [4]);
    assert_eq!(
        reasons(&mut events),
        [("4".to_owned(), Some(Reason::SuccessRate))]
    );
}

#[tokio::test(start_paused = true)]
async fn rates_are_judged_with_enough_calls_of_enough_endpoints_only() {
    for (endpoints_, bad, expected) in [(5, 99, 0), (5, 100, 1), (4, 100, 0)] {
        let policy = OutlierPolicy::new()
            .consecutive_failures(None)
            .success_rate_stdev(None)
            .failure_percentage(100);
        let layers = endpoints(&OutlierDetector::new(policy), endpoints_);
        for layer in &layers[1..] {
            calls(layer, 100, 0).await;
        }
        calls(&layers[0], 0, bad).await;
        advance(secs(10)).await;
        call(&layers[1], 200).await;
        assert_eq!(out(&layers).len(), expected, "{endpoints_} {bad}");
    }
}

#[tokio::test(start_paused = true)]
async fn each_interval_is_judged_by_its_own_calls() {
    let policy = OutlierPolicy::new()
        .consecutive_failures(None)
        .failure_percentage(50)
        .min_hosts(1)
        .min_requests(10);
    let detector = OutlierDetector::new(policy);
    let mut events = detector.subscribe();
    let layers = endpoints(&detector, 2);
    for _ in 0..3 {
        calls(&layers[0], 5, 4).await;
        advance(secs(10)).await;
        call(&layers[1], 200).await;
        assert_eq!(out(&layers), [] as [usize; 0]);
    }
    calls(&layers[0], 5, 5).await;
    advance(secs(10)).await;
    call(&layers[1], 200).await;
    assert_eq!(
        reasons(&mut events),
        [("0".to_owned(), Some(Reason::FailureRate))]
    );
}

/// How long the next ejection of an endpoint lasts.
async fn next_ejection(detector: &OutlierDetector, layer: &OutlierLayer) -> Duration {
    calls(layer, 0, 5).await;
    detector.status()[0].remaining.expect("an ejection")
}

#[tokio::test(start_paused = true)]
async fn each_ejection_is_longer_up_to_the_longest_and_healthy_intervals_shorten_the_next() {
    let policy = OutlierPolicy::new().max_ejection(secs(100));
    let detector = OutlierDetector::new(policy);
    let layers = endpoints(&detector, 2);
    for length in [30, 60, 90, 100, 100] {
        assert_eq!(next_ejection(&detector, &layers[0]).await, secs(length));
        advance(secs(length)).await;
        assert_eq!(detector.status()[0].remaining, None);
    }
    // Two intervals with calls, and one of which nobody takes notice before it is over.
    advance(secs(10)).await;
    call(&layers[1], 200).await;
    advance(secs(20)).await;
    call(&layers[1], 200).await;
    assert_eq!(detector.status()[0].times, 2);
    assert_eq!(next_ejection(&detector, &layers[0]).await, secs(90));
}

#[tokio::test(start_paused = true)]
async fn jitter_is_added_to_an_ejection() {
    let policy = OutlierPolicy::new().jitter(secs(10));
    let mut seen = Vec::new();
    for _ in 0..50 {
        let detector = OutlierDetector::new(policy);
        let layers = endpoints(&detector, 2);
        seen.push(next_ejection(&detector, &layers[0]).await);
    }
    assert!(seen.iter().all(|time| (secs(30)..secs(40)).contains(time)));
    assert!(seen.iter().any(|time| *time != seen[0]));
}

#[tokio::test(start_paused = true)]
async fn what_is_not_the_endpoints_fault_counts_as_nothing() {
    let policy = OutlierPolicy::new().consecutive_failures(1);
    let layers = endpoints(&OutlierDetector::new(policy), 2);
    let refused = service_fn(|_: Request<()>| async {
        Err::<Response<String>, BoxError>(Refused::new(Reason::BreakerOpen).into())
    });
    layers[0]
        .layer(refused)
        .oneshot(request())
        .await
        .unwrap_err();
    // A caller that goes away, before the head and after it.
    let mut never = Box::pin(
        layers[0]
            .layer(Probe::new(Answer::Never))
            .oneshot(request()),
    );
    assert!(crate::support::is_pending(&mut never).await);
    drop(never);
    let silent = layers[0].layer(Probe::new(Answer::Silence));
    drop(silent.oneshot(request()).await.unwrap());
    assert_eq!(out(&layers), [] as [usize; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_time_was_over_and_a_body_that_breaks_off_are_failures() {
    let policy = OutlierPolicy::new().consecutive_failures(1);
    let layers = endpoints(&OutlierDetector::new(policy), 3);
    let slow = ServiceBuilder::new()
        .layer(DeadlineLayer::new(secs(1)))
        .layer(layers[0].clone())
        .service(Probe::new(Answer::Never));
    let request = {
        let mut request = request();
        CallContext::new().attach(&mut request);
        request
    };
    slow.oneshot(request).await.unwrap_err();
    assert_eq!(out(&layers), [0]);
    advance(secs(30)).await;
    let broken = service_fn(|_: Request<()>| async {
        let body = ScriptedBody::new([Some(Err("broke".into()))]);
        Ok::<_, BoxError>(Response::new(body))
    });
    let broken = layers[1].layer(broken).oneshot(crate::support::request());
    let body = broken.await.unwrap().into_body();
    http_body_util::BodyExt::collect(body).await.unwrap_err();
    assert_eq!(out(&layers), [1]);
}

#[tokio::test(start_paused = true)]
async fn one_is_taken_out_and_put_back_by_hand() {
    let detector = OutlierDetector::new(OutlierPolicy::new());
    let mut events = detector.subscribe();
    let layers = endpoints(&detector, 3);
    assert!(!detector.eject("unknown") && !detector.restore("0"));
    assert!(detector.eject("0") && detector.eject("1"));
    advance(secs(100_000)).await;
    call(&layers[2], 200).await;
    assert_eq!(out(&layers), [0, 1]);
    assert_eq!(detector.status()[0].ejected, Some(Reason::Forced));
    // They count: no other may be out with them.
    calls(&layers[2], 0, 5).await;
    assert!(detector.restore("0") && detector.restore("1"));
    assert_eq!(out(&layers), [] as [usize; 0]);
    let forced = |name: &str| (name.to_owned(), Some(Reason::Forced));
    let back = |name: &str| (name.to_owned(), None);
    assert_eq!(
        reasons(&mut events),
        [forced("0"), forced("1"), back("0"), back("1")]
    );
    // One that is out as an outlier may be put back too.
    calls(&layers[2], 0, 5).await;
    assert!(detector.restore("2"));
    assert_eq!(out(&layers), [] as [usize; 0]);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_leaves_and_comes_back_is_as_it_was() {
    let detector = OutlierDetector::new(OutlierPolicy::new());
    let mut layers = endpoints(&detector, 3);
    calls(&layers[2], 0, 5).await;
    drop(layers.pop());
    call(&layers[0], 200).await;
    assert_eq!((detector.status().len(), detector.ejected()), (2, 0));
    layers.push(detector.endpoint("2"));
    assert_eq!(out(&layers), [2]);
    advance(secs(30)).await;
    assert_eq!(out(&layers), [] as [usize; 0]);
}

#[tokio::test(start_paused = true)]
async fn another_policy_goes_on_where_the_last_has_been() {
    let old = OutlierDetector::new(OutlierPolicy::new());
    let mut events = old.subscribe();
    let before = endpoints(&old, 3);
    calls(&before[0], 0, 5).await;
    calls(&before[1], 0, 3).await;
    let new = old.renewed(OutlierPolicy::new().max_ejection_percent(100));
    let after = endpoints(&new, 3);
    assert_eq!(out(&after), [0]);
    calls(&after[1], 0, 1).await;
    assert_eq!(out(&after), [0]);
    calls(&after[1], 0, 1).await;
    assert_eq!((out(&before), out(&after)), (vec![0, 1], vec![0, 1]));
    assert_eq!(reasons(&mut events).len(), 2);
    // Reloads that come faster than intervals end do not keep rates from being judged.
    let (mut detector, mut layers) = (new, after);
    for _ in 0..20 {
        advance(secs(3)).await;
        detector = detector.renewed(OutlierPolicy::new().min_hosts(1).failure_percentage(50));
        layers = endpoints(&detector, 3);
        for _ in 0..70 {
            calls(&layers[2], 1, 1).await;
        }
    }
    assert_eq!(out(&layers), [2]);
}

#[tokio::test(start_paused = true)]
async fn one_that_is_off_does_nothing() {
    let layer = OutlierLayer::off();
    calls(&layer, 0, 1000).await;
    assert!(!layer.is_ejected(Instant::now()));
}

#[test]
fn changes_are_counted_and_the_gauge_is_what_is_out() {
    use metrics_util::debugging::{DebugValue, DebuggingRecorder};

    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    metrics::with_local_recorder(&recorder, || {
        runtime.block_on(async {
            let detector = OutlierDetector::named("search", OutlierPolicy::new());
            let layers = endpoints(&detector, 2);
            calls(&layers[0], 0, 5).await;
            let seen: Vec<_> = snapshotter
                .snapshot()
                .into_vec()
                .into_iter()
                .map(|(key, _, _, value)| {
                    let labels = key.key().labels().map(|label| label.value().to_owned());
                    (
                        key.key().name().to_owned(),
                        labels.collect::<Vec<_>>(),
                        value,
                    )
                })
                .collect();
            assert!(seen.contains(&(
                "outlier_ejections_total".to_owned(),
                vec!["search".to_owned(), "consecutive_failures".to_owned()],
                DebugValue::Counter(1)
            )));
            assert!(seen.contains(&(
                "outlier_ejected".to_owned(),
                vec!["search".to_owned()],
                DebugValue::Gauge(1.0.into())
            )));
        });
    });
}

#[test]
fn a_policy_is_written_and_read_and_nonsense_is_refused() {
    let policy = OutlierPolicy::new()
        .consecutive_failures(None)
        .failure_percentage(85)
        .jitter(secs(5));
    let text = serde_json::to_string(&policy).unwrap();
    assert!(text.contains("\"interval\":\"10s\""), "{text}");
    assert_eq!(
        serde_json::from_str::<OutlierPolicy>(&text).unwrap(),
        policy
    );
    let short: OutlierPolicy = serde_json::from_str(r#"{"base_ejection":"5s"}"#).unwrap();
    assert_eq!(short, OutlierPolicy::new().base_ejection(secs(5)));
    for wrong in [
        r#"{"consecutive_failures":0}"#,
        r#"{"success_rate_stdev":-1.0}"#,
        r#"{"failure_percentage":0}"#,
        r#"{"failure_percentage":101}"#,
        r#"{"min_requests":0}"#,
        r#"{"min_hosts":0}"#,
        r#"{"interval":"0s"}"#,
        r#"{"base_ejection":10}"#,
        r#"{"base_ejection":"10m"}"#,
        r#"{"max_ejection_percent":101}"#,
        r#"{"unknown":1}"#,
    ] {
        assert!(
            serde_json::from_str::<OutlierPolicy>(wrong).is_err(),
            "{wrong}"
        );
    }
}
