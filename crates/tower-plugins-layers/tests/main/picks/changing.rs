//! Sets that change while calls are made.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Mutex;
use std::task::Waker;

use futures_core::Stream;
use proptest::prelude::*;
use proptest::strategy::Strategy as _;
use tower::{Layer, ServiceExt, service_fn};
use tower_plugins_layers::balance::{Change, EndpointSet, Strategy};
use tower_plugins_layers::{CallContext, LoadLayer, Visited};

use super::*;

async fn send_to(set: &EndpointSet<Spot>) -> Result<usize, BoxError> {
    let mut balance = set.balance();
    let answer = balance.call(Request::new(())).await?;
    Ok(answer.into_body())
}

fn keys(set: &EndpointSet<Spot>) -> Vec<String> {
    let status = set.status(Instant::now());
    status
        .iter()
        .map(|endpoint| endpoint.key.to_string())
        .collect()
}

#[tokio::test(start_paused = true)]
async fn endpoints_that_stay_keep_their_state() {
    let set = EndpointSet::new(Strategy::RoundRobin);
    assert!(set.is_empty());
    assert_eq!(
        Reason::of(&*send_to(&set).await.expect_err("nobody")),
        Some(Reason::NoEndpoint)
    );
    for n in 0..3 {
        set.insert(n.to_string(), Spot::new(n), EndpointMeta::new());
    }
    for _ in 0..30 {
        send_to(&set).await.expect("an answer");
    }
    let picks = |set: &EndpointSet<Spot>| {
        let status = set.status(Instant::now());
        status
            .iter()
            .map(|s| (s.key.to_string(), s.picks))
            .collect::<BTreeMap<_, _>>()
    };
    assert_eq!(picks(&set).into_values().collect::<Vec<_>>(), [10; 3]);
    assert!(set.remove("1"));
    assert!(!set.remove("1"));
    assert!(set.update("2", EndpointMeta::new().weight(5)));
    assert!(!set.update("1", EndpointMeta::new()));
    let mut made = Vec::new();
    set.replace(
        ["2", "3", "3"].map(|key| (key, EndpointMeta::new())),
        |key, _| {
            made.push(key.to_owned());
            Spot::new(3)
        },
    );
    assert_eq!(made, ["3"]);
    assert_eq!(
        picks(&set),
        BTreeMap::from([("2".into(), 10), ("3".into(), 0)])
    );
    // One that is put in the place of another begins anew.
    set.insert("2", Spot::new(2), EndpointMeta::new());
    assert_eq!(picks(&set)["2"], 0);
    assert_eq!(set.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_changed_weight_holds_for_the_next_call() {
    let set = EndpointSet::new(Strategy::WeightedRoundRobin);
    set.apply(
        [0, 1].map(|n| Change::Insert(n.to_string().into(), Spot::new(n), EndpointMeta::new())),
    );
    set.update("1", EndpointMeta::new().weight(9));
    let mut spread = [0; 2];
    for _ in 0..100 {
        spread[send_to(&set).await.expect("an answer")] += 1;
    }
    assert_eq!(spread, [10, 90]);
}

#[tokio::test(start_paused = true)]
async fn a_call_goes_on_when_its_endpoint_leaves() {
    let slow = service_fn(|_: Request<()>| async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        Ok::<_, BoxError>(Response::new(String::from("late")))
    });
    let layer = LoadLayer::new();
    let set = EndpointSet::new(Strategy::PeakEwma);
    set.insert("slow", layer.layer(slow), EndpointMeta::new());
    let call = tokio::spawn(set.balance().oneshot(Request::new(())));
    while layer.load().in_flight() == 0 {
        tokio::task::yield_now().await;
    }
    set.remove("slow");
    assert!(set.is_empty());
    assert_eq!(
        call.await.expect("no panic").expect("an answer").status(),
        200
    );
    assert_eq!(layer.load().in_flight(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_call_is_lost_while_the_set_changes() {
    for strategy in Strategy::ALL {
        let set = EndpointSet::new(strategy);
        set.insert("stays", Spot::new(0), EndpointMeta::new());
        let mut tasks = tokio::task::JoinSet::new();
        let over = Arc::new(AtomicBool::new(false));
        for _ in 0..3 {
            let (set, over) = (set.clone(), Arc::clone(&over));
            tasks.spawn(async move {
                let mut calls = 0_usize;
                while !over.load(SeqCst) || calls < 100 {
                    send_to(&set).await.expect("an answer");
                    calls += 1;
                    if calls.is_multiple_of(16) {
                        tokio::task::yield_now().await;
                    }
                }
                calls
            });
        }
        let changes = if strategy == Strategy::Maglev {
            20
        } else {
            200
        };
        for n in 1..changes {
            set.insert(
                format!("{}", n % 7),
                Spot::new(n),
                EndpointMeta::new().weight(n as u32 % 5 + 1),
            );
            set.remove(&format!("{}", (n + 3) % 7));
            tokio::task::yield_now().await;
        }
        over.store(true, SeqCst);
        let calls: usize = tasks.join_all().await.into_iter().sum();
        println!(
            "{strategy:?}: {calls} calls while the set changed {} times",
            2 * changes
        );
        assert_eq!(set.status(Instant::now())[0].key.as_ref(), "stays");
    }
}

/// A stream whose changes come from a test.
#[derive(Clone, Default)]
struct Feed(Arc<Mutex<Queue>>);

#[derive(Default)]
struct Queue {
    changes: Vec<Change<Spot>>,
    over: bool,
    waker: Option<Waker>,
}

impl Feed {
    fn push(&self, changes: impl IntoIterator<Item = Change<Spot>>) {
        let mut queue = self.0.lock().expect("the queue");
        queue.changes.extend(changes);
        if let Some(waker) = queue.waker.take() {
            waker.wake();
        }
    }

    fn end(&self) {
        let mut queue = self.0.lock().expect("the queue");
        queue.over = true;
        if let Some(waker) = queue.waker.take() {
            waker.wake();
        }
    }
}

impl Stream for Feed {
    type Item = Change<Spot>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Change<Spot>>> {
        let mut queue = self.0.lock().expect("the queue");
        if !queue.changes.is_empty() {
            return Poll::Ready(Some(queue.changes.remove(0)));
        }
        queue.waker = Some(cx.waker().clone());
        if queue.over {
            Poll::Ready(None)
        } else {
            Poll::Pending
        }
    }
}

fn comes(n: usize) -> Change<Spot> {
    Change::Insert(n.to_string().into(), Spot::new(n), EndpointMeta::new())
}

#[tokio::test(start_paused = true)]
async fn a_set_follows_a_stream_until_it_ends_or_is_dropped() {
    let set = EndpointSet::new(Strategy::RoundRobin);
    let feed = Feed::default();
    feed.push((0..3).map(comes));
    let follow = tokio::spawn({
        let (set, feed) = (set.clone(), feed.clone());
        async move { set.follow(feed).await }
    });
    let until = async |wanted: &[&str]| {
        while keys(&set) != wanted {
            tokio::task::yield_now().await;
        }
    };
    until(&["0", "1", "2"]).await;
    feed.push([Change::Remove("1".into()), comes(7)]);
    until(&["0", "2", "7"]).await;
    feed.push([comes(8)]);
    feed.end();
    follow.await.expect("it ends with the stream");
    assert_eq!(keys(&set), ["0", "2", "7", "8"]);

    let feed = Feed::default();
    let stopped = tokio::spawn({
        let (set, feed) = (set.clone(), feed.clone());
        async move { set.follow(feed).await }
    });
    feed.push([comes(9)]);
    until(&["0", "2", "7", "8", "9"]).await;
    stopped.abort();
    assert!(stopped.await.is_err());
    feed.push([comes(10)]);
    tokio::task::yield_now().await;
    assert_eq!(set.len(), 5);
    assert!(send_to(&set).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn attempts_of_a_call_go_to_different_endpoints_as_long_as_there_are_any() {
    fastrand::seed(7);
    for strategy in Strategy::ALL {
        let spots = Spot::many(3);
        let balance = balance(strategy, &spots, plain);
        for _ in 0..20 {
            let visited = Arc::new(Visited::new());
            let attempt = || {
                let mut request = Request::new(());
                let context = CallContext::new().visits(Arc::clone(&visited));
                request.extensions_mut().insert(context);
                try_send(&balance, request).expect("an answer")
            };
            let mut went = [attempt(), attempt(), attempt()];
            went.sort_unstable();
            assert_eq!(went, [0, 1, 2], "{strategy:?}");
            // All have been visited: any will do.
            attempt();
            spots[0].set_up(false);
            assert_ne!(attempt(), 0);
            spots[0].set_up(true);
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Insert(u8, u32),
    Remove(u8),
    Update(u8, u32),
    Call,
}

fn step() -> impl proptest::strategy::Strategy<Value = Step> {
    prop_oneof![
        (0_u8..6, 1_u32..9).prop_map(|(key, weight)| Step::Insert(key, weight)),
        (0_u8..6).prop_map(Step::Remove),
        (0_u8..6, 1_u32..9).prop_map(|(key, weight)| Step::Update(key, weight)),
        Just(Step::Call),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, rng_seed: proptest::test_runner::RngSeed::Fixed(7), ..ProptestConfig::default() })]

    /// A set is what its changes make of it, and calls go to those that are in it.
    #[test]
    fn a_set_is_what_its_changes_make_of_it(
        steps in proptest::collection::vec(step(), 1..40),
        strategy in proptest::sample::select(&Strategy::ALL[..9]),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let set = EndpointSet::new(strategy);
        // Weight, the number of the one who is there, and its picks.
        let mut model = BTreeMap::<u8, (u32, usize, u64)>::new();
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Insert(key, weight) => {
                    set.insert(key.to_string(), Spot::new(number), EndpointMeta::new().weight(weight));
                    model.insert(key, (weight, number, 0));
                }
                Step::Remove(key) => {
                    prop_assert_eq!(set.remove(&key.to_string()), model.remove(&key).is_some());
                }
                Step::Update(key, weight) => {
                    let found = model.get_mut(&key).map(|endpoint| endpoint.0 = weight);
                    prop_assert_eq!(set.update(&key.to_string(), EndpointMeta::new().weight(weight)), found.is_some());
                }
                Step::Call => {
                    let answer = runtime.block_on(send_to(&set));
                    match answer {
                        Ok(number) => {
                            let found = model.values_mut().find(|endpoint| endpoint.1 == number);
                            prop_assert!(found.is_some(), "{number} has left");
                            if let Some(found) = found {
                                found.2 += 1;
                            }
                        }
                        Err(_) => prop_assert!(model.is_empty()),
                    }
                }
            }
            let now: BTreeMap<_, _> = set
                .status(Instant::now())
                .iter()
                .map(|s| (s.key.parse::<u8>().expect("a key"), (s.meta.get_weight(), s.picks)))
                .collect();
            let wanted: BTreeMap<_, _> = model.iter().map(|(key, m)| (*key, (m.0, m.2))).collect();
            prop_assert_eq!(now, wanted);
        }
    }
}
