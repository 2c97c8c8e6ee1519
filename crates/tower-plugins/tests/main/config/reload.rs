use std::time::Duration;

use tower_plugins::config::{Config, Environment, Format, Loader, PluginSpec, Secrets, Strategy};

use super::{only, plugin, plugin_over, yaml};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn every_strategy_has_its_word() {
    for (word, strategy) in [
        ("graceful", Strategy::Graceful),
        ("immediate", Strategy::Immediate),
        ("blue-green", Strategy::BlueGreen),
        ("canary", Strategy::Canary),
        ("rolling", Strategy::Rolling),
    ] {
        assert_eq!(strategy.to_string(), word);
        assert_eq!(word.parse::<Strategy>().unwrap(), strategy);
        let config = plugin_over(&format!("reload: {{ strategy: {word} }},"), "").unwrap();
        assert_eq!(config.reload.strategy, strategy);
    }
    let error = "bluegreen".parse::<Strategy>().unwrap_err();
    assert_eq!(
        only(&error),
        "strategy: \"bluegreen\" is unknown, did you mean \"blue-green\"?"
    );
}

#[test]
fn without_the_block_a_reload_is_graceful() {
    let reload = plugin("").unwrap().reload;
    assert_eq!(reload, Config::new().reload);
    assert_eq!(reload.strategy, Strategy::Graceful);
    assert_eq!(reload.graceful_timeout, None);
    assert_eq!(reload.canary_steps, [1, 5, 25]);
}

#[test]
fn keys_of_the_block_may_come_from_variables() {
    let text = "{ reload: { canary_steps: '${STEPS}', observe_for: '${TIME}' },
        plugins: { a: { transport: http, endpoint: 'http://h' } } }";
    let environment = Environment::from_iter([
        ("STEPS", "10, 50"),
        ("TIME", "0s"),
        ("TOWER_PLUGINS__RELOAD__GRACEFUL_TIMEOUT", "1m"),
        ("TOWER_PLUGINS__RELOAD__STICK_TO", "x-tenant"),
    ]);
    let loader = Loader::text(text, Format::Yaml).environment(environment);
    let reload = loader.load().config.unwrap().reload;
    assert_eq!(reload.canary_steps, [10, 50]);
    assert_eq!(reload.observe_for, Duration::ZERO);
    assert_eq!(reload.graceful_timeout, Some(60 * SECOND));
    assert_eq!(reload.stick_to.unwrap(), "x-tenant");
}

#[test]
fn steps_of_a_canary_rise_and_are_less_than_all() {
    for (steps, problem) in [
        (
            "[1, 5, 5]",
            "reload.canary_steps: do not rise: each step is more than the one before",
        ),
        (
            "[1, 100]",
            "reload.canary_steps[1]: 100 is out of range, 1 to 99 percent",
        ),
        (
            "[0]",
            "reload.canary_steps[0]: 0 is out of range, 1 to 99 percent",
        ),
        (
            "[half]",
            "reload.canary_steps[0]: expected a whole number of percent, found the text \"half\"",
        ),
        ("5", "reload.canary_steps: expected a list, found a number"),
    ] {
        let error = plugin_over(&format!("reload: {{ canary_steps: {steps} }},"), "").unwrap_err();
        assert_eq!(only(&error), problem);
    }
}

#[test]
fn a_disabled_plugin_is_kept_as_it_would_be() {
    let text = "{ default_retry: { max_retries: 1 }, plugins: {
        a: { transport: http, endpoint: 'http://h', enabled: false, exclusive: true },
        b: { transport: http, endpoint: 'http://h' } } }";
    let config = yaml(text).unwrap();
    assert_eq!(
        config
            .plugins
            .keys()
            .map(|name| name.as_str())
            .collect::<Vec<_>>(),
        ["b"]
    );
    let a = &config.disabled["a"];
    assert!(a.policy.exclusive);
    assert_eq!(a.policy.retry.as_ref().unwrap().max_retries, 1);

    for format in [Format::Yaml, Format::Json, Format::Toml] {
        let written = config.to_text(format, Secrets::Shown);
        assert_eq!(
            Config::parse(&written, format).unwrap(),
            config,
            "{written}"
        );
    }
    let mut config = config;
    let instead = config.insert(PluginSpec::http("a", "http://other").unwrap());
    assert!(instead.unwrap().policy.exclusive);
    assert!(config.disabled.is_empty());
    assert_eq!(config.plugins.len(), 2);
}
