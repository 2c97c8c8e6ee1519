use std::time::Duration;

use tokio::time::advance;

use super::set::Set;
use super::stage::SECOND;

const MILLI: Duration = Duration::from_millis(1);

/// By rates alone, of few calls of few endpoints.
const RATES: &str = "consecutive_failures: 0, success_rate_stdev_factor: 0";

#[tokio::test(start_paused = true)]
async fn outlier_detection_is_off_unless_this_plugin_has_it() {
    for (keys, out) in [
        ("", vec![]),
        ("outlier_detection: off", vec![]),
        ("outlier_detection: { interval: 10s }", vec![0]),
    ] {
        let set = Set::of(3, keys).await;
        set.fails(0, 30).await;
        assert_eq!(
            set.out().await.into_iter().collect::<Vec<_>>(),
            out,
            "{keys}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn default_outlier_detection_holds_for_plugins_that_do_not_say_otherwise() {
    let root = "default_outlier_detection: { consecutive_failures: 2 },";
    for (keys, failed) in [
        ("", 2),
        ("outlier_detection: { consecutive_failures: 3 }", 3),
        ("outlier_detection: off", 10),
    ] {
        let set = Set::under(root, keys).await;
        assert_eq!(set.fails(0, 30).await[0], failed, "{keys}");
    }
}

#[tokio::test(start_paused = true)]
async fn enabled_false_leaves_nobody_out_whatever_the_defaults_say() {
    let root = "default_outlier_detection: { consecutive_failures: 1 },";
    let set = Set::under(root, "outlier_detection: { enabled: false }").await;
    assert_eq!(set.fails(0, 30).await, [10; 3]);
}

#[tokio::test(start_paused = true)]
async fn consecutive_failures_is_how_many_in_a_row_eject_at_once() {
    for (limit, failed) in [(1, 1), (4, 4), (0, 10)] {
        let keys = format!("outlier_detection: {{ consecutive_failures: {limit} }}");
        let set = Set::of(3, &keys).await;
        assert_eq!(set.fails(0, 30).await[0], failed, "{limit}");
    }
}

/// Whether, of `endpoints` of which each gets ten calls in an interval, the first is left out then. It
/// fails `failures` of its calls.
async fn is_judged(endpoints: usize, failures: usize, keys: &str) -> bool {
    let set = Set::of(endpoints, &format!("outlier_detection: {{ {keys} }}")).await;
    set.fails(0, failures * endpoints).await;
    set.calls((10 - failures) * endpoints).await;
    advance(10 * SECOND).await;
    set.out().await.contains(&0)
}

#[tokio::test(start_paused = true)]
async fn success_rate_stdev_factor_is_how_far_below_the_others_a_success_rate_may_be() {
    // One of six that fails is sqrt(5) deviations below the mean.
    for (factor, is_out) in [("1.9", true), ("2.2", true), ("2.3", false), ("0", false)] {
        let keys = format!(
            "consecutive_failures: 100, min_requests: 10, success_rate_stdev_factor: {factor},
                failure_percentage_threshold: 100"
        );
        assert_eq!(is_judged(6, 9, &keys).await, is_out, "{factor}");
    }
}

#[tokio::test(start_paused = true)]
async fn failure_percentage_threshold_is_the_share_of_failures_that_ejects() {
    for (percent, is_out) in [(40, true), (50, true), (51, false)] {
        let keys = format!("{RATES}, min_requests: 10, failure_percentage_threshold: {percent}");
        assert_eq!(is_judged(5, 5, &keys).await, is_out, "{percent}");
    }
}

#[tokio::test(start_paused = true)]
async fn min_requests_is_how_many_calls_there_are_before_a_rate_counts() {
    for (least, is_out) in [(10, true), (11, false)] {
        let keys = format!("{RATES}, failure_percentage_threshold: 50, min_requests: {least}");
        assert_eq!(is_judged(5, 10, &keys).await, is_out, "{least}");
    }
}

#[tokio::test(start_paused = true)]
async fn min_hosts_is_how_many_endpoints_have_enough_calls_before_one_is_judged() {
    for (least, is_out) in [(2, true), (3, true), (4, false)] {
        let keys = format!(
            "{RATES}, failure_percentage_threshold: 50, min_requests: 10, min_hosts: {least}"
        );
        assert_eq!(is_judged(3, 10, &keys).await, is_out, "{least}");
    }
}

#[tokio::test(start_paused = true)]
async fn interval_is_how_often_rates_are_judged() {
    for seconds in [5, 20] {
        let set = Set::of(
            5,
            &format!(
                "outlier_detection: {{ {RATES}, failure_percentage_threshold: 50, min_requests: 10,
                    interval: {seconds}s }}"
            ),
        )
        .await;
        set.fails(0, 50).await;
        advance(seconds * SECOND - 2 * MILLI).await;
        assert!(set.out().await.is_empty());
        advance(2 * MILLI).await;
        assert_eq!(set.out().await, [0].into());
    }
}

