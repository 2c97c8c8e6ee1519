use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use http_body_util::BodyExt;
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_plugins_layers::test_util::{Answer, Probe};
use tower_plugins_layers::{BoxError, Bulkhead, Concurrency, ConcurrencyLayer, Reason};

use crate::support::{Census, counting, is_pending, millis, reason, request, secs, timed};

fn over(bulkhead: &Arc<Bulkhead>, answer: Answer) -> Concurrency<Probe> {
    ConcurrencyLayer::with_bulkhead(Arc::clone(bulkhead)).layer(Probe::new(answer))
}

#[tokio::test(start_paused = true)]
async fn the_body_holds_the_place_to_its_end_or_drop() {
    let bulkhead = Arc::new(Bulkhead::new(1));
    let mut body = over(&bulkhead, Answer::Frames)
        .oneshot(request())
        .await
        .unwrap();
    assert_eq!(bulkhead.in_flight(), 1);
    let refused = over(&bulkhead, Answer::Frames).oneshot(request()).await;
    assert_eq!(reason(refused), Some(Reason::ConcurrencyLimited));
    while body.body_mut().frame().await.is_some() {}
    assert_eq!(bulkhead.in_flight(), 0);

    let held = over(&bulkhead, Answer::Silence)
        .oneshot(request())
        .await
        .unwrap();
    assert_eq!(bulkhead.in_flight(), 1);
    drop(held);
    assert_eq!(bulkhead.in_flight(), 0);

    over(&bulkhead, Answer::Empty)
        .oneshot(request())
        .await
        .unwrap();
    assert_eq!(bulkhead.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_failed_call_gives_its_place_back_before_its_future_is_dropped() {
    let bulkhead = Arc::new(Bulkhead::new(1));
    let mut call = over(&bulkhead, Answer::Error("broke")).oneshot(request());
    (&mut call).await.unwrap_err();
    assert_eq!(bulkhead.in_flight(), 0);
    let service = ConcurrencyLayer::with_bulkhead(Arc::clone(&bulkhead)).layer(service_fn(
        async |_: Request<()>| Err::<Response<String>, _>(BoxError::from("broke")),
    ));
    let mut call = Box::pin({ service }.call(request()));
    (&mut call).await.unwrap_err();
    assert_eq!(bulkhead.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_call_gives_its_place_back() {
    let bulkhead = Arc::new(Bulkhead::new(1));
    let mut call = over(&bulkhead, Answer::Never).oneshot(request());
    while bulkhead.in_flight() == 0 {
        assert!(is_pending(&mut call).await);
    }
    drop(call);
    assert_eq!(bulkhead.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_queue_is_first_come_first_served() {
    let bulkhead = Arc::new(Bulkhead::new(1).queue(8, secs(60)));
    let (done, mut order) = tokio::sync::mpsc::unbounded_channel();
    let held = over(&bulkhead, Answer::Silence)
        .oneshot(request())
        .await
        .unwrap();
    for n in 0..8 {
        let (service, done) = (over(&bulkhead, Answer::Frames), done.clone());
        tokio::spawn(async move {
            drop(service.oneshot(request()).await.unwrap());
            done.send(n).unwrap();
        });
        while bulkhead.queued() <= n {
            tokio::task::yield_now().await;
        }
    }
    drop((held, done));
    for n in 0..8 {
        assert_eq!(order.recv().await, Some(n));
    }
    assert_eq!((bulkhead.in_flight(), bulkhead.queued()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn the_queue_is_bounded_in_length_and_in_time() {
    let bulkhead = Arc::new(Bulkhead::new(1).queue(2, secs(5)));
    let _held = over(&bulkhead, Answer::Silence)
        .oneshot(request())
        .await
        .unwrap();
    let waiting: Vec<_> = (0..2)
        .map(|_| tokio::spawn(timed(over(&bulkhead, Answer::Frames).oneshot(request()))))
        .collect();
    while bulkhead.queued() < 2 {
        tokio::task::yield_now().await;
    }
    let (refused, took) = timed(over(&bulkhead, Answer::Frames).oneshot(request())).await;
    assert_eq!(
        (reason(refused), took),
        (Some(Reason::ConcurrencyLimited), Duration::ZERO)
    );
    for call in waiting {
        let (refused, took) = call.await.unwrap();
        assert_eq!(
            (reason(refused), took),
            (Some(Reason::ConcurrencyLimited), secs(5))
        );
    }
    assert_eq!((bulkhead.in_flight(), bulkhead.queued()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_dropped_waiter_leaves_the_queue() {
    let bulkhead = Arc::new(Bulkhead::new(1).queue(1, secs(60)));
    let held = over(&bulkhead, Answer::Silence)
        .oneshot(request())
        .await
        .unwrap();
    let mut waiting = over(&bulkhead, Answer::Frames).oneshot(request());
    while bulkhead.queued() == 0 {
        assert!(is_pending(&mut waiting).await);
    }
    drop(waiting);
    assert_eq!(bulkhead.queued(), 0);
    drop(held);
    assert_eq!(bulkhead.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_place_of_a_waiter_that_left_goes_to_the_next() {
    let bulkhead = Arc::new(Bulkhead::new(1).queue(8, secs(60)));
    let held = over(&bulkhead, Answer::Silence)
        .oneshot(request())
        .await
        .unwrap();
    let mut waiting: Vec<_> = (0..3)
        .map(|_| over(&bulkhead, Answer::Frames).oneshot(request()))
        .collect();
    for (n, call) in waiting.iter_mut().enumerate() {
        while bulkhead.queued() <= n {
            assert!(is_pending(call).await);
        }
    }
    // Handed over to the first, who leaves without having looked; then the same with the second.
    drop(held);
    drop(waiting.remove(0));
    drop(waiting.remove(0));
    assert_eq!((bulkhead.in_flight(), bulkhead.queued()), (1, 0));
    let (result, took) = timed(waiting.remove(0)).await;
    drop(result.unwrap());
    assert_eq!(took, Duration::ZERO);
    assert_eq!((bulkhead.in_flight(), bulkhead.queued()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn layers_made_anew_share_one_bulkhead() {
    let layer = ConcurrencyLayer::new(1);
    let _held = layer
        .layer(Probe::new(Answer::Silence))
        .oneshot(request())
        .await
        .unwrap();
    let refused = layer
        .clone()
        .layer(Probe::new(Answer::Frames))
        .oneshot(request())
        .await;
    assert_eq!(reason(refused), Some(Reason::ConcurrencyLimited));
}

#[tokio::test(start_paused = true)]
async fn no_places_at_all_are_one() {
    let call = ConcurrencyLayer::new(0)
        .layer(Probe::new(Answer::Frames))
        .oneshot(request());
    call.await.unwrap();
}

/// Polls `call` so many times at the most.
async fn poll_some<F: Future + Unpin>(mut call: F, times: u32) -> Option<F::Output> {
    for _ in 0..times {
        tokio::select! {
            biased;
            output = &mut call => return Some(output),
            () = tokio::task::yield_now() => {}
        }
    }
    None
}

/// Calls of many tasks on several threads, many dropped on their way; at the end all is given back.
async fn stress(max: usize, max_queued: usize, max_wait: Duration, calls: usize) {
    const TASKS: usize = 8;
    let bulkhead = Arc::new(Bulkhead::new(max).queue(max_queued, max_wait));
    let layer = ConcurrencyLayer::with_bulkhead(Arc::clone(&bulkhead));
    let census = Arc::new(Census::default());
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| {
            let service = layer.layer(counting(&census));
            tokio::spawn(async move {
                for _ in 0..calls / TASKS {
                    let call = service.clone().oneshot(request());
                    let result = match fastrand::u32(0..5) {
                        4 => Some(call.await),
                        patience => poll_some(Box::pin(call), patience).await,
                    };
                    let Some(Ok(response)) = result else {
                        continue;
                    };
                    if fastrand::bool() {
                        response.into_body().collect().await.unwrap();
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert!(census.most() <= max, "{} calls at once", census.most());
    assert_eq!(census.alive(), 0);
    assert_eq!((bulkhead.in_flight(), bulkhead.queued()), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn there_are_never_too_many_calls_and_no_place_is_lost() {
    for max in [1, 2, 3, 5] {
        stress(max, 8, secs(30), 25_000).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_place_is_lost_where_waiters_run_out_of_time() {
    for max in [1, 3] {
        stress(max, 4, millis(1), 10_000).await;
        stress(max, 4, Duration::ZERO, 10_000).await;
        stress(max, 0, secs(30), 10_000).await;
    }
}

/// A wake-up that is lost would leave a waiter in the queue for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_waiter_is_served() {
    let bulkhead = Arc::new(Bulkhead::new(2).queue(usize::MAX, Duration::MAX));
    let layer = ConcurrencyLayer::with_bulkhead(Arc::clone(&bulkhead));
    let census = Arc::new(Census::default());
    let tasks: Vec<_> = (0..64)
        .map(|_| {
            let service = layer.layer(counting(&census));
            tokio::spawn(async move {
                for _ in 0..500 {
                    service.clone().oneshot(request()).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        tokio::time::timeout(secs(60), task)
            .await
            .expect("a lost wake-up")
            .unwrap();
    }
    assert!(census.most() <= 2);
    assert_eq!((bulkhead.in_flight(), bulkhead.queued()), (0, 0));
}
