use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use http::{HeaderName, Request, Response};
use proptest::prelude::*;
use tower::{Layer, ServiceExt};
use tower_plugins_layers::test_util::{Answer, Probe};
use tower_plugins_layers::{BoxError, Bulkhead, CallContext, ConcurrencyLayer, Priority, Reason};

use crate::support::{reason, secs};

type Call = Pin<Box<dyn Future<Output = Result<Box<dyn Send>, BoxError>> + Send>>;

fn call(bulkhead: &Arc<Bulkhead>, priority: Priority) -> Call {
    let service =
        ConcurrencyLayer::with_bulkhead(Arc::clone(bulkhead)).layer(Probe::new(Answer::Silence));
    let mut request = Request::new(());
    let context = CallContext::new().priority(priority);
    request.extensions_mut().insert(context);
    Box::pin(async move {
        let response: Response<_> = service.oneshot(request).await?;
        Ok(Box::new(response) as Box<dyn Send>)
    })
}

fn poll(call: &mut Call) -> Poll<Result<Box<dyn Send>, BoxError>> {
    let mut cx = Context::from_waker(Waker::noop());
    // `oneshot` takes a poll for being ready, and one for the call.
    for _ in 0..4 {
        if let Poll::Ready(result) = call.as_mut().poll(&mut cx) {
            return Poll::Ready(result);
        }
    }
    Poll::Pending
}

#[tokio::test(start_paused = true)]
async fn the_less_important_get_a_smaller_share_of_the_places() {
    let bulkhead = Arc::new(Bulkhead::new(10));
    let mut held = Vec::new();
    for (priority, most) in [
        (Priority::Bulk, 5),
        (Priority::Sheddable, 8),
        (Priority::Normal, 10),
    ] {
        while held.len() < most {
            held.push(call(&bulkhead, priority).await.unwrap());
        }
        let right = if most < 10 {
            Reason::Shed
        } else {
            Reason::ConcurrencyLimited
        };
        assert_eq!(reason(call(&bulkhead, priority).await), Some(right));
    }
    assert_eq!(
        reason(call(&bulkhead, Priority::Critical).await),
        Some(Reason::ConcurrencyLimited)
    );
}

