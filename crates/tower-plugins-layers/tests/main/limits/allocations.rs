use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use http::{HeaderName, Request, Response};
use tower::{Layer, Service, ServiceExt};
use tower_plugins_layers::breaker::BreakerPolicy;
use tower_plugins_layers::rate_limit::{KeyBy, KeyedRateLimiter};
use tower_plugins_layers::test_util::{Answer, Probe};
use tower_plugins_layers::{
    BoxError, BreakerLayer, Bulkhead, CallContext, ConcurrencyLayer, DrainHandle, DrainLayer,
    Priority, RateLimitLayer, RateLimiter,
};

/// Allocations of a call of `service` that is refused, its error included.
async fn refused<S, B>(mut service: S, request: Request<()>) -> u64
where
    S: Service<Request<()>, Response = Response<B>, Error = BoxError>,
{
    service.ready().await.unwrap();
    let mut cx = Context::from_waker(Waker::noop());
    let mut result = None;
    let info = allocation_counter::measure(|| {
        let mut call = std::pin::pin!(service.call(request));
        if let Poll::Ready(output) = call.as_mut().poll(&mut cx) {
            result = Some(output.err());
        }
    });
    assert!(matches!(result, Some(Some(_))), "not refused at once");
    info.count_total
}

#[tokio::test(start_paused = true)]
async fn a_refused_call_costs_one_allocation_its_error() {
    let probe = || Probe::new(Answer::Error("broke"));
    let now = tokio::time::Instant::now();

    let limiter = Arc::new(RateLimiter::new(1.0, 1));
    limiter.try_take(now).unwrap();
    let layer = RateLimitLayer::with_limiter(limiter).headers(true);
    assert_eq!(
        refused(layer.layer(probe()), Request::new(())).await,
        1,
        "rate limit"
    );

    let name = HeaderName::from_static("x-tenant");
    let keyed = Arc::new(KeyedRateLimiter::new(1.0, 1, 10));
    keyed.try_take(b"a tenant", now, 1).unwrap();
    let by = [
        KeyBy::header(name.clone()),
        KeyBy::extension(|tenant: &&'static str| tenant.as_bytes()),
    ];
    for by in by {
        let mut request = Request::builder()
            .header(&name, "a tenant")
            .body(())
            .unwrap();
        request.extensions_mut().insert("a tenant");
        let layer = RateLimitLayer::keyed(Arc::clone(&keyed), by);
        assert_eq!(
            refused(layer.layer(probe()), request).await,
            1,
            "rate limit by key"
        );
    }

    let bulkhead = Arc::new(Bulkhead::new(2).queue(1, std::time::Duration::from_secs(1)));
    let mut held = ConcurrencyLayer::with_bulkhead(Arc::clone(&bulkhead)).layer(probe());
    let held = ServiceExt::<Request<()>>::ready(&mut held).await.unwrap();
    let _held = held.call(Request::new(()));
    for header in [None, Some(name)] {
        let mut layer = ConcurrencyLayer::with_bulkhead(Arc::clone(&bulkhead));
        if let Some(name) = header {
            layer = layer.priority_header(name);
        }
        let mut request = Request::new(());
        let context = CallContext::new().priority(Priority::Bulk);
        request.extensions_mut().insert(context);
        assert_eq!(
            refused(layer.layer(probe()), request).await,
            1,
            "concurrency"
        );
    }

    let layer = BreakerLayer::new(BreakerPolicy::new().consecutive_failures(1));
    let mut service = layer.layer(probe());
    let ready = ServiceExt::<Request<()>>::ready(&mut service);
    let call = ready.await.unwrap().call(Request::new(()));
    call.await.unwrap_err();
    assert_eq!(refused(service, Request::new(())).await, 1, "breaker");

    let drain = DrainHandle::new();
    drain.close();
    let service = DrainLayer::new(drain).layer(probe());
    assert_eq!(refused(service, Request::new(())).await, 1, "drain");
}
