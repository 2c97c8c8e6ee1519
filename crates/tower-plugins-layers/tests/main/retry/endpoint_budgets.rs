//! Budgets of endpoints' own, and what is left of a call that they refuse.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};
use tower_plugins_layers::balance::{Load, Member, Strategy};
use tower_plugins_layers::retry::EndpointBudgetLayer;

use super::endpoints::{Asked, Does, Endpoint, Endpoints};
use super::*;

/// Endpoints that are never asked again.
fn nothing() -> Budget {
    Budget::new(0.0, 0)
}

fn at_once() -> RetryPolicy {
    policy().max_retries(1).backoff(Backoff::new(ms(0), ms(0)))
}

#[tokio::test(start_paused = true)]
async fn attempts_that_time_out_cost_an_endpoint_s_tokens() {
    let endpoints = Endpoints::new([Does::Hangs]);
    let balance = endpoints.budgeted(|| Budget::tokens(4, 0.1));
    let inner = AttemptTimeoutLayer::new(ms(50)).layer(balance);
    let service = RetryLayer::new(policy().max_retries(1)).layer(inner);
    for _ in 0..20 {
        let error = service.clone().oneshot(request(Method::GET)).await;
        // The first of its own, not what keeps the second away.
        let reason = Reason::of(&*error.unwrap_err());
        assert_eq!(reason, Some(Reason::AttemptTimeout));
    }
    // After two failures nothing is repeated.
    assert_eq!(endpoints.asked().len(), 21);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_leaves_costs_an_endpoint_no_tokens() {
    let endpoints = Endpoints::new([Does::Hangs]);
    let budget = Budget::tokens(2, 0.0);
    let balance = endpoints.budgeted(|| budget.clone());
    for _ in 0..5 {
        let request = request(Method::GET).map(ReplayBody::passthrough);
        let call = balance.clone().oneshot(request);
        tokio::time::timeout(ms(10), call).await.unwrap_err();
    }
    assert!(budget.withdraw(Instant::now()).is_some());
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_not_replaced_by_a_refusal_and_nobody_waits_for_one() {
    for endpoints in [
        Endpoints::new([Does::Fails]),
        Endpoints::with([Does::Fails; 3].to_vec()),
    ] {
        let balance = endpoints.budgeted(nothing);
        let budget = Budget::new(0.0, 1);
        let service = RetryLayer::new(policy().budget(budget.clone())).layer(balance);
        let start = Instant::now();
        for _ in 0..20 {
            let response = service.clone().oneshot(request(Method::GET)).await.unwrap();
            assert_eq!(response.status(), 503);
        }
        assert_eq!(start.elapsed(), ms(0));
        assert_eq!(endpoints.asked().len(), 20);
        // Nor has it cost the calls' own budget anything.
        let left = (0..20).filter(|_| budget.withdraw(Instant::now()).is_some());
        assert_eq!(left.count(), 10);
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_is_not_replaced_by_a_refusal_that_comes_after_the_wait() {
    let endpoints = Endpoints::new([Does::Hangs]);
    let inner = AttemptTimeoutLayer::new(ms(50)).layer(endpoints.budgeted(nothing));
    let budget = Budget::new(0.0, 1);
    let service = RetryLayer::new(policy().budget(budget.clone())).layer(inner);
    for _ in 0..20 {
        let error = service.clone().oneshot(request(Method::GET)).await;
        let reason = Reason::of(&*error.unwrap_err());
        assert_eq!(reason, Some(Reason::AttemptTimeout));
    }
    let left = (0..20).filter(|_| budget.withdraw(Instant::now()).is_some());
    assert_eq!(left.count(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_retry_that_is_not_made_is_counted_as_refused() {
    use metrics_util::debugging::{DebugValue, DebuggingRecorder};

    let recorder = DebuggingRecorder::new();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let endpoints = Endpoints::new([Does::Hangs]);
    let inner = AttemptTimeoutLayer::new(ms(50)).layer(endpoints.budgeted(nothing));
    let service = RetryLayer::named("search", policy()).layer(inner);
    service.oneshot(request(Method::GET)).await.unwrap_err();
    // One that another service's endpoints refused says nothing of this one's.
    let foreign = service_fn(|_: Asked| async { refused(Reason::RetryBudget) });
    let service = RetryLayer::named("search", policy()).layer(foreign);
    service.oneshot(request(Method::GET)).await.unwrap_err();
    let counts = recorder.snapshotter().snapshot().into_vec();
    let of = |name| {
        let mut all = counts.iter().filter(|count| count.0.key().name() == name);
        all.next().map(|count| &count.3)
    };
    let refused = of("plugin_retries_refused_total");
    assert_eq!(refused, Some(&DebugValue::Counter(1)));
    assert_eq!(of("plugin_retries_total"), None);
}

#[tokio::test(start_paused = true)]
async fn a_refused_hedge_does_not_hide_the_error_of_the_first_attempt() {
    let endpoints = Endpoints::new([Does::Panics]);
    let policy = policy().hedge(HedgePolicy::after(ms(10)));
    let service = RetryLayer::new(policy).layer(endpoints.budgeted(nothing));
    let error = service.oneshot(request(Method::GET)).await.unwrap_err();
    assert_eq!(Reason::of(&*error), Some(Reason::Panicked));
}

#[tokio::test(start_paused = true)]
async fn a_hedge_that_another_layer_refused_does_not_hide_it_either() {
    let attempts = Arc::new(AtomicUsize::new(0));
    let inner = service_fn(move |_: Asked| {
        let first = attempts.fetch_add(1, Relaxed) == 0;
        async move {
            if !first {
                return refused(Reason::ConcurrencyLimited);
            }
            tokio::time::sleep(ms(50)).await;
            refused(Reason::Panicked)
        }
    });
    let policy = policy().hedge(HedgePolicy::after(ms(10)));
    let service = RetryLayer::new(policy).layer(inner);
    let error = service.oneshot(request(Method::GET)).await.unwrap_err();
    assert_eq!(Reason::of(&*error), Some(Reason::Panicked));
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_came_back_from_a_breaker_costs_an_endpoint_nothing() {
    let endpoints = Endpoints::new([Does::GivesBack]);
    let balance = endpoints.budgeted(|| Budget::new(0.0, 1));
    let attempts = Arc::new(AtomicUsize::new(0));
    let inner = service_fn(move |request: Asked| {
        let first = attempts.fetch_add(1, Relaxed).is_multiple_of(2);
        let balance = balance.clone();
        async move {
            if first {
                return status(503);
            }
            let response = balance.oneshot(request).await?;
            Ok(response.map(|_| Full::from("answer")))
        }
    });
    let service = RetryLayer::new(at_once()).layer(inner);
    for _ in 0..10 {
        let error = service.clone().oneshot(request(Method::GET)).await;
        let reason = Reason::of(&*error.unwrap_err());
        assert_eq!(reason, Some(Reason::BreakerOpen));
    }
    // Not one of ten has reached it.
    endpoints.all_do(Does::Answers);
    let response = service.oneshot(request(Method::GET)).await.unwrap();
    assert_eq!(response.status(), 200);
}

#[tokio::test(start_paused = true)]
async fn endpoints_that_take_no_retry_do_not_hide_the_one_that_failed() {
    let mut does = vec![Does::Answers; 7];
    does[0] = Does::Fails;
    let endpoints = Endpoints::with(does);
    let budgets = (0..7).map(|n| Budget::new(0.0, if n == 0 || n == 6 { 1000 } else { 0 }));
    let members = endpoints.members().into_iter().zip(budgets);
    let members = members.map(|(member, budget)| EndpointBudgetLayer::new(budget).layer(member));
    let balance = Balance::new(Strategy::Random, members);
    let service = RetryLayer::new(at_once()).layer(balance.clone());
    let mut picks = 0;
    for _ in 0..700 {
        service.clone().oneshot(request(Method::GET)).await.unwrap();
        let asked = endpoints.asked();
        // The last takes repeated attempts: none has to go where it failed.
        assert_ne!(asked, [0, 0]);
        picks += asked.len() as u64;
    }
    let counted = balance.status(Instant::now());
    assert_eq!(counted.iter().map(|one| one.picks).sum::<u64>(), picks);
}

#[tokio::test(start_paused = true)]
async fn endpoints_that_gave_the_call_back_are_not_taken_for_visited() {
    // Of six that give it back, each but the last at the same time.
    let mut does = vec![Does::GivesBack; 8];
    does[0] = Does::Fails;
    does[7] = Does::Fails;
    let endpoints = Endpoints::with(does);
    let balance = endpoints.balance(Strategy::Random);
    let service = RetryLayer::new(at_once()).layer(balance.clone());
    for _ in 0..300 {
        let response = service.clone().oneshot(request(Method::GET)).await.unwrap();
        assert_eq!(response.status(), 503);
        let asked = endpoints.asked();
        let mut failed = asked.into_iter().filter(|n| *n == 0 || *n == 7);
        assert_ne!(failed.next(), failed.next());
    }
    let counted = balance.status(Instant::now());
    assert_eq!(counted.iter().map(|one| one.picks).sum::<u64>(), 600);
}

/// An endpoint that takes no retry, and counts how often it is asked whether it does.
#[derive(Clone)]
struct Stingy(Load<Endpoint>, Arc<AtomicUsize>);

impl Member for Stingy {
    fn load(&self, now: Instant) -> f64 {
        self.0.load(now)
    }

    fn is_available(&self, now: Instant) -> bool {
        self.0.is_available(now)
    }

    fn takes_retry(&self, _: Instant) -> bool {
        self.1.fetch_add(1, Relaxed);
        false
    }
}

impl Service<Asked> for Stingy {
    type Response = <Load<Endpoint> as Service<Asked>>::Response;
    type Error = BoxError;
    type Future = <Load<Endpoint> as Service<Asked>>::Future;

    fn poll_ready(
        &mut self,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), BoxError>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Asked) -> Self::Future {
        self.0.call(request)
    }
}

#[tokio::test(start_paused = true)]
async fn to_be_refused_by_all_costs_a_few_looks_at_each() {
    for strategy in Strategy::ALL {
        for n in [10, 100, 1000] {
            let looks = Arc::new(AtomicUsize::new(0));
            let endpoints = Endpoints::with(vec![Does::Hangs; n]);
            let members = endpoints.members().into_iter();
            let balance = Balance::new(strategy, members.map(|m| Stingy(m, looks.clone())));
            let inner = AttemptTimeoutLayer::new(ms(50)).layer(balance);
            let service = RetryLayer::new(at_once()).layer(inner);
            service.oneshot(request(Method::GET)).await.unwrap_err();
            assert_eq!(endpoints.asked().len(), 1, "{strategy:?}");
            let looks = looks.load(Relaxed);
            assert!(looks <= 8 * n + 500, "{strategy:?}: {looks} of {n}");
        }
    }
}

proptest! {
    #[test]
    fn attempts_go_where_two_lists_of_each_endpoint_would_let_them(
        fails in proptest::collection::vec(any::<[bool; 4]>(), 1..60),
        n in 1_usize..=4,
        strategy in 0..Strategy::ALL.len(),
        thousandths in 0_usize..600,
    ) {
        let runtime = crate::support::paused();
        let endpoints = Endpoints::with(vec![Does::Answers; n]);
        let budget = || Budget::new(thousandths as f64 / 1000.0, 0);
        runtime.block_on(async {
            let members = endpoints.members().into_iter();
            let members = members.map(|member| EndpointBudgetLayer::new(budget()).layer(member));
            let balance = Balance::new(Strategy::ALL[strategy], members);
            let service = RetryLayer::new(at_once()).layer(balance.clone());
            let (mut firsts, mut retries) = ([0; 4], [0; 4]);
            for fails in fails {
                let does = fails.map(|fails| if fails { Does::Fails } else { Does::Answers });
                endpoints.do_now(&does[..n]);
                let call = service.clone().oneshot(request(Method::GET));
                let good = call.await.unwrap().status() == 200;
                let asked = endpoints.asked();
                let one = asked[0];
                firsts[one] += 1;
                let takes = |end: &usize| retries[*end] < firsts[*end] * thousandths / 1000;
                let taking: Vec<_> = (0..n).filter(takes).collect();
                if !fails[one] || taking.is_empty() {
                    prop_assert_eq!(asked.len(), 1);
                    prop_assert_eq!(good, !fails[one]);
                    continue;
                }
                prop_assert_eq!(asked.len(), 2);
                let other = asked[1];
                prop_assert!(taking.contains(&other));
                prop_assert!(other != one || taking == [one]);
                prop_assert_eq!(good, !fails[other]);
                retries[other] += 1;
            }
            let picks = balance.status(Instant::now());
            for (status, (first, again)) in picks.iter().zip(firsts.iter().zip(&retries)) {
                prop_assert_eq!(status.picks, (first + again) as u64);
            }
            Ok(())
        })?;
    }
}
