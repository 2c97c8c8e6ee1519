//! The whole of a call's attempts, against what a few lines say they must be.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Copy, Debug)]
enum End {
    Ok,
    Missing,
    Unavailable,
    Pushback(u64),
    Stop,
    Lost,
    Limited,
    Unsent,
}

fn end() -> impl Strategy<Value = End> {
    prop_oneof![
        1 => Just(End::Ok),
        1 => Just(End::Missing),
        4 => Just(End::Unavailable),
        2 => (0_u64..500).prop_map(End::Pushback),
        1 => Just(End::Stop),
        3 => Just(End::Lost),
        1 => Just(End::Limited),
        3 => Just(End::Unsent),
    ]
}

fn outcome(end: End, request: Request<ReplayBody<Full<Bytes>>>) -> Outcome {
    match end {
        End::Ok => status(200),
        End::Missing => status(404),
        End::Unavailable => status(503),
        End::Pushback(millis) => {
            let millis = millis.to_string();
            Ok(answer(503, &[("grpc-retry-pushback-ms", &millis)]))
        }
        End::Stop => Ok(answer(503, &[("grpc-retry-pushback-ms", "-1")])),
        End::Lost => refused(Reason::ConnectionLost),
        End::Limited => refused(Reason::RateLimited),
        End::Unsent => Err(Unsent::new(Some(request), Refused::new(Reason::ConnectFailed)).into()),
    }
}

/// When the attempts begin, in milliseconds.
fn expected(ends: &[End], retries: u32, idempotent: bool, budget: u32, deadline: u64) -> Vec<u64> {
    let mut begun = vec![0];
    let mut left = budget;
    for (n, end) in (0_u32..).zip(ends) {
        let backoff = (100 * 2_u64.pow(n.min(20))).min(5000);
        let wait = match end {
            End::Ok | End::Missing | End::Stop | End::Limited => break,
            End::Pushback(millis) if idempotent => *millis,
            End::Unavailable | End::Lost if idempotent => backoff,
            End::Unsent => backoff,
            _ => break,
        };
        let at = begun[begun.len() - 1] + wait;
        if n >= retries || left == 0 || at >= deadline {
            break;
        }
        left -= 1;
        begun.push(at);
    }
    begun
}

proptest! {
    #[test]
    fn attempts_begin_when_and_only_when_the_rules_say(
        ends in proptest::collection::vec(end(), 12),
        retries in 0_u32..6,
        idempotent in any::<bool>(),
        budget in 0_u32..5,
        deadline in 1_u64..8000,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let method = if idempotent { Method::GET } else { Method::POST };
        let run = runtime.block_on(async {
            let mut request = request(method);
            let at = Instant::now() + ms(deadline);
            CallContext::new().own_deadline(at).attach(&mut request);
            // Each call gives one retry, and this is one of them; nothing comes back in 8 s.
            let shared = Budget::new(1.0, 0);
            for _ in 1..budget.max(1) {
                drop(shared.deposit(Instant::now()));
            }
            let none = Budget::new(0.0, 0);
            let policy = policy()
                .max_retries(retries)
                .budget(if budget == 0 { none } else { shared });
            let ends = ends.clone();
            run(policy, request, move |n, request| {
                std::future::ready(outcome(ends[n], request))
            })
            .await
        });
        let begun: Vec<_> = run.attempts.iter().map(|at| at.as_millis() as u64).collect();
        prop_assert_eq!(begun, expected(&ends, retries, idempotent, budget, deadline));
    }
}
