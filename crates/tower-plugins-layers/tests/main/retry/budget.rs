use proptest::prelude::*;

use super::*;

const fn ratio(ratio: f64, min_per_second: u32) -> BudgetLimits {
    BudgetLimits::Ratio {
        ratio,
        min_per_second,
    }
}

/// The attempts that a service sees under `budget` which fails all of them, 200 calls a second for 30
/// seconds, and the calls.
async fn attempts_at_full_outage(budget: Budget) -> (f64, f64) {
    const CALLS_PER_SECOND: u32 = 200;
    const SECONDS: u32 = 30;

    let attempts = Arc::new(Mutex::new(0_u32));
    let inner = {
        let attempts = Arc::clone(&attempts);
        service_fn(move |_: Request<ReplayBody<Full<Bytes>>>| {
            *attempts.lock().unwrap() += 1;
            async {
                tokio::time::sleep(ms(20)).await;
                status(503)
            }
        })
    };
    let layer = RetryLayer::new(policy().budget(budget));
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..CALLS_PER_SECOND * SECONDS {
        // Each call through a service of its own: the layer holds the budget.
        calls.spawn(layer.layer(inner.clone()).oneshot(request(Method::GET)));
        tokio::time::sleep(Duration::from_secs(1) / CALLS_PER_SECOND).await;
    }
    for outcome in calls.join_all().await {
        assert_eq!(outcome.unwrap().status(), 503);
    }
    let attempts = f64::from(*attempts.lock().unwrap());
    let calls = f64::from(CALLS_PER_SECOND * SECONDS);
    println!(
        "{attempts} attempts for {calls} calls: {:.3}",
        attempts / calls
    );
    (attempts, calls)
}

