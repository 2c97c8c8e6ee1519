//! The whole of a hedged call, against what a list of its events says.

use proptest::prelude::*;

use super::*;

fn attempt() -> impl Strategy<Value = Attempt> {
    let end = prop_oneof![
        2 => Just(End::Ok),
        1 => Just(End::Missing),
        4 => Just(End::Unavailable),
        2 => (-1_i32..150).prop_map(End::Pushback),
        1 => Just(End::Limited),
    ];
    (1_u64..400, end).prop_map(|(millis, end)| Attempt(millis, end))
}

/// When attempts begin, when the call ends, and in what; nothing if two things happen at once, of
/// which either may be first.
fn expected(
    attempts: &[Attempt],
    delay: u64,
    most: usize,
    deadline: u64,
) -> Option<(Vec<u64>, u64, End)> {
    let mut begun = Vec::new();
    let mut under_way: Vec<(u64, End)> = Vec::new();
    let mut next = Some(0);
    let mut last = None;
    loop {
        let end = under_way.iter().map(|(at, _)| *at).min();
        let now = next.into_iter().chain(end).min().unwrap_or(0);
        if under_way.iter().filter(|(at, _)| *at == now).count() + usize::from(next == Some(now))
            > 1
        {
            return None;
        }
        let may = |at: u64, begun: &[u64]| (begun.len() <= most && at < deadline).then_some(at);
        if next == Some(now) {
            let Attempt(millis, end) = attempts[begun.len()];
            begun.push(now);
            under_way.push((now + millis, end));
            next = may(now + delay, &begun);
            continue;
        }
        let Some(i) = under_way.iter().position(|(at, _)| *at == now) else {
            return last.map(|(at, end)| (begun, at, end));
        };
        let (_, end) = under_way.swap_remove(i);
        match end {
            End::Ok | End::Missing => return Some((begun, now, end)),
            End::Limited | End::Pushback(..0) => next = None,
            End::Unavailable => next = may(now, &begun),
            End::Pushback(millis) => next = may(now + millis as u64, &begun),
        }
        let kept = last.map(|(_, end)| end).filter(|_| end == End::Limited);
        last = Some((now, kept.unwrap_or(end)));
    }
}

proptest! {
    #[test]
    fn attempts_begin_and_the_call_ends_as_the_rules_say(
        attempts in proptest::collection::vec(attempt(), 5),
        delay in 10_u64..200,
        most in 1_u32..=4,
        deadline in 50_u64..1000,
    ) {
        let expected = expected(&attempts, delay, most as usize, deadline);
        prop_assume!(expected.is_some());
        let (begun, took, end) = expected.unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let run = runtime.block_on(async {
            let mut request = get();
            let at = Instant::now() + ms(deadline);
            CallContext::new().own_deadline(at).attach(&mut request);
            run(hedged(after(delay).max_hedges(most)), request, &attempts).await
        });
        prop_assert_eq!((run.begun, run.took, run.left), (begun, took, 0));
        match (run.outcome, outcome(end)) {
            (Ok(got), Ok(wanted)) => prop_assert_eq!(got.status(), wanted.status()),
            (Err(got), Err(_)) => prop_assert_eq!(Reason::of(&*got), Some(Reason::RateLimited)),
            (got, _) => prop_assert!(false, "{:?} for {:?}", got.is_ok(), end),
        }
    }
}
