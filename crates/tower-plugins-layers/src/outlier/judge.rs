//! Who stands out among the endpoints of an interval: Envoy's and gRFC A50's two rates.

use super::OutlierPolicy;
use super::history::Tally;
use crate::Reason;

/// The outliers among `tallies`, as indices, the worst first.
pub(super) fn outliers(policy: &OutlierPolicy, tallies: &[Tally]) -> Vec<(usize, Reason)> {
    let enough = |tally: &Tally| tally.calls >= policy.min_requests;
    let judged: Vec<_> = (0..tallies.len())
        .filter(|&i| enough(&tallies[i]))
        .collect();
    if judged.len() < policy.min_hosts {
        return Vec::new();
    }
    let rates = || judged.iter().map(|&i| tallies[i].success_rate());
    let bar = policy
        .success_rate_stdev
        .map(|factor| bar(rates(), judged.len(), factor));
    let mut found: Vec<_> = judged
        .iter()
        .filter_map(|&i| Some((i, verdict(policy, tallies[i], bar)?)))
        .collect();
    found.sort_by(|(one, _), (other, _)| {
        let (one, other) = (tallies[*one].success_rate(), tallies[*other].success_rate());
        one.total_cmp(&other)
    });
    found
}

fn verdict(policy: &OutlierPolicy, tally: Tally, bar: Option<f64>) -> Option<Reason> {
    if bar.is_some_and(|bar| tally.success_rate() < bar) {
        return Some(Reason::SuccessRate);
    }
    let percent = u64::from(policy.failure_percentage?);
    let too_many = u64::from(tally.failures) * 100 >= percent * u64::from(tally.calls);
    too_many.then_some(Reason::FailureRate)
}

/// The success rate below which an endpoint is an outlier: that of all, less so many deviations.
fn bar(rates: impl Iterator<Item = f64> + Clone, count: usize, factor: f64) -> f64 {
    let count = count.max(1) as f64;
    let mean = rates.clone().sum::<f64>() / count;
    let variance = rates.map(|rate| (rate - mean).powi(2)).sum::<f64>() / count;
    // Less a hair: the mean of equal rates may come out above them.
    mean - factor * variance.sqrt() - 1e-9
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(policy: &OutlierPolicy, failures: &[u32]) -> Vec<usize> {
        let tallies: Vec<_> = failures
            .iter()
            .map(|&failures| Tally {
                calls: 100,
                failures,
            })
            .collect();
        let found = outliers(policy, &tallies);
        found.into_iter().map(|(i, _)| i).collect()
    }

    #[test]
    fn one_that_fails_stands_out_among_five_and_not_among_four() {
        let policy = OutlierPolicy::new().min_hosts(1);
        assert_eq!(judged(&policy, &[0, 0, 100, 0, 0]), [2]);
        assert_eq!(judged(&policy, &[0, 0, 100, 0]), Vec::<usize>::new());
    }

    #[test]
    fn nobody_stands_out_when_all_are_alike() {
        let policy = OutlierPolicy::new();
        assert_eq!(judged(&policy, &[0; 10]), Vec::<usize>::new());
        assert_eq!(judged(&policy, &[70; 10]), Vec::<usize>::new());
    }

    #[test]
    fn a_failure_percentage_needs_no_comparison_and_the_worst_come_first() {
        let policy = OutlierPolicy::new()
            .success_rate_stdev(None)
            .failure_percentage(60);
        assert_eq!(judged(&policy, &[60, 59, 100, 80, 70]), [2, 3, 4, 0]);
    }

    #[test]
    fn those_with_few_calls_are_neither_judged_nor_counted() {
        let policy = OutlierPolicy::new().min_requests(101);
        assert_eq!(judged(&policy, &[0, 0, 100, 0, 0]), Vec::<usize>::new());
    }
}
