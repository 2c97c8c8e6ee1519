//! What each key of `docs/config.md` changes in what a program sees: a test for each key, which starts
//! plugins from a text that holds it.

mod auth;
mod circuit_breaker;
mod concurrency;
mod connection;
mod endpoint;
mod load_balancing;
mod plugin;
mod rate_limit;
mod retry;
mod root;
mod stage;

use std::collections::BTreeSet;

/// Each key and the test of what it changes. A key in a block of a plugin is `block.key`, one at the
/// root its name alone, one of a plugin `plugins[].key`, and one of an endpoint `endpoint.key`.
pub(super) const EFFECTS: &[(&str, &str)] = &[
    (
        "plugins",
        "tower_plugins::tests::effect::root::plugins_are_listed_with_their_names_or_stand_in_a_table_under_them",
    ),
    (
        "allow_empty",
        "tower_plugins::tests::effect::root::allow_empty_lets_a_reload_take_every_plugin_away",
    ),
    (
        "drain_timeout",
        "tower_plugins::tests::effect::root::drain_timeout_at_the_root_is_that_of_plugins_without_their_own",
    ),
    (
        "default_retry",
        "tower_plugins::tests::effect::root::default_retry_holds_for_plugins_that_do_not_say_otherwise",
    ),
    (
        "default_circuit_breaker",
        "tower_plugins::tests::effect::root::default_circuit_breaker_holds_for_plugins_that_do_not_say_otherwise",
    ),
    (
        "default_connection",
        "tower_plugins::tests::effect::root::default_connection_holds_for_plugins_that_do_not_say_otherwise",
    ),
    (
        "default_rate_limit",
        "tower_plugins::tests::effect::root::default_rate_limit_holds_for_plugins_that_do_not_say_otherwise",
    ),
    (
        "default_concurrency",
        "tower_plugins::tests::effect::root::default_concurrency_holds_for_plugins_that_do_not_say_otherwise",
    ),
    (
        "default_load_balancing",
        "tower_plugins::tests::effect::root::default_load_balancing_holds_for_plugins_that_do_not_say_otherwise",
    ),
    (
        "plugins[].name",
        "tower_plugins::tests::effect::plugin::name_is_what_calls_ask_for",
    ),
    (
        "plugins[].enabled",
        "tower_plugins::tests::effect::plugin::enabled_false_leaves_the_plugin_out",
    ),
    (
        "plugins[].transport",
        "tower_plugins::tests::effect::plugin::transport_is_how_the_endpoint_is_reached",
    ),
    (
        "plugins[].type",
        "tower_plugins::tests::effect::plugin::type_is_another_word_for_transport",
    ),
    (
        "plugins[].endpoint",
        "tower_plugins::tests::effect::plugin::endpoint_is_the_one_that_is_asked",
    ),
    (
        "plugins[].endpoints",
        "tower_plugins::tests::effect::plugin::endpoints_are_all_asked",
    ),
    (
        "plugins[].drain_timeout",
        "tower_plugins::tests::effect::plugin::drain_timeout_is_what_a_call_has_left_when_its_plugin_goes",
    ),
    (
        "plugins[].auth",
        "tower_plugins::tests::effect::plugin::auth_is_sent_with_each_attempt_to_this_plugin_alone",
    ),
    (
        "plugins[].retry",
        "tower_plugins::tests::effect::plugin::retry_is_on_and_is_this_plugins_alone",
    ),
    (
        "plugins[].circuit_breaker",
        "tower_plugins::tests::effect::plugin::circuit_breaker_is_on_and_is_this_plugins_alone",
    ),
    (
        "plugins[].connection",
        "tower_plugins::tests::effect::plugin::connection_is_this_plugins_alone",
    ),
    (
        "plugins[].rate_limit",
        "tower_plugins::tests::effect::plugin::rate_limit_is_off_unless_this_plugin_has_it",
    ),
    (
        "plugins[].concurrency",
        "tower_plugins::tests::effect::plugin::concurrency_is_off_unless_this_plugin_has_it",
    ),
    (
        "plugins[].load_balancing",
        "tower_plugins::tests::effect::plugin::load_balancing_is_by_latency_unless_this_plugin_says_otherwise",
    ),
    (
        "endpoint.url",
        "tower_plugins::tests::effect::endpoint::url_is_where_the_endpoint_is_and_what_is_put_before_paths",
    ),
    (
        "endpoint.path",
        "tower_plugins::tests::effect::endpoint::path_is_put_before_the_path_of_each_request",
    ),
    (
        "auth.method",
        "tower_plugins::tests::effect::auth::method_is_how_the_secret_is_sent",
    ),
    (
        "auth.api_key",
        "tower_plugins::tests::effect::auth::api_key_is_the_value_of_the_header",
    ),
    (
        "auth.header",
        "tower_plugins::tests::effect::auth::header_is_the_one_that_carries_the_api_key",
    ),
    (
        "auth.token",
        "tower_plugins::tests::effect::auth::token_is_what_follows_bearer",
    ),
    (
        "auth.username",
        "tower_plugins::tests::effect::auth::username_is_the_first_half_of_basic_credentials",
    ),
    (
        "auth.password",
        "tower_plugins::tests::effect::auth::password_is_the_second_half_of_basic_credentials",
    ),
    (
        "auth.headers",
        "tower_plugins::tests::effect::auth::headers_are_all_sent_in_place_of_the_callers",
    ),
    (
        "retry.enabled",
        "tower_plugins::tests::effect::retry::enabled_false_is_one_attempt",
    ),
    (
        "retry.max_retries",
        "tower_plugins::tests::effect::retry::max_retries_is_the_number_of_attempts_beyond_the_first",
    ),
    (
        "retry.initial_interval",
        "tower_plugins::tests::effect::retry::initial_interval_is_the_first_wait",
    ),
    (
        "retry.max_interval",
        "tower_plugins::tests::effect::retry::max_interval_is_the_longest_wait",
    ),
    (
        "retry.multiplier",
        "tower_plugins::tests::effect::retry::multiplier_is_how_fast_waits_grow",
    ),
    (
        "retry.random_jitter",
        "tower_plugins::tests::effect::retry::random_jitter_draws_a_wait_below_its_ceiling",
    ),
    (
        "retry.budget_ratio",
        "tower_plugins::tests::effect::retry::budget_ratio_is_the_share_of_calls_that_are_repeated",
    ),
    (
        "retry.budget_min_per_second",
        "tower_plugins::tests::effect::retry::budget_min_per_second_is_what_is_always_allowed",
    ),
    (
        "retry.idempotent",
        "tower_plugins::tests::effect::retry::idempotent_is_what_may_be_repeated_whatever_its_method",
    ),
    (
        "retry.max_replay_bytes",
        "tower_plugins::tests::effect::retry::max_replay_bytes_is_the_longest_body_that_is_sent_again",
    ),
    (
        "retry.attempt_timeout",
        "tower_plugins::tests::effect::retry::attempt_timeout_gives_an_attempt_up_for_the_next",
    ),
    (
        "circuit_breaker.enabled",
        "tower_plugins::tests::effect::circuit_breaker::enabled_false_lets_every_call_through",
    ),
    (
        "circuit_breaker.failure_threshold",
        "tower_plugins::tests::effect::circuit_breaker::failure_threshold_is_the_number_of_failures_in_a_row_that_open_it",
    ),
    (
        "circuit_breaker.failure_rate",
        "tower_plugins::tests::effect::circuit_breaker::failure_rate_is_the_share_of_failures_that_opens_it",
    ),
    (
        "circuit_breaker.window",
        "tower_plugins::tests::effect::circuit_breaker::window_is_the_time_over_which_the_rate_is_taken",
    ),
    (
        "circuit_breaker.min_request_threshold",
        "tower_plugins::tests::effect::circuit_breaker::min_request_threshold_is_the_number_of_calls_before_the_rate_counts",
    ),
    (
        "circuit_breaker.recovery_timeout",
        "tower_plugins::tests::effect::circuit_breaker::recovery_timeout_is_how_long_it_stays_open",
    ),
    (
        "circuit_breaker.success_threshold",
        "tower_plugins::tests::effect::circuit_breaker::success_threshold_is_the_number_of_successes_that_close_it",
    ),
    (
        "connection.protocol",
        "tower_plugins::tests::effect::connection::protocol_is_what_is_spoken",
    ),
    (
        "connection.max_connections",
        "tower_plugins::tests::effect::connection::max_connections_is_the_number_of_calls_that_have_one",
    ),
    (
        "connection.max_idle_connections",
        "tower_plugins::tests::effect::connection::max_idle_connections_is_the_number_kept_without_a_call",
    ),
    (
        "connection.idle_timeout",
        "tower_plugins::tests::effect::connection::idle_timeout_is_how_long_a_connection_is_kept_without_a_call",
    ),
    (
        "connection.connection_timeout",
        "tower_plugins::tests::effect::connection::connection_timeout_is_how_long_connecting_may_take",
    ),
    (
        "connection.request_timeout",
        "tower_plugins::tests::effect::connection::request_timeout_is_the_time_of_a_whole_call",
    ),
    (
        "connection.stream_idle_timeout",
        "tower_plugins::tests::effect::connection::stream_idle_timeout_is_how_long_a_stream_may_be_silent",
    ),
    (
        "connection.keep_alive",
        "tower_plugins::tests::effect::connection::keep_alive_is_whether_a_connection_serves_more_than_one_call",
    ),
    (
        "connection.max_response_head",
        "tower_plugins::tests::effect::connection::max_response_head_is_the_largest_head_that_is_taken",
    ),
    (
        "connection.max_response_body",
        "tower_plugins::tests::effect::connection::max_response_body_is_the_largest_body_that_is_taken",
    ),
    (
        "rate_limit.enabled",
        "tower_plugins::tests::effect::rate_limit::enabled_false_lifts_a_limit_of_the_defaults",
    ),
    (
        "rate_limit.requests_per_second",
        "tower_plugins::tests::effect::rate_limit::requests_per_second_is_how_fast_tokens_come_back",
    ),
    (
        "rate_limit.burst_size",
        "tower_plugins::tests::effect::rate_limit::burst_size_is_what_a_rested_bucket_holds",
    ),
    (
        "rate_limit.max_wait",
        "tower_plugins::tests::effect::rate_limit::max_wait_is_how_long_a_call_waits_for_a_token",
    ),
    (
        "concurrency.enabled",
        "tower_plugins::tests::effect::concurrency::enabled_false_lifts_a_limit_of_the_defaults",
    ),
    (
        "concurrency.max_concurrent",
        "tower_plugins::tests::effect::concurrency::max_concurrent_is_the_number_of_calls_under_way",
    ),
    (
        "concurrency.max_queued",
        "tower_plugins::tests::effect::concurrency::max_queued_is_the_number_of_calls_that_wait_for_a_place",
    ),
    (
        "concurrency.max_wait",
        "tower_plugins::tests::effect::concurrency::max_wait_is_how_long_a_call_waits_for_a_place",
    ),
    (
        "load_balancing.strategy",
        "tower_plugins::tests::effect::load_balancing::strategy_is_each_in_turn_or_steers_around_a_slow_endpoint",
    ),
];

#[test]
fn each_key_has_one_test_which_is_there() {
    let keys: BTreeSet<_> = EFFECTS.iter().map(|(key, _)| key).collect();
    assert_eq!(keys.len(), EFFECTS.len());
    let tests: BTreeSet<_> = EFFECTS.iter().map(|(_, test)| test).collect();
    assert_eq!(tests.len(), EFFECTS.len());
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/main/effect");
    for (key, test) in EFFECTS {
        let path = test.strip_prefix("tower_plugins::tests::effect::");
        let (file, name) = path.and_then(|path| path.split_once("::")).unwrap();
        let source = std::fs::read_to_string(format!("{folder}/{file}.rs")).unwrap();
        assert!(source.contains(&format!("fn {name}(")), "{key}: {test}");
    }
}
