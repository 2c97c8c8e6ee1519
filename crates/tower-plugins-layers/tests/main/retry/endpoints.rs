//! Where attempts go, through a balancer.

use std::pin::Pin;

use http::HeaderName;
use tower_plugins_layers::balance::{BalancePolicy, KeyFrom, Load, Strategy};

use super::*;

type Asked = Request<ReplayBody<Full<Bytes>>>;
type Answering = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// What an endpoint does with a call.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Does {
    Answers,
    Fails,
    /// Has never seen it.
    Refuses,
    Hangs,
}

/// Endpoints, each with what it does, and the numbers of those that were asked.
#[derive(Clone)]
struct Endpoints {
    does: Arc<Mutex<Vec<Does>>>,
    asked: Arc<Mutex<Vec<usize>>>,
}

#[derive(Clone)]
struct Endpoint(usize, Endpoints);

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
        let does = all.does.lock().unwrap()[*number];
        Box::pin(async move {
            match does {
                Does::Answers => status(200),
                Does::Fails => status(503),
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
    fn new<const N: usize>(does: [Does; N]) -> Self {
        Self {
            does: Arc::new(Mutex::new(does.to_vec())),
            asked: Arc::default(),
        }
    }

    fn members(&self) -> Vec<Load<Endpoint>> {
        let numbers = 0..self.does.lock().unwrap().len();
        let member = |number| LoadLayer::new().layer(Endpoint(number, self.clone()));
        numbers.map(member).collect()
    }

    fn balance(&self, strategy: Strategy) -> Balance<Load<Endpoint>> {
        // All calls have the same key: without a rule of its own each attempt would go to the same endpoint.
        let by = KeyFrom::header(HeaderName::from_static("x-one"));
        Balance::new(BalancePolicy::new(strategy).hash_on(by), self.members())
    }

    /// Who was asked since this was last asked.
    fn asked(&self) -> Vec<usize> {
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
