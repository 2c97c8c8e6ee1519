use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Request};
use proptest::prelude::*;
use tokio::time::Instant;
use tower::{Layer, ServiceExt};
use tower_plugins_layers::rate_limit::{Cost, KeyBy, KeyedRateLimiter, WhenFull};
use tower_plugins_layers::test_util::{Answer, Probe};
use tower_plugins_layers::{RateLimitLayer, RateLimiter, Reason};

use crate::support::{is_pending, millis, reason, secs, timed};

const TENANT: HeaderName = HeaderName::from_static("x-tenant");

fn of_tenant(tenant: &str) -> Request<()> {
    Request::builder().header(TENANT, tenant).body(()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn each_key_has_its_own_bucket_and_those_without_share_one() {
    let layer = RateLimitLayer::keyed(
        KeyedRateLimiter::new(1.0, 1, 100).into(),
        KeyBy::header(TENANT),
    );
    let call = async |request| {
        let service = layer.layer(Probe::new(Answer::Frames));
        service.oneshot(request).await.map(drop)
    };
    call(of_tenant("ann")).await.unwrap();
    assert_eq!(
        reason(call(of_tenant("ann")).await),
        Some(Reason::RateLimited)
    );
    call(of_tenant("bob")).await.unwrap();
    call(Request::new(())).await.unwrap();
    call(Request::new(())).await.unwrap_err();
    call(of_tenant("")).await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn a_key_is_a_peer_an_extension_or_what_a_closure_says() {
    #[derive(Clone)]
    struct Peer(SocketAddr);
    #[derive(Clone)]
    struct Tenant(&'static str);
    let calls = async |by: KeyBy, requests: Vec<Request<()>>| {
        let layer = RateLimitLayer::keyed(KeyedRateLimiter::new(1.0, 1, 100).into(), by);
        let mut allowed = Vec::new();
        for request in requests {
            let service = layer.layer(Probe::new(Answer::Frames));
            allowed.push(service.oneshot(request).await.is_ok());
        }
        allowed
    };
    let from = |peer: &str| {
        let mut request = Request::new(());
        request.extensions_mut().insert(Peer(peer.parse().unwrap()));
        request
    };
    let peers = [
        ("1.2.3.4:1", true),
        ("1.2.3.4:2", false),
        ("[::ffff:1.2.3.4]:1", false),
        ("1.2.3.5:1", true),
        ("[2001:db8::1]:1", true),
        ("[2001:db8::2]:1", false),
        ("[2001:db8:0:1::1]:1", true),
    ];
    let allowed = calls(
        KeyBy::peer(|peer: &Peer| peer.0),
        peers.iter().map(|(peer, _)| from(peer)).collect(),
    );
    assert_eq!(allowed.await, peers.map(|(_, allowed)| allowed));
    let tenant = |name| {
        let mut request = Request::new(());
        request.extensions_mut().insert(Tenant(name));
        request
    };
    let by = KeyBy::extension(|tenant: &Tenant| tenant.0.as_bytes());
    let tenants = ["ann", "bob", "ann"].map(tenant).into();
    assert_eq!(calls(by, tenants).await, [true, true, false]);
    let by = KeyBy::from_fn(|head| Some(head.uri().path().to_owned()));
    let paths = ["/a", "/b", "/a?x"]
        .map(|path| Request::builder().uri(path).body(()).unwrap())
        .into();
    assert_eq!(calls(by, paths).await, [true, true, false]);
}

#[tokio::test(start_paused = true)]
async fn the_keys_are_bounded_whatever_comes() {
    for max in [1, 7, 1000, 3000] {
        let limiter = KeyedRateLimiter::new(1.0, 5, max);
        let now = Instant::now();
        for n in 0..20_000_u32 {
            let _ = limiter.try_take(&n.to_le_bytes(), now, 1);
        }
        assert_eq!(limiter.len(), max);
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_bucket_makes_room_before_one_that_is_not() {
    let limiter = KeyedRateLimiter::new(1.0, 10, 2);
    let now = Instant::now();
    limiter.try_take(b"heavy", now, 10).unwrap();
    limiter.try_take(b"light", now, 1).unwrap();
    // One second on, the light one's is full.
    let now = now + secs(1);
    limiter.try_take(b"new", now, 3).unwrap();
    assert_eq!(limiter.available(b"heavy", now), 1.0);
    assert_eq!(limiter.available(b"new", now), 7.0);
    // None is full: the one nearest to it goes, and who is over the limit is remembered.
    for n in 0..100_u32 {
        limiter.try_take(&n.to_le_bytes(), now, 1).unwrap();
    }
    assert_eq!(limiter.available(b"heavy", now), 1.0);
    assert_eq!(limiter.available(b"new", now), 10.0);
    assert_eq!(limiter.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_new_key_is_refused_until_a_bucket_is_full_where_that_is_asked_for() {
    let limiter = KeyedRateLimiter::new(1.0, 10, 2).when_full(WhenFull::Refuse);
    let now = Instant::now();
    limiter.try_take(b"a", now, 4).unwrap();
    limiter.try_take(b"b", now, 2).unwrap();
    limiter.try_take(b"b", now, 1).unwrap();
    assert_eq!(limiter.try_take(b"c", now, 1), Err(secs(3)));
    assert_eq!(
        limiter.try_take(b"c", now + millis(2999), 1),
        Err(millis(1))
    );
    limiter.try_take(b"c", now + secs(3), 1).unwrap();
    assert_eq!(limiter.available(b"a", now), 6.0);
}

#[tokio::test(start_paused = true)]
async fn the_bucket_of_one_who_waits_is_not_dropped() {
    let limiter = Arc::new(KeyedRateLimiter::new(1.0, 1, 1));
    let layer =
        RateLimitLayer::keyed(Arc::clone(&limiter), KeyBy::header(TENANT)).max_wait(secs(9));
    let service = layer.layer(Probe::new(Answer::Frames));
    service.clone().oneshot(of_tenant("ann")).await.unwrap();
    let mut waiting = service.clone().oneshot(of_tenant("ann"));
    assert!(is_pending(&mut waiting).await);
    assert!(is_pending(&mut waiting).await);
    assert!(limiter.try_take(b"bob", Instant::now(), 1).is_err());
    let (result, took) = timed(waiting).await;
    result.unwrap();
    assert_eq!(took, secs(1));
    limiter.try_take(b"bob", Instant::now(), 1).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_key_that_waits_holds_up_no_other() {
    let layer = RateLimitLayer::keyed(
        KeyedRateLimiter::new(1.0, 1, 10).into(),
        KeyBy::header(TENANT),
    )
    .max_wait(secs(60));
    let service = layer.layer(Probe::new(Answer::Frames));
    let mut waiting: Vec<_> = (0..5)
        .map(|_| service.clone().oneshot(of_tenant("ann")))
        .collect();
    for call in &mut waiting {
        let _ = is_pending(call).await;
    }
    let (result, took) = timed(service.clone().oneshot(of_tenant("bob"))).await;
    result.unwrap();
    assert_eq!(took, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_call_takes_its_cost() {
    let weight = HeaderName::from_static("x-weight");
    let limiter = Arc::new(RateLimiter::new(1.0, 10));
    let layer = |cost| RateLimitLayer::with_limiter(Arc::clone(&limiter)).cost(cost);
    let call = async |cost, value: &str| {
        let request = Request::builder().header(&weight, value).body(()).unwrap();
        let before = limiter.available(Instant::now());
        let service = layer(cost).layer(Probe::new(Answer::Frames));
        let refused = service.oneshot(request).await.err();
        let wait =
            refused.map(|error| tower_plugins_layers::Refused::find(&*error).unwrap().wait());
        (before - limiter.available(Instant::now()), wait)
    };
    assert_eq!(call(Cost::constant(3), "").await, (3.0, None));
    assert_eq!(call(Cost::header(weight.clone()), "2").await, (2.0, None));
    for nonsense in ["", "0", "-5", "x", "1.5"] {
        limiter.reset();
        let cost = Cost::header(weight.clone());
        assert_eq!(call(cost, nonsense).await, (1.0, None), "{nonsense}");
    }
    let by_path = Cost::from_fn(|head| head.uri().path().len() as u32);
    assert_eq!(call(by_path, "").await, (1.0, None));
    assert_eq!(call(Cost::constant(0), "").await, (0.0, None));
    limiter.try_take_n(Instant::now(), 6).unwrap();
    assert_eq!(
        call(Cost::constant(5), "").await,
        (0.0, Some(Some(secs(3))))
    );
    // More than the bucket holds: there is no time to come again at.
    assert_eq!(call(Cost::constant(11), "").await, (0.0, Some(None)));
    let cost = Cost::header(weight.clone());
    assert_eq!(call(cost, "99999999999").await, (0.0, Some(None)));
}

proptest! {
    /// A limiter with room for all keys is a bucket a key; one with less room never refuses a call that
    /// such a one lets through.
    #[test]
    fn it_agrees_with_a_bucket_for_each_key(
        burst in 1_u32..6,
        steps in prop::collection::vec((0_u8..6, 1_u32..4, 0_u64..800), 1..200),
    ) {
        let roomy = KeyedRateLimiter::new(2.0, burst, 6);
        let narrow = KeyedRateLimiter::new(2.0, burst, 3);
        let model: Vec<_> = (0..8).map(|_| RateLimiter::new(2.0, burst)).collect();
        let mut now = Instant::now();
        for (key, n, step) in steps {
            now += millis(step);
            let right = model[usize::from(key)].try_take_n(now, n).is_ok();
            let took = roomy.try_take(&[key], now, n).is_ok();
            prop_assert_eq!(took, right);
            if right && n <= burst {
                prop_assert!(narrow.try_take(&[key], now, n).is_ok());
            }
            prop_assert!(narrow.len() <= 3);
        }
    }

    /// Where a new key is refused rather than another dropped, no call goes through that a bucket for each
    /// key would refuse.
    #[test]
    fn dropping_full_buckets_changes_no_decision(
        burst in 1_u32..6,
        steps in prop::collection::vec((0_u8..8, 1_u32..4, 0_u64..800), 1..200),
    ) {
        let narrow = KeyedRateLimiter::new(2.0, burst, 3).when_full(WhenFull::Refuse);
        let model: Vec<_> = (0..8).map(|_| RateLimiter::new(2.0, burst)).collect();
        let mut now = Instant::now();
        for (key, n, step) in steps {
            now += millis(step);
            if narrow.try_take(&[key], now, n).is_ok() {
                prop_assert!(model[usize::from(key)].try_take_n(now, n).is_ok());
            }
            let under_way = model.iter().filter(|b| b.available(now) < f64::from(burst)).count();
            prop_assert!(under_way <= 3);
        }
    }
}

#[test]
fn keys_on_many_threads_are_counted_exactly() {
    use std::sync::atomic::{AtomicU64, Ordering};
    const CALLS: u64 = 1_000_000;
    let limiter = KeyedRateLimiter::new(1000.0, 10, 1000);
    let start = Instant::now();
    let clock = AtomicU64::new(0);
    let taken: Vec<AtomicU64> = (0..16).map(|_| AtomicU64::new(0)).collect();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let n = clock.fetch_add(1, Ordering::Relaxed);
                    if n >= CALLS {
                        return;
                    }
                    let key = (n % 16) as usize;
                    let now = start + Duration::from_nanos(n * 5_000);
                    if limiter.try_take(&[key as u8], now, 1).is_ok() {
                        taken[key].fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let end = start + Duration::from_nanos(CALLS * 5_000);
    let mut worst = 0;
    for (key, taken) in taken.iter().enumerate() {
        while limiter.try_take(&[key as u8], end, 1).is_ok() {
            taken.fetch_add(1, Ordering::Relaxed);
        }
        worst = worst.max(taken.load(Ordering::Relaxed).abs_diff(5_010));
    }
    println!("16 keys, {CALLS} calls on 4 threads: off by {worst} tokens at the most");
    assert!(worst <= 1, "{worst}");
}

#[tokio::test(start_paused = true)]
async fn the_rate_of_all_keys_is_changed_at_once_and_they_are_filled_again() {
    let limiter = KeyedRateLimiter::new(1.0, 10, 100);
    let now = Instant::now();
    limiter.try_take(b"a", now, 5).unwrap();
    limiter.try_take(b"b", now, 10).unwrap();
    limiter.set_rate(1.0, 20);
    let left = |key: &[u8]| limiter.available(key, now);
    assert_eq!((left(b"a"), left(b"b"), left(b"c")), (10.0, 0.0, 20.0));
    assert_eq!(limiter.len(), 2);
    limiter.reset(b"b");
    assert_eq!((left(b"a"), left(b"b")), (10.0, 20.0));
    limiter.reset_all();
    assert_eq!(left(b"a"), 20.0);
}