#[tokio::test(start_paused = true)]
async fn a_service_that_always_fails_sees_a_fifth_more_calls_and_the_reserve() {
    let (attempts, calls) = attempts_at_full_outage(Budget::new(0.2, 3)).await;
    assert!(attempts <= 1.2 * calls + 3.0 * 40.0);
    assert!(attempts >= 1.15 * calls);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_always_fails_sees_few_more_calls_under_a_share_of_those_under_way() {
    let (attempts, calls) = attempts_at_full_outage(Budget::in_flight(0.2, 3)).await;
    // Three retries of a call last for 700 ms of waits and 60 of attempts: of three at once there are
    // 12 a second.
    assert!(attempts <= calls + 12.0 * 31.0 + 9.0);
    assert!(attempts >= calls + 11.0 * 30.0);
    // With no least number the share alone bounds them: of some four calls under way, half.
    let (attempts, calls) = attempts_at_full_outage(Budget::in_flight(0.5, 0)).await;
    assert!(attempts <= 1.5 * calls && attempts >= calls + 5.0 * 30.0);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_always_fails_sees_no_retries_once_half_the_tokens_are_gone() {
    let (attempts, calls) = attempts_at_full_outage(Budget::tokens(100, 0.1)).await;
    assert!(attempts > calls && attempts <= calls + 50.0);
}

#[tokio::test(start_paused = true)]
async fn tokens_are_lost_by_failures_and_come_back_with_successes() {
    // A failure costs one whether its call may be repeated or not, and so does a word not to retry.
    let budget = Budget::tokens(4, 0.5);
    let with = || policy().budget(budget.clone());
    let allows = || budget.withdraw(Instant::now()).is_some();
    let post = run_all(with(), request(Method::POST), || status(503)).await;
    assert!(post.attempts.len() == 1 && allows());
    let stop = || Ok(answer(503, &[("grpc-retry-pushback-ms", "-1")]));
    run_all(with(), request(Method::GET), stop).await;
    // Half of them are left: that is not above half.
    assert!(!allows());
    run_all(with(), request(Method::POST), || status(404)).await;
    assert!(!allows());
    run_all(with(), request(Method::POST), || status(200)).await;
    assert!(allows());
    // What was never processed costs nothing.
    let run = run(
        with().max_retries(9),
        request(Method::GET),
        |n, request| async move {
            if n < 9 {
                return Err(Unsent::new(Some(request), Refused::new(Reason::ConnectFailed)).into());
            }
            status(200)
        },
    )
    .await;
    assert_eq!(run.attempts.len(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_bucket_of_another_size_stays_as_full_as_it_was() {
    let tokens = |max, ratio| BudgetLimits::Tokens { max, ratio };
    let left = |budget: &Budget| {
        let now = Instant::now();
        let budget = budget.with_limits(budget.limits());
        (0..)
            .take_while(|_| budget.withdraw(now).inspect(|_| budget.failed()).is_some())
            .count()
    };
    let old = Budget::from(tokens(10, 0.1));
    old.failed();
    old.failed();
    let new = old.with_limits(tokens(100, 0.1));
    assert_eq!(left(&new), 30);
    assert_eq!(left(&old), 3);
    // Another kind knows nothing of it.
    assert_eq!(old.with_limits(ratio(0.0, 1)).limits(), ratio(0.0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_retry_under_way_is_given_back_however_it_ends() {
    let budget = Budget::in_flight(0.0, 1);
    let free = || budget.withdraw(Instant::now()).is_some();
    let waiting = run_all(
        policy().budget(budget.clone()),
        request(Method::GET),
        || status(503),
    );
    assert!(tokio::time::timeout(ms(50), waiting).await.is_err());
    assert!(free());
    let call = || {
        run_all(
            policy().budget(budget.clone()),
            request(Method::GET),
            || status(503),
        )
    };
    let (one, other, ()) = tokio::join!(call(), call(), async {
        tokio::time::sleep(ms(50)).await;
        assert!(!free());
    });
    let mut attempts = [one.attempts.len(), other.attempts.len()];
    attempts.sort_unstable();
    assert_eq!(attempts, [1, 4]);
    assert!(free());
}

#[tokio::test(start_paused = true)]
async fn a_call_the_budget_refuses_ends_with_what_it_has() {
    let none = || policy().budget(Budget::new(0.0, 0));
    let run = run_all(none(), request(Method::GET), || status(503)).await;
    assert_eq!((run.attempts.len(), run.status().as_u16()), (1, 503));
    let run = run_all(none(), request(Method::GET), || Err("broken".into())).await;
    assert_eq!(run.outcome.unwrap_err().to_string(), "broken");
}

#[tokio::test(start_paused = true)]
async fn a_retry_that_is_not_made_costs_no_budget() {
    let budget = Budget::new(1.0, 0);
    let mut late = request(Method::GET);
    let at = Instant::now() + ms(50);
    late.extensions_mut()
        .insert(CallContext::new().own_deadline(at));
    let run = run_all(policy().budget(budget.clone()), late, || status(503)).await;
    assert_eq!(run.attempts.len(), 1);
    assert!(budget.withdraw(Instant::now()).is_some());
    assert!(budget.withdraw(Instant::now()).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_leaves_before_a_retry_has_spent_none() {
    let budget = Budget::new(0.0, 1);
    let policy = policy().budget(budget.clone());
    let service = RetryLayer::new(policy).layer(service_fn(|_| async { status(503) }));
    for _ in 0..20 {
        let call = service.clone().oneshot(request(Method::GET));
        // In the first wait, of 100 ms.
        tokio::time::timeout(ms(10), call).await.unwrap_err();
    }
    let left = (0..20).filter(|_| budget.withdraw(Instant::now()).is_some());
    assert_eq!(left.count(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_budget_with_other_limits_remembers_what_was_spent() {
    let old = Budget::new(0.5, 0);
    let now = Instant::now();
    (0..10).for_each(|_| drop(old.deposit(now)));
    let taken = |budget: &Budget| {
        (0..100)
            .take_while(|_| budget.withdraw(now).is_some())
            .count()
    };
    assert_eq!(taken(&old), 5);
    let new = old.with_limits(ratio(0.8, 0));
    assert_eq!(taken(&new), 3);
    assert_eq!(taken(&old), 0);
    assert_eq!(taken(&old.with_limits(ratio(f64::NAN, 1))), 2);
}

#[tokio::test(start_paused = true)]
async fn deposits_of_many_threads_are_all_counted() {
    let budget = Budget::new(0.01, 0);
    let now = Instant::now();
    std::thread::scope(|scope| {
        for second in 0..8 {
            let budget = &budget;
            scope.spawn(move || {
                (0..1000).for_each(|_| {
                    drop(budget.deposit(now + Duration::from_secs(second / 4)));
                });
            });
        }
    });
    let now = now + Duration::from_secs(2);
    assert_eq!(
        (0..100)
            .take_while(|_| budget.withdraw(now).is_some())
            .count(),
        80
    );
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Wait(u64),
    Deposit(u16),
    Withdraw(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (0_u64..4000).prop_map(Step::Wait),
        (8000_u64..30_000).prop_map(Step::Wait),
        (0_u16..50).prop_map(Step::Deposit),
        (1_u8..20).prop_map(Step::Withdraw),
    ];
    proptest::collection::vec(step, 0..80)
}

proptest! {
    #[test]
    fn the_budget_does_what_a_list_of_all_calls_and_retries_would(
        steps in steps(),
        thousandths in 0_u64..2000,
        min_per_second in 0_u32..3,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let _paused = runtime.enter();
        let start = Instant::now();
        let budget = Budget::new(thousandths as f64 / 1000.0, min_per_second);
        let mut now = start;
        let (mut calls, mut retries) = (Vec::new(), Vec::new());
        for step in steps {
            let second = (now - start).as_secs();
            match step {
                Step::Wait(millis) => now += ms(millis),
                Step::Deposit(n) => for _ in 0..n {
                    drop(budget.deposit(now));
                    calls.push(second);
                },
                Step::Withdraw(n) => for _ in 0..n {
                    let recent = |times: &[u64]| times.iter().filter(|at| *at + 10 > second).count() as u64;
                    let allowed = recent(&calls) * thousandths / 1000 + u64::from(min_per_second) * 10;
                    let allow = recent(&retries) < allowed;
                    prop_assert_eq!(budget.withdraw(now).is_some(), allow);
                    if allow {
                        retries.push(second);
                    }
                },
            }
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Call,
    End(usize),
    Retry,
    EndRetry(usize),
    Fail,
    Succeed,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        3 => Just(Event::Call),
        1 => (0_usize..99).prop_map(Event::End),
        3 => Just(Event::Retry),
        1 => (0_usize..99).prop_map(Event::EndRetry),
        2 => Just(Event::Fail),
        4 => Just(Event::Succeed),
    ];
    proptest::collection::vec(event, 0..150)
}

proptest! {
    #[test]
    fn a_share_of_those_under_way_is_what_two_lists_would_say(
        events in events(),
        thousandths in 0_usize..1500,
        min in 0_u32..4,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let _paused = runtime.enter();
        let now = Instant::now();
        let budget = Budget::in_flight(thousandths as f64 / 1000.0, min);
        let (mut calls, mut retries) = (Vec::new(), Vec::new());
        for event in events {
            match event {
                Event::Call => calls.push(budget.deposit(now)),
                Event::End(i) if !calls.is_empty() => drop(calls.swap_remove(i % calls.len())),
                Event::Retry => {
                    let allow = retries.len() < (min as usize).max(calls.len() * thousandths / 1000);
                    let withdrawal = budget.withdraw(now);
                    prop_assert_eq!(withdrawal.is_some(), allow);
                    retries.extend(withdrawal);
                }
                Event::EndRetry(i) if !retries.is_empty() => drop(retries.swap_remove(i % retries.len())),
                _ => {}
            }
        }
    }

    #[test]
    fn tokens_are_what_a_plain_sum_would_say(
        events in events(),
        max in 1_u32..12,
        thousandths in 0_u64..3000,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let _paused = runtime.enter();
        let now = Instant::now();
        let budget = Budget::tokens(max, thousandths as f64 / 1000.0);
        let max = u64::from(max) * 1000;
        let mut left = max;
        for event in events {
            match event {
                Event::Fail => {
                    budget.failed();
                    left = left.saturating_sub(1000);
                }
                Event::Succeed => {
                    budget.succeeded();
                    left = (left + thousandths).min(max);
                }
                _ => prop_assert_eq!(budget.withdraw(now).is_some(), 2 * left > max),
            }
        }
    }
}
