use super::stage::Stage;

#[tokio::test(start_paused = true)]
async fn strategy_is_each_in_turn_or_steers_around_a_slow_endpoint() {
    let of = |strategy: &str| {
        format!(
            "plugins: {{ p: {{ transport: in-process, endpoints: [one, slow], load_balancing: {{ strategy: {strategy} }} }} }}"
        )
    };
    let in_turn = Stage::start(&of("round-robin")).await;
    assert_eq!(in_turn.share_of_slow("p", 40).await, 20);
    let by_latency = Stage::start(&of("peak-ewma")).await;
    assert!(by_latency.share_of_slow("p", 40).await < 10);
}
