use tower_plugins::config::{
    Config, ConfigError, CredentialsSpec, Environment, Format, Loader, ProblemKind,
};

use super::only;

fn load<const N: usize>(
    text: &str,
    format: Format,
    variables: [(&str, &str); N],
) -> Result<Config, ConfigError> {
    let environment = Environment::from_iter(variables);
    Loader::text(text, format)
        .environment(environment)
        .load()
        .config
}

/// The plugin `a` with the keys `extra`, in YAML.
fn plugin<const N: usize>(
    extra: &str,
    variables: [(&str, &str); N],
) -> Result<Config, ConfigError> {
    let text =
        format!("plugins: [{{ name: a, transport: http, endpoint: 'http://localhost', {extra} }}]");
    load(&text, Format::Yaml, variables)
}

fn token(config: &Config) -> &str {
    match &config.plugins["a"].policy.credentials {
        CredentialsSpec::Bearer { token } => token.expose(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn variables_are_put_in_and_never_looked_at_again() {
    for (written, value) in [
        ("${T}", "hunter2"),
        ("a${T}b${E:-c}d", "ahunter2bcd"),
        ("${T:-unused}", "hunter2"),
        ("${MISSING:-}x", "x"),
        ("${MISSING:-${T}", "${T"),
        ("$${T}", "${T}"),
        ("$$T $ {x} $", "$$T $ {x} $"),
        ("${NESTED}", "${T}"),
        ("${PATHLIKE}", "file:/etc/shadow"),
    ] {
        let variables = [
            ("T", "hunter2"),
            ("E", ""),
            ("NESTED", "${T}"),
            ("PATHLIKE", "file:/etc/shadow"),
        ];
        let extra = format!("auth: {{ method: bearer, token: '{written}' }}");
        let config = plugin(&extra, variables).unwrap();
        assert_eq!(token(&config), value, "{written}");
    }
    let numbers = plugin(
        "enabled: '${ON}', retry: { max_retries: '${N}', multiplier: '${F}', random_jitter: '${OFF:-false}' },
         drain_timeout: '${N}s', connection: { max_response_body: '${N}MiB' }",
        [("ON", "true"), ("N", "7"), ("F", "1.5")],
    )
    .unwrap();
    let policy = &numbers.plugins["a"].policy;
    let retry = policy.retry.as_ref().unwrap();
    assert_eq!(
        (
            retry.max_retries,
            retry.multiplier.get(),
            retry.random_jitter
        ),
        (7, 1.5, false)
    );
    assert_eq!(policy.drain_timeout.as_secs(), 7);
}

#[test]
fn a_variable_that_is_missing_or_miswritten_is_an_error_with_its_name() {
    for (written, part) in [
        ("${TOKEN}", "TOKEN is not set"),
        ("${TOKEN:default}", "write `${TOKEN:-…}`"),
        ("${TOKEN:=default}", "write `${TOKEN:-…}`"),
        ("${TOKEN", "has no `}`"),
        ("${}", "begins no variable"),
        ("${1A}", "begins no variable"),
        ("${a-b}", "begins no variable"),
        ("${ TOKEN }", "begins no variable"),
    ] {
        let error = plugin(
            &format!("auth: {{ method: bearer, token: '{written}' }}"),
            [],
        );
        let error = error.unwrap_err();
        assert_eq!(error.problems()[0].kind, ProblemKind::Variable);
        assert_eq!(error.problems()[0].key, "plugins[0].auth.token");
        assert!(error.problems()[0].message.contains(part), "{error}");
    }
}

#[test]
fn what_a_variable_holds_is_in_no_message() {
    for extra in [
        "retry: { max_retries: '${S}' }",
        "retry: { multiplier: '${S}' }",
        "drain_timeout: '${S}'",
        "enabled: '${S}'",
        "connection: { protocol: '${S}' }",
        "connection: { max_response_body: '${S}' }",
        "transport: '${S}'",
        "endpoints: ['${S}']",
        "retry: { idempotent: '${S}' }",
        "auth: { method: bearer, token: \"${S}\\n\" }",
        "auth: { method: api-key, header: '${S} x', api_key: k }",
        "enabled: true }, { name: '${S}', transport: http, endpoint: 'http://h' }, { name: '${S}'",
        "retry: '${S}'",
    ] {
        let extra = extra.replace("transport:", "enabled: true }, { name: b, transport:");
        let error = plugin(&extra, [("S", "hunter2")]).unwrap_err();
        let shown = format!("{error} {error:?} {}", error.render(false));
        assert!(!shown.contains("hunter2"), "{shown}");
    }
    let extra = "connection: { max_response_head: '${S}' }";
    let error = plugin(extra, [("S", "86753090")]).unwrap_err();
    assert!(
        !format!("{error} {error:?}").contains("86753090"),
        "{error}"
    );
    let error = plugin(
        "",
        [("TOWER_PLUGINS__PLUGINS__A__DRAIN_TIMEOUT", "hunter2")],
    )
    .unwrap_err();
    assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
}

#[test]
fn a_variable_lies_over_the_file_in_every_format() {
    let variables = [
        ("TOWER_PLUGINS__DRAIN_TIMEOUT", "7s"),
        ("TOWER_PLUGINS__DEFAULT_RETRY__MULTIPLIER", "3"),
        ("TOWER_PLUGINS__PLUGINS__SEARCH_EU__RETRY__MAX_RETRIES", "5"),
        (
            "TOWER_PLUGINS__PLUGINS__SEARCH_EU__RETRY__IDEMPOTENT",
            "/a, /b",
        ),
        ("TOWER_PLUGINS__PLUGINS__SEARCH_EU__ENABLED", "true"),
        (
            "TOWER_PLUGINS__PLUGINS__SEARCH_EU__RATE_LIMIT__REQUESTS_PER_SECOND",
            "2.5",
        ),
        (
            "TOWER_PLUGINS__PLUGINS__SEARCH_EU__AUTH__HEADERS__X_TENANT",
            "blue",
        ),
        ("TOWER_PLUGINS_UNRELATED", "x"),
        ("PATH", "/bin"),
    ];
    let yaml = "
        plugins:
          - name: other
            transport: http
            endpoint: http://h
          - name: search-eu
            transport: http
            endpoint: http://localhost
            enabled: false
            auth: { method: custom, headers: { X-Tenant: green } }
            retry: { max_retries: 1 }
    ";
    let json = r#"{ "plugins": {
        "other": { "transport": "http", "endpoint": "http://h" },
        "search-eu": { "transport": "http", "endpoint": "http://localhost", "enabled": false,
            "auth": { "method": "custom", "headers": { "X-Tenant": "green" } },
            "retry": { "max_retries": 1 } } } }"#;
    let toml = "
        [[plugins]]
        name = 'other'
        transport = 'http'
        endpoint = 'http://h'
        [[plugins]]
        name = 'search-eu'
        transport = 'http'
        endpoint = 'http://localhost'
        enabled = false
        auth = { method = 'custom', headers = { X-Tenant = 'green' } }
        retry = { max_retries = 1 }
    ";
    let config = load(yaml, Format::Yaml, variables).unwrap();
    assert_eq!(config, load(json, Format::Json, variables).unwrap());
    assert_eq!(config, load(toml, Format::Toml, variables).unwrap());

    let policy = &config.plugins["search-eu"].policy;
    let retry = policy.retry.as_ref().unwrap();
    assert_eq!((retry.max_retries, retry.multiplier.get()), (5, 3.0));
    assert_eq!(retry.idempotent, ["/a", "/b"]);
    assert_eq!(policy.drain_timeout.as_secs(), 7);
    assert_eq!(
        policy
            .rate_limit
            .as_ref()
            .unwrap()
            .requests_per_second
            .get(),
        2.5
    );
    let CredentialsSpec::Custom { headers } = &policy.credentials else {
        panic!("{policy:?}");
    };
    assert_eq!(
        (headers[0].0.as_str(), headers[0].1.expose()),
        ("x-tenant", "blue")
    );
}

#[test]
fn a_variable_that_fits_nowhere_or_twice_is_an_error() {
    let two = "plugins:
      a-b: { transport: http, endpoint: 'http://h' }
      a.b: { transport: http, endpoint: 'http://h' }
      search: { transport: http, endpoint: 'http://h', retry: off }";
    for (variable, message) in [
        (
            "TOWER_PLUGINS__PLUGINS__A_B__DRAIN_TIMEOUT",
            "may be about any of the plugins a-b, a.b: rename all but one, or write it into the file",
        ),
        (
            "TOWER_PLUGINS__PLUGINS__SAERCH__DRAIN_TIMEOUT",
            "no plugin is named like \"SAERCH\", did you mean \"SEARCH\"?",
        ),
        (
            "TOWER_PLUGINS__PLUGINS__SEARCH__DRAIN_TIMEUOT",
            "unknown key, did you mean `drain_timeout`?",
        ),
        (
            "TOWER_PLUGINS__PLUGINS__SEARCH__RETRY__MAX_RETRIES",
            "there is no table that could hold \"max_retries\"",
        ),
        (
            "TOWER_PLUGINS__INCLUDE",
            "files are included by the file alone: write it there",
        ),
        (
            "TOWER_PLUGINS__PLUGINS__SEARCH__NAME",
            "a variable gives no plugin another name: write it into the file",
        ),
        (
            "TOWER_PLUGINS__PLUGINS__SEARCH",
            "names a plugin and none of its keys: add one, as in SEARCH__ENABLED",
        ),
        (
            "TOWER_PLUGINS__DRAIN_TIMEUOT",
            "unknown key, did you mean `drain_timeout`?",
        ),
    ] {
        let error = load(two, Format::Yaml, [(variable, "1s")]).unwrap_err();
        let [problem] = error.problems() else {
            panic!("{error}");
        };
        assert_eq!(problem.variable.as_deref(), Some(variable), "{error}");
        assert_eq!(problem.message, message);
        assert!(error.to_string().starts_with(variable), "{error}");
    }
    // It is no problem while nobody asks.
    assert!(load(two, Format::Yaml, []).is_ok());
}

#[test]
fn a_secret_that_was_not_shown_is_not_taken_for_one() {
    let error = plugin("auth: { method: bearer, token: '***' }", []).unwrap_err();
    assert!(only(&error).contains("was not shown"), "{error}");
    for (written, secret) in [
        ("literal:***", "***"),
        ("literal:file:/x", "file:/x"),
        ("literal:literal:", "literal:"),
        ("liter", "liter"),
    ] {
        let extra = format!("auth: {{ method: bearer, token: '{written}' }}");
        assert_eq!(token(&plugin(&extra, []).unwrap()), secret);
    }
}
