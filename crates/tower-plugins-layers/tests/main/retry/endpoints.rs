//! Where attempts go, through a balancer.

use std::pin::Pin;

use http::HeaderName;
use tower_plugins_layers::balance::{BalancePolicy, EndpointMeta, KeyFrom, Load, Strategy};
use tower_plugins_layers::retry::{EndpointBudget, EndpointBudgetLayer};

use super::*;

pub(super) type Asked = Request<ReplayBody<Full<Bytes>>>;
pub(super) type Answering = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// What an endpoint does with a call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Does {
    Answers,
    Fails,
    /// Has never seen it.
    Refuses,
    /// Has a circuit that is open.
    GivesBack,
    /// After 50 ms.
    Panics,
    /// Answers after 500 ms.
    Dawdles,
    Hangs,
}

/// Endpoints, each with what it does, and the numbers of those that were asked.
#[derive(Clone)]
pub(super) struct Endpoints {
    does: Arc<Mutex<Vec<Does>>>,
    asked: Arc<Mutex<Vec<usize>>>,
    /// Those that were asked by an attempt beyond the first.
    again: Arc<Mutex<Vec<usize>>>,
}

#[derive(Clone)]
pub(super) struct Endpoint(usize, Endpoints);

impl Service<Asked> for Endpoint {
    type Response = Response<Full<Bytes>>;
    type Error = BoxError;
    type Future = Answering;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), BoxError>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Asked) -> Answering {
        let Self(number, all) = self;
        all.asked.lock().unwrap().push(*number);
        if CallContext::of(&request).is_some_and(|context| context.attempt() > 0) {
            all.again.lock().unwrap().push(*number);
        }
        let does = all.does.lock().unwrap()[*number];
        Box::pin(async move {
            match does {
                Does::Answers => status(200),
                Does::Fails => status(503),
                Does::GivesBack => {
                    Err(Unsent::new(Some(request), Refused::new(Reason::BreakerOpen)).into())
                }
                Does::Panics => {
                    tokio::time::sleep(ms(50)).await;
                    refused(Reason::Panicked)
                }
                Does::Dawdles => {
                    tokio::time::sleep(ms(500)).await;
                    status(200)
                }
                Does::Hangs => std::future::pending().await,
                Does::Refuses => {
                    // As from the wire, where the context ends.
                    request.extensions_mut().clear();
                    let cause = Refused::new(Reason::ConnectFailed);
                    Err(Unsent::new(Some(request), cause).into())
                }
            }
        })
    }
}

impl Endpoints {
    pub(super) fn new<const N: usize>(does: [Does; N]) -> Self {
        Self::with(does.to_vec())
    }

    pub(super) fn with(does: Vec<Does>) -> Self {
        Self {
            does: Arc::new(Mutex::new(does)),
            asked: Arc::default(),
            again: Arc::default(),
        }
    }

    pub(super) fn all_do(&self, what: Does) {
        self.does.lock().unwrap().fill(what);
    }

    pub(super) fn do_now(&self, what: &[Does]) {
        self.does.lock().unwrap().copy_from_slice(what);
    }

    pub(super) fn members(&self) -> Vec<Load<Endpoint>> {
        let numbers = 0..self.does.lock().unwrap().len();
        let member = |number| LoadLayer::new().layer(Endpoint(number, self.clone()));
        numbers.map(member).collect()
    }

    pub(super) fn balance(&self, strategy: Strategy) -> Balance<Load<Endpoint>> {
        // All calls have the same key: without a rule of its own each attempt would go to the same endpoint.
        let by = KeyFrom::header(HeaderName::from_static("x-one"));
        Balance::new(BalancePolicy::new(strategy).hash_on(by), self.members())
    }

    /// Each with a budget of its own.
    pub(super) fn budgeted(
        &self,
        budget: impl Fn() -> Budget,
    ) -> Balance<EndpointBudget<Load<Endpoint>>> {
        let members = self.members().into_iter();
        let member = |member| EndpointBudgetLayer::new(budget()).layer(member);
        Balance::new(Strategy::RoundRobin, members.map(member))
    }