/// How long, in whole seconds, the endpoint that has just failed is left out.
async fn time_out(set: &Set) -> u32 {
    set.fails(0, 3).await;
    let mut seconds = 0;
    while set.out().await.contains(&0) {
        advance(SECOND).await;
        seconds += 1;
    }
    seconds
}

/// Ejections alone, whose times no healthy interval shortens.
async fn ejecting(keys: &str) -> Set {
    Set::of(
        3,
        &format!("outlier_detection: {{ consecutive_failures: 1, interval: 24h, {keys} }}"),
    )
    .await
}

#[tokio::test(start_paused = true)]
async fn base_ejection_time_is_how_long_an_endpoint_is_out_the_first_time() {
    for base in [7, 40] {
        let set = ejecting(&format!("base_ejection_time: {base}s")).await;
        assert_eq!(time_out(&set).await, base);
        assert_eq!(time_out(&set).await, 2 * base);
    }
    // The default of the longest gives way.
    assert_eq!(
        time_out(&ejecting("base_ejection_time: 500s").await).await,
        500
    );
}

#[tokio::test(start_paused = true)]
async fn max_ejection_time_is_the_longest_that_an_endpoint_is_out() {
    for (most, second) in [(10, 10), (15, 15), (60, 20)] {
        let keys = format!("base_ejection_time: 10s, max_ejection_time: {most}s");
        let set = ejecting(&keys).await;
        assert_eq!(time_out(&set).await, 10);
        assert_eq!(time_out(&set).await, second);
    }
}

#[tokio::test(start_paused = true)]
async fn max_ejection_time_jitter_is_added_at_random() {
    let mut times = std::collections::BTreeSet::new();
    for _ in 0..20 {
        let keys = "base_ejection_time: 10s, max_ejection_time_jitter: 100s";
        let time = time_out(&ejecting(keys).await).await;
        assert!((10..=110).contains(&time), "{time}");
        times.insert(time);
    }
    assert!(times.len() > 5, "{times:?}");
}

#[tokio::test(start_paused = true)]
async fn max_ejection_percent_is_how_many_may_be_out_at_a_time() {
    for (percent, out) in [(39, 1), (40, 2), (60, 3), (99, 4)] {
        let set = Set::of(
            5,
            &format!(
                "outlier_detection: {{ consecutive_failures: 1, max_ejection_percent: {percent} }}"
            ),
        )
        .await;
        for endpoint in 0..5 {
            set.answers(endpoint, 500);
        }
        set.calls(20).await;
        assert_eq!(set.out().await.len(), out, "{percent}");
    }
}

#[tokio::test(start_paused = true)]
async fn always_eject_one_host_is_whether_one_may_be_out_in_a_small_set() {
    for (yes, out) in [(true, vec![0]), (false, vec![])] {
        let set = Set::of(
            3,
            &format!(
                "outlier_detection: {{ consecutive_failures: 1, always_eject_one_host: {yes} }}"
            ),
        )
        .await;
        set.fails(0, 30).await;
        assert_eq!(set.out().await.into_iter().collect::<Vec<_>>(), out);
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_out_stays_out_when_the_config_changes() {
    let keys = "outlier_detection: { consecutive_failures: 1, base_ejection_time: 60s }";
    let set = Set::of(3, keys).await;
    set.fails(0, 3).await;
    let keys = "outlier_detection: { consecutive_failures: 2, base_ejection_time: 10s }";
    set.reload(3, "", keys).await;
    advance(59 * SECOND).await;
    assert_eq!(set.out().await, [0].into());
    advance(SECOND).await;
    assert!(set.out().await.is_empty());
}
