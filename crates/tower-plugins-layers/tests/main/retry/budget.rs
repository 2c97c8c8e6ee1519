use proptest::prelude::*;

use super::*;

#[tokio::test(start_paused = true)]
async fn a_service_that_always_fails_sees_a_fifth_more_calls_and_the_reserve() {
    const CALLS_PER_SECOND: u32 = 200;
    const SECONDS: u32 = 30;
    const RESERVE_PER_SECOND: u32 = 3;

    let attempts = Arc::new(Mutex::new(0_u32));
    let inner = {
        let attempts = Arc::clone(&attempts);
        service_fn(move |_: Request<ReplayBody<Full<Bytes>>>| {
            *attempts.lock().unwrap() += 1;
            std::future::ready(status(503))
        })
    };
    let layer = RetryLayer::new(policy().budget(Budget::new(0.2, RESERVE_PER_SECOND)));
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
    assert!(attempts <= 1.2 * calls + f64::from(RESERVE_PER_SECOND * (SECONDS + 10)));
    assert!(attempts >= 1.15 * calls);
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
    assert!(budget.withdraw(Instant::now()));
    assert!(!budget.withdraw(Instant::now()));
}

#[tokio::test(start_paused = true)]
async fn a_budget_with_other_limits_remembers_what_was_spent() {
    let old = Budget::new(0.5, 0);
    let now = Instant::now();
    (0..10).for_each(|_| old.deposit(now));
    let taken = |budget: &Budget| (0..100).take_while(|_| budget.withdraw(now)).count();
    assert_eq!(taken(&old), 5);
    let new = old.with_limits(0.8, 0);
    assert_eq!(taken(&new), 3);
    assert_eq!(taken(&old), 0);
    assert_eq!(taken(&old.with_limits(f64::NAN, 1)), 2);
}

#[tokio::test(start_paused = true)]
async fn deposits_of_many_threads_are_all_counted() {
    let budget = Budget::new(0.01, 0);
    let now = Instant::now();
    std::thread::scope(|scope| {
        for second in 0..8 {
            let budget = &budget;
            scope.spawn(move || {
                (0..1000).for_each(|_| budget.deposit(now + Duration::from_secs(second / 4)));
            });
        }
    });
    let now = now + Duration::from_secs(2);
    assert_eq!((0..100).take_while(|_| budget.withdraw(now)).count(), 80);
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
                    budget.deposit(now);
                    calls.push(second);
                },
                Step::Withdraw(n) => for _ in 0..n {
                    let recent = |times: &[u64]| times.iter().filter(|at| *at + 10 > second).count() as u64;
                    let allowed = recent(&calls) * thousandths / 1000 + u64::from(min_per_second) * 10;
                    let allow = recent(&retries) < allowed;
                    prop_assert_eq!(budget.withdraw(now), allow);
                    if allow {
                        retries.push(second);
                    }
                },
            }
        }
    }
}
