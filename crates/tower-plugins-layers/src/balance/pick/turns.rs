use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// The most turns in an order, unless there are more endpoints: 256 KiB.
const MOST: u64 = 1 << 16;

/// An order of turns in which each index has as many as its weight says, and after any number of turns has had its
/// share of them to within one: the windows of proportionate fairness, by earliest deadline.
pub(super) fn order(weights: &[u32]) -> Box<[u32]> {
    let counts = counts(weights);
    let turns: u64 = counts.iter().sum();
    // The k-th turn of an index is due between k and k + 1 of its shares of all turns.
    let begins = |i: usize, k: u64| k * turns / counts[i];
    let ends = |i: usize, k: u64| ((k + 1) * turns).div_ceil(counts[i]);
    let mut later: BinaryHeap<_> = (0..counts.len()).map(|i| Reverse((0, i, 0))).collect();
    let mut due = BinaryHeap::new();
    let mut order = Vec::with_capacity(turns as usize);
    for turn in 0..turns {
        while let Some(&Reverse((begin, i, k))) = later.peek()
            && begin <= turn
        {
            later.pop();
            due.push(Reverse((ends(i, k), i, k)));
        }
        // There is always one, as all shares together are one.
        if let Some(Reverse((_, i, k))) = due.pop() {
            order.push(i as u32);
            if k + 1 < counts[i] {
                later.push(Reverse((begins(i, k + 1), i, k + 1)));
            }
        }
    }
    order.into()
}

/// How many turns each has: its weight by the greatest common divisor, or as near as the length allows.
fn counts(weights: &[u32]) -> Vec<u64> {
    let weights = || weights.iter().map(|&weight| u64::from(weight));
    let divisor = weights().fold(0, gcd).max(1);
    let total: u64 = weights().sum::<u64>() / divisor;
    let most = MOST.max(8 * weights().len() as u64);
    let count = |weight: u64| {
        if total <= most {
            weight / divisor
        } else {
            let share = u128::from(weight) * u128::from(most) / u128::from(total * divisor);
            (share as u64).max(1)
        }
    };
    weights().map(count).collect()
}

fn gcd(one: u64, other: u64) -> u64 {
    if other == 0 {
        one
    } else {
        gcd(other, one % other)
    }
}