#[tokio::test(start_paused = true)]
async fn one_that_waits_is_displaced_by_one_of_more_importance() {
    let bulkhead = Arc::new(Bulkhead::new(1).queue(2, secs(60)));
    let held = call(&bulkhead, Priority::Normal).await.unwrap();
    let mut bulk = call(&bulkhead, Priority::Bulk);
    assert!(poll(&mut bulk).is_pending());
    // Half of the queue is theirs.
    assert_eq!(
        reason(call(&bulkhead, Priority::Bulk).await),
        Some(Reason::ConcurrencyLimited)
    );
    let mut normal = call(&bulkhead, Priority::Normal);
    assert!(poll(&mut normal).is_pending());
    let mut critical = call(&bulkhead, Priority::Critical);
    assert!(poll(&mut critical).is_pending());
    assert_eq!(reason(bulk.await), Some(Reason::Shed));
    assert_eq!(bulkhead.queued(), 2);
    // Equals displace nobody.
    drop(normal);
    let mut second = call(&bulkhead, Priority::Critical);
    assert!(poll(&mut second).is_pending());
    assert_eq!(
        reason(call(&bulkhead, Priority::Critical).await),
        Some(Reason::ConcurrencyLimited)
    );
    drop(held);
    critical.await.unwrap();
    second.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn one_of_more_importance_is_not_held_up_by_those_who_wait_for_their_share() {
    let bulkhead = Arc::new(Bulkhead::new(2).queue(8, secs(60)));
    let _held = call(&bulkhead, Priority::Bulk).await.unwrap();
    let mut bulk = call(&bulkhead, Priority::Bulk);
    assert!(poll(&mut bulk).is_pending());
    call(&bulkhead, Priority::Normal).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_header_names_the_priority_of_a_call_whose_caller_does_not() {
    let name = HeaderName::from_static("x-priority");
    let bulkhead = Arc::new(Bulkhead::new(2));
    let _held = call(&bulkhead, Priority::Normal).await.unwrap();
    let layer = ConcurrencyLayer::with_bulkhead(bulkhead).priority_header(name.clone());
    let call = async |value: &str, context: Option<Priority>| {
        let mut request = Request::builder().header(&name, value).body(()).unwrap();
        if let Some(priority) = context {
            let context = CallContext::new().priority(priority);
            request.extensions_mut().insert(context);
        }
        let service = layer.layer(Probe::new(Answer::Frames));
        service.oneshot(request).await.is_ok()
    };
    assert!(!call("bulk", None).await);
    assert!(!call(" BULK", None).await);
    assert!(call("critical", None).await);
    assert!(call("nonsense", None).await);
    assert!(call("bulk", Some(Priority::Critical)).await);
    assert!(!call("critical", Some(Priority::Bulk)).await);
}

/// Twice as many calls as there are places for, as many of each priority: who gets through.
#[tokio::test(start_paused = true)]
async fn under_pressure_the_least_important_are_shed_first() {
    const CALLS: usize = 4000;
    let bulkhead = Arc::new(Bulkhead::new(20).queue(20, secs(60)));
    let mut under_way: VecDeque<(usize, Call)> = VecDeque::new();
    let (mut held, mut served, mut shed) = (VecDeque::new(), [0; 4], [0; 4]);
    for n in 0..CALLS {
        let priority = Priority::ALL[n % 4];
        under_way.push_back((n % 4, call(&bulkhead, priority)));
        for _ in 0..under_way.len() {
            let (class, mut call) = under_way.pop_front().unwrap();
            match poll(&mut call) {
                Poll::Ready(Ok(response)) => {
                    served[class] += 1;
                    held.push_back(response);
                }
                Poll::Ready(Err(_)) => shed[class] += 1,
                Poll::Pending => under_way.push_back((class, call)),
            }
        }
        // One call in two ends.
        if n % 2 == 0 {
            held.pop_front();
        }
    }
    println!("{CALLS} calls, places for half of them: served {served:?}, refused {shed:?}");
    assert!(served[0] * 100 >= (CALLS / 4) * 95, "{served:?}");
    assert!(served[1] * 100 >= (CALLS / 4) * 85, "{served:?}");
    assert!(
        served[1] > served[2] * 5 && served[2] + 20 >= served[3],
        "{served:?}"
    );
}

#[derive(Clone, Debug)]
enum Step {
    Arrive(usize),
    Finish(usize),
    Leave(usize),
    Limit(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (0_usize..4).prop_map(Step::Arrive),
        3 => any::<usize>().prop_map(Step::Finish),
        1 => any::<usize>().prop_map(Step::Leave),
        1 => (1_usize..7).prop_map(Step::Limit),
    ]
}

/// What a bulkhead is, without regard to threads: calls by their number, in the order of their coming.
#[derive(Default)]
struct Model {
    limit: usize,
    queue: usize,
    holding: Vec<usize>,
    waiting: Vec<(usize, usize)>,
    shed: Vec<usize>,
}

const SHARES: [f64; 4] = [1.0, 1.0, 0.8, 0.5];

impl Model {
    fn may_hold(&self, class: usize) -> bool {
        self.holding.len() < ((self.limit as f64 * SHARES[class]) as usize).max(1)
    }

    fn serve(&mut self) {
        while let Some(&(class, call)) = self
            .waiting
            .iter()
            .min_by_key(|(class, call)| (*class, *call))
            && self.may_hold(class)
        {
            self.waiting.retain(|(_, other)| *other != call);
            self.holding.push(call);
        }
    }

    fn arrive(&mut self, class: usize, call: usize) {
        if self.may_hold(class) && !self.waiting.iter().any(|(other, _)| *other <= class) {
            return self.holding.push(call);
        }
        if self.waiting.len() >= (self.queue as f64 * SHARES[class]) as usize {
            let last = self
                .waiting
                .iter()
                .max_by_key(|(class, call)| (*class, *call));
            match last {
                Some(&(other, last)) if other > class && self.queue > 0 => {
                    self.waiting.retain(|(_, call)| *call != last);
                    self.shed.push(last);
                }
                _ => return self.shed.push(call),
            }
        }
        self.waiting.push((class, call));
        self.serve();
    }
}

proptest! {
    #[test]
    fn it_agrees_with_a_naive_bulkhead(
        limit in 1_usize..6,
        queue in 0_usize..5,
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let _inside = runtime.enter();
        let bulkhead = Arc::new(Bulkhead::new(limit).queue(queue, secs(3600)));
        let mut model = Model { limit, queue, ..Model::default() };
        let mut calls: Vec<Option<Call>> = Vec::new();
        let mut held: Vec<Option<Box<dyn Send>>> = Vec::new();
        for step in steps {
            match step {
                Step::Arrive(class) => {
                    model.arrive(class, calls.len());
                    calls.push(Some(call(&bulkhead, Priority::ALL[class])));
                    held.push(None);
                }
                Step::Finish(n) if !model.holding.is_empty() => {
                    let n = n % model.holding.len();
                    held[model.holding.remove(n)] = None;
                    model.serve();
                }
                Step::Leave(n) if !model.waiting.is_empty() => {
                    let n = n % model.waiting.len();
                    calls[model.waiting.remove(n).1] = None;
                    model.serve();
                }
                Step::Limit(limit) => {
                    bulkhead.set_limit(limit);
                    model.limit = limit;
                    model.serve();
                }
                Step::Finish(_) | Step::Leave(_) => {}
            }
            // The newest first: a call comes when it is first polled, and only the newest is new.
            for n in (0..calls.len()).rev() {
                let Some(waiting) = &mut calls[n] else { continue };
                match poll(waiting) {
                    Poll::Pending => {}
                    Poll::Ready(Ok(response)) => {
                        held[n] = Some(response);
                        calls[n] = None;
                    }
                    Poll::Ready(Err(_)) => {
                        prop_assert!(model.shed.contains(&n), "call {} was refused", n);
                        calls[n] = None;
                    }
                }
            }
            let mut holding = model.holding.clone();
            holding.sort_unstable();
            let really: Vec<_> = (0..held.len()).filter(|n| held[*n].is_some()).collect();
            prop_assert_eq!(really, holding);
            prop_assert_eq!(bulkhead.in_flight(), model.holding.len());
            prop_assert_eq!(bulkhead.queued(), model.waiting.len());
        }
        drop((calls, held));
        prop_assert_eq!((bulkhead.in_flight(), bulkhead.queued()), (0, 0));
    }
}