    /// Who was asked since this was last asked.
    pub(super) fn asked(&self) -> Vec<usize> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

fn once() -> RetryPolicy {
    policy().max_retries(1)
}

#[tokio::test(start_paused = true)]
async fn a_retry_goes_to_another_endpoint_than_the_one_that_failed() {
    for strategy in Strategy::ALL {
        let endpoints = Endpoints::new([Does::Fails, Does::Answers]);
        let service = RetryLayer::new(once()).layer(endpoints.balance(strategy));
        for _ in 0..20 {
            let response = service.clone().oneshot(request(Method::GET)).await.unwrap();
            assert_eq!(response.status(), 200, "{strategy:?}");
            let asked = endpoints.asked();
            assert!(asked == [1] || asked == [0, 1], "{strategy:?}: {asked:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn each_attempt_goes_where_none_was_before_as_long_as_there_is_such_an_endpoint() {
    for strategy in Strategy::ALL {
        let endpoints = Endpoints::new([Does::Fails; 4]);
        let balance = endpoints.balance(strategy);
        for _ in 0..20 {
            let service = RetryLayer::new(policy().max_retries(5)).layer(balance.clone());
            service.oneshot(request(Method::GET)).await.unwrap();
            let asked = endpoints.asked();
            assert_eq!(asked.len(), 6, "{strategy:?}");
            let mut first = asked[..4].to_vec();
            first.sort_unstable();
            assert_eq!(first, [0, 1, 2, 3], "{strategy:?}");
        }
    }
    // With one endpoint it goes there again.
    let endpoints = Endpoints::new([Does::Fails]);
    let service = RetryLayer::new(policy()).layer(endpoints.balance(Strategy::PeakEwma));
    service.oneshot(request(Method::GET)).await.unwrap();
    assert_eq!(endpoints.asked(), [0; 4]);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_was_never_sent_goes_to_another_endpoint_whatever_its_method() {
    for strategy in [Strategy::Random, Strategy::RingHash] {
        let endpoints = Endpoints::new([Does::Refuses, Does::Answers]);
        let service = RetryLayer::new(once()).layer(endpoints.balance(strategy));
        for _ in 0..20 {
            let call = service.clone().oneshot(request(Method::POST));
            assert_eq!(call.await.unwrap().status(), 200, "{strategy:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_timed_out_behind_other_layers_is_not_repeated_where_it_hangs() {
    /// Calls the service inside when it is polled, as the layers of others do.
    async fn later(inner: Balance<Load<Endpoint>>, request: Asked) -> Outcome {
        tokio::time::sleep(ms(1)).await;
        let response = inner.oneshot(request).await?;
        Ok(response.map(|_| Full::from("answer")))
    }
    for strategy in [Strategy::Random, Strategy::RingHash] {
        let endpoints = Endpoints::new([Does::Hangs, Does::Answers]);
        let balance = endpoints.balance(strategy);
        let inner = service_fn(move |request| later(balance.clone(), request));
        let inner = AttemptTimeoutLayer::new(ms(50)).layer(inner);
        let service = RetryLayer::new(once()).layer(inner);
        for _ in 0..20 {
            let call = service.clone().oneshot(request(Method::GET));
            assert_eq!(call.await.unwrap().status(), 200, "{strategy:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_balances_itself_is_still_the_one_that_failed() {
    let groups = [
        Endpoints::new([Does::Fails, Does::Fails]),
        Endpoints::new([Does::Answers, Does::Answers]),
    ];
    let member = |group: &Endpoints| LoadLayer::new().layer(group.balance(Strategy::Random));
    let service = RetryLayer::new(once()).layer(Balance::new(
        Strategy::Random,
        groups.iter().map(member).collect::<Vec<_>>(),
    ));
    for _ in 0..20 {
        let call = service.clone().oneshot(request(Method::GET));
        assert_eq!(call.await.unwrap().status(), 200);
    }
    assert!(!groups[0].asked().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_one_endpoint_costs_the_others_no_more_than_their_budgets() {
    let endpoints = Endpoints::new([Does::Fails, Does::Answers, Does::Answers]);
    let balance = endpoints.budgeted(|| Budget::new(0.1, 0));
    // Without waits, so that all calls are of the same ten seconds.
    let policy = once().backoff(Backoff::new(ms(0), ms(0)));
    let service = RetryLayer::new(policy).layer(balance);
    let mut refused = 0;
    for _ in 0..300 {
        let response = service.clone().oneshot(request(Method::GET)).await.unwrap();
        refused += usize::from(response.status() == 503);
    }
    let (asked, again) = (endpoints.asked(), endpoints.again.lock().unwrap());
    let count = |list: &[usize], n| list.iter().filter(|number| **number == n).count();
    for number in 0..3 {
        let again = count(&again, number);
        let most = (count(&asked, number) - again) / 10;
        assert!(
            again <= most && again + 2 >= most,
            "{number}: {again} of {most}"
        );
    }
    // All others that failed were not repeated; some were, where it failed.
    let failed = count(&asked, 0) - count(&again, 0);
    assert_eq!(refused, failed - again.len() + count(&again, 0));
}

#[tokio::test(start_paused = true)]
async fn a_retry_goes_to_an_endpoint_whose_budget_has_something_left() {
    let endpoints = Endpoints::new([Does::Answers, Does::Answers, Does::Fails]);
    // The first and the last are not asked again.
    let budgets = [
        Budget::new(0.0, 0),
        Budget::new(0.0, 9),
        Budget::new(0.0, 0),
    ];
    let members = endpoints.members().into_iter().zip(budgets);
    let member = |(member, budget)| EndpointBudgetLayer::new(budget).layer(member);
    let balance = Balance::new(Strategy::Random, members.map(member));
    let service = RetryLayer::new(once()).layer(balance);
    for _ in 0..20 {
        let call = service.clone().oneshot(request(Method::GET));
        assert_eq!(call.await.unwrap().status(), 200);
        let asked = endpoints.asked();
        assert!(asked.len() == 1 || asked == [2, 1], "{asked:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_s_tokens_are_lost_by_failures_and_come_back_with_answers() {
    let endpoints = Endpoints::new([Does::Fails]);
    let balance = endpoints.budgeted(|| Budget::tokens(4, 1.0));
    let service = RetryLayer::new(policy().max_retries(5)).layer(balance);
    let call = async || {
        let call = service.clone().oneshot(request(Method::GET));
        call.await.unwrap().status()
    };
    for (asked, answers) in [(2, 0), (1, 0), (1, 4)] {
        assert_eq!(call().await, 503);
        assert_eq!(endpoints.asked().len(), asked);
        endpoints.does.lock().unwrap()[0] = Does::Answers;
        for _ in 0..answers {
            let response = service.clone().oneshot(request(Method::GET)).await.unwrap();
            http_body_util::BodyExt::collect(response.into_body())
                .await
                .unwrap();
        }
        endpoints.asked();
        endpoints.does.lock().unwrap()[0] = Does::Fails;
    }
    // All four were back, and the first attempt cost one.
    assert_eq!(call().await, 503);
    assert_eq!(endpoints.asked().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn another_balancer_in_the_same_attempt_is_not_taken_for_the_one_that_failed() {
    let endpoints = Endpoints::new([Does::Fails; 2]);
    let others = Endpoints::new([Does::Answers]);
    for after in [true, false] {
        let (reporter, balance) = (
            others.balance(Strategy::RoundRobin),
            endpoints.balance(Strategy::RingHash),
        );
        let inner = service_fn(move |request: Asked| {
            let (balance, reporter) = (balance.clone(), reporter.clone());
            let report = || Request::new(ReplayBody::passthrough(Full::from("it failed")));
            async move {
                if !after {
                    reporter.clone().oneshot(report()).await?;
                }
                let response = balance.oneshot(request).await?;
                if after {
                    reporter.oneshot(report()).await?;
                }
                Ok::<_, BoxError>(response)
            }
        });
        let service = RetryLayer::new(once()).layer(inner);
        service.oneshot(request(Method::GET)).await.unwrap();
        let mut asked = endpoints.asked();
        asked.sort_unstable();
        assert_eq!(asked, [0, 1], "reports after: {after}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_hedge_avoids_the_endpoint_that_the_first_attempt_picks_late() {
    let endpoints = Endpoints::new([Does::Dawdles; 2]);
    let balance = endpoints.balance(Strategy::RingHash);
    let inner = service_fn(move |request: Asked| {
        let balance = balance.clone();
        async move {
            // As a layer of one's own that fetches something.
            tokio::time::sleep(ms(20)).await;
            balance.oneshot(request).await
        }
    });
    let policy = policy().hedge(HedgePolicy::after(ms(10)));
    let service = RetryLayer::new(policy).layer(inner);
    service.oneshot(request(Method::GET)).await.unwrap();
    let mut asked = endpoints.asked();
    asked.sort_unstable();
    assert_eq!(asked[..2], [0, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_retry_stays_in_its_priority_and_zone_while_there_is_an_endpoint() {
    let endpoints = Endpoints::new([Does::Fails, Does::Answers]);
    let metas = [
        (EndpointMeta::new(), EndpointMeta::new().priority(1)),
        (EndpointMeta::new().zone("a"), EndpointMeta::new().zone("b")),
    ];
    for (near, far) in metas {
        let ends = endpoints.members().into_iter().zip([near, far]);
        let ends = ends.map(|(member, meta)| (format!("{meta:?}"), member, meta));
        let policy = BalancePolicy::new(Strategy::PeakEwma).zone("a");
        let balance = Balance::with_endpoints(policy, ends);
        let service = RetryLayer::new(once()).layer(balance);
        service.oneshot(request(Method::GET)).await.unwrap();
        assert_eq!(endpoints.asked(), [0, 0]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_s_own_list_of_endpoints_is_kept_when_a_request_comes_back() {
    let endpoints = Endpoints::new([Does::Refuses; 4]);
    let visited = Arc::new(Visited::new());
    let service = RetryLayer::new(once()).layer(endpoints.balance(Strategy::RingHash));
    for _ in 0..2 {
        let mut request = request(Method::POST);
        let context = CallContext::new().visits(Arc::clone(&visited));
        context.attach(&mut request);
        service.clone().oneshot(request).await.unwrap_err();
    }
    let mut asked = endpoints.asked();
    asked.sort_unstable();
    assert_eq!(asked, [0, 1, 2, 3]);
}
