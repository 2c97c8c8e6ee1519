use std::fs;
use std::time::Duration;

use figment::Figment;
use tower_plugins::config::{
    Address, BalanceStrategy, Config, CredentialsSpec, Environment, Format, Loader, Protocol,
    Source,
};

use super::yaml;

const ALL_YAML: &str = include_str!("../samples/all.yaml");
const ALL_JSON: &str = include_str!("../samples/all.json");
const ALL_TOML: &str = include_str!("../samples/all.toml");

#[test]
fn the_three_formats_say_the_same() {
    let yaml = Config::parse(ALL_YAML, Format::Yaml).unwrap();
    assert_eq!(yaml, Config::parse(ALL_JSON, Format::Json).unwrap());
    assert_eq!(yaml, Config::parse(ALL_TOML, Format::Toml).unwrap());
    assert_eq!(yaml.plugins.len(), 3);

    let auth = &yaml.plugins["auth"];
    assert_eq!(auth.policy.drain_timeout, Duration::from_secs(10));
    assert_eq!(auth.policy.deadline, Some(Duration::from_millis(1500)));
    assert_eq!(
        auth.policy.attempt_timeout,
        Some(Duration::from_millis(500))
    );
    assert_eq!(auth.policy.balance.strategy, BalanceStrategy::RoundRobin);
    assert_eq!(auth.upstream.connection.protocol, Protocol::Http2);
    assert_eq!(auth.upstream.connection.max_response_body, Some(1 << 20));
    assert_eq!(
        auth.upstream.endpoints[1].address.to_string(),
        "http://10.0.0.2:8080/v1"
    );
    let retry = auth.policy.retry.as_ref().unwrap();
    assert_eq!((retry.max_retries, retry.max_replay_bytes), (2, 1 << 20));
    assert_eq!(retry.idempotent, ["/check", "/read/*"]);
    let CredentialsSpec::Custom { headers } = &auth.policy.credentials else {
        panic!("{:?}", auth.policy.credentials);
    };
    assert_eq!(headers[0].0.as_str(), "x-a");
    assert_eq!(headers[1].1.expose(), "two");

    let audit = &yaml.plugins["audit"];
    assert_eq!(audit.policy.retry, None);
    assert_eq!(
        audit.upstream.endpoints[0].address,
        Address::unix("/run/audit.sock").unwrap()
    );
    assert_eq!(audit.policy.rate_limit.as_ref().unwrap().burst_size, 3);
}

#[test]
fn a_file_is_read_by_its_extension_and_named_in_its_problems() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    for (name, text) in [
        ("a.yaml", ALL_YAML),
        ("a.yml", ALL_YAML),
        ("a.json", ALL_JSON),
        ("A.TOML", ALL_TOML),
    ] {
        fs::write(path(name), text).unwrap();
        assert_eq!(Config::from_file(path(name)), yaml(ALL_YAML), "{name}");
    }
    fs::write(path("bad.yaml"), "allow_empty: 1\nplugns: []").unwrap();
    let error = Config::from_file(path("bad.yaml")).unwrap_err();
    assert_eq!(error.problems().len(), 2);
    assert!(
        error
            .problems()
            .iter()
            .all(|p| p.file.as_deref() == Some(&path("bad.yaml")))
    );

    fs::write(path("a.conf"), ALL_YAML).unwrap();
    fs::write(path("latin.yaml"), b"a: \xe9").unwrap();
    fs::write(path("empty.yaml"), "").unwrap();
    fs::File::create(path("big.yaml"))
        .unwrap()
        .set_len(50 << 20)
        .unwrap();
    fs::create_dir(path("dir.yaml")).unwrap();
    for (name, part) in [
        ("a.conf", "unknown kind of file"),
        ("latin.yaml", "not UTF-8"),
        ("empty.yaml", "is empty"),
        ("big.yaml", "larger than 10 MiB"),
        ("dir.yaml", "cannot be read: it is not a regular file"),
        ("missing.yaml", "cannot be read"),
    ] {
        let error = Config::from_file(path(name)).unwrap_err().to_string();
        assert!(error.contains(part) && error.contains(name), "{error}");
    }
}

#[test]
fn a_parse_error_repeats_no_line_of_the_file() {
    for (text, format) in [
        ("token = \"hunter2\nx = 1", Format::Toml),
        ("token: |\nhunter2==\nx: [", Format::Yaml),
        ("token: >-\n  hunter2:\n x: [", Format::Yaml),
        ("token =\nhunter2==\n", Format::Toml),
        ("token = \"\"\"\nhunter2=\\d\"\"\"\n", Format::Toml),
        ("token: \"hunter2\nx: [", Format::Yaml),
        ("token: !hunter2", Format::Yaml),
        ("token: !hunter2`hunter2 x", Format::Yaml),
        ("{ \"token\": \"hunter2\n\" }", Format::Json),
    ] {
        let error = Config::parse(text, format).unwrap_err();
        assert!(error.problems()[0].line.is_some(), "{error}");
        let all = format!("{error} {error:?} {}", error.render(false));
        assert!(all.contains("not valid"), "{all}");
        assert!(!all.contains("hunter2"), "{all}");
    }
}

/// Places in JSON come from the reader of YAML, which knows merges. JSON has none.
#[test]
fn a_merge_is_none_in_json() {
    let text =
        r#"{ "<<": { "plugins": { "a": { "transport": "http", "endpoint": "http://h" } } } }"#;
    let error = Config::parse(text, Format::Json).unwrap_err();
    assert_eq!(error.problems()[0].key, r#"["<<"]"#, "{error}");
    // Nor is a text in YAML that looks like one: a merge is written without quotes.
    assert_eq!(yaml(text).unwrap_err().problems()[0].key, r#"["<<"]"#);
    assert_eq!(
        yaml(&text.replace("\"<<\"", "<<")).unwrap().plugins.len(),
        1
    );
}

#[test]
fn a_date_is_no_password_by_way_of_figment_either() {
    let text = "plugins.a = { transport = 'http', endpoint = 'http://h', \
        auth = { method = 'basic', username = 'u', password = 1979-05-27 } }";
    let source = Source::text(text, Format::Toml).unwrap();
    for error in [
        Config::parse(text, Format::Toml).unwrap_err(),
        Config::from_figment(&Figment::from(source)).unwrap_err(),
    ] {
        assert_eq!(
            error.problems()[0].key,
            "plugins.a.auth.password",
            "{error}"
        );
    }
}

#[test]
fn depth_and_aliases_are_bounded() {
    let deep = "[".repeat(10_000);
    for format in [Format::Json, Format::Yaml] {
        assert!(Config::parse(&deep, format).is_err());
    }
    assert!(Config::parse(&format!("a = {deep}"), Format::Toml).is_err());
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for i in 1..12 {
        let list = format!("*a{}, ", i - 1).repeat(10);
        bomb.push_str(&format!("a{i}: &a{i} [{list}]\n"));
    }
    assert!(yaml(&bomb).is_err());
    // Aliases nest as deep as what they stand for.
    let mut nested = "a0: &a0 [x]\n".to_owned();
    for i in 1..60 {
        let (open, close) = ("[".repeat(50), "]".repeat(50));
        nested.push_str(&format!("a{i}: &a{i} {open}*a{}{close}\n", i - 1));
    }
    let error = yaml(&nested).unwrap_err().to_string();
    assert!(error.contains("nests deeper than 64 levels"), "{error}");
    // What is kept for aliases counts, whether or not there are any.
    let kept = (0..60).fold(vec!["x"; 10_000].join(", "), |list, i| {
        format!("&k{i} [{list}]")
    });
    let error = yaml(&format!("a: {kept}")).unwrap_err().to_string();
    assert!(
        error.contains("stand for more than 100000 values"),
        "{error}"
    );
    assert!(yaml("allow_empty: true\n---\nallow_empty: true").is_err());
}

#[test]
fn the_samples_of_the_docs_are_accepted() {
    let docs = include_str!("../../../../../docs/config.md");
    let mut configs = Vec::new();
    for (fence, format) in [
        ("```yaml\n", Format::Yaml),
        ("```json\n", Format::Json),
        ("```toml\n", Format::Toml),
    ] {
        for sample in docs.split(fence).skip(1) {
            let sample = sample.split("```").next().unwrap();
            configs.push(Config::parse(sample, format).unwrap_or_else(|e| panic!("{e}\n{sample}")));
        }
    }
    assert!(configs.len() >= 3);
    // The first sample is given in each of the formats.
    let first = &configs[0];
    assert!(configs.iter().filter(|config| *config == first).count() >= 3);
}

#[test]
fn in_a_file_of_a_thousand_plugins_each_error_is_at_its_line() {
    let mut yaml = "plugins:\n".to_owned();
    let mut toml = String::new();
    let mut json = "{ \"plugins\": [\n".to_owned();
    for i in 0..1000 {
        let timeout = if i % 250 == 249 { "tiemout" } else { "timeout" };
        yaml += &format!(
            "  - name: p{i}\n    transport: http\n    endpoint: 'http://h:{port}'\n    connection: {{ request_{timeout}: 2s }}\n",
            port = i + 1
        );
        toml += &format!(
            "[[plugins]]\nname = 'p{i}'\ntransport = 'http'\nendpoint = 'http://h:{port}'\nconnection = {{ request_{timeout} = '2s' }}\n",
            port = i + 1
        );
        let comma = if i == 999 { "" } else { "," };
        json += &format!(
            "{{ \"name\": \"p{i}\", \"transport\": \"http\", \"endpoint\": \"http://h:{port}\",\n\"connection\": {{ \"request_{timeout}\": \"2s\" }} }}{comma}\n",
            port = i + 1
        );
    }
    json += "] }";
    // Which line of each plugin's, how many each has, and how many come before.
    for (text, format, (line, lines, before)) in [
        (yaml, Format::Yaml, (4, 4, 1)),
        (toml, Format::Toml, (5, 5, 0)),
        (json, Format::Json, (2, 2, 1)),
    ] {
        let error = Config::parse(&text, format).unwrap_err();
        let found: Vec<_> = error.problems().iter().map(|p| p.line.unwrap()).collect();
        let wanted: Vec<_> = [249, 499, 749, 999]
            .map(|i| before + i * lines + line)
            .into();
        assert_eq!(found, wanted, "{format}");
        for problem in error.problems() {
            let at = text.lines().nth(problem.line.unwrap() - 1).unwrap();
            let column = problem.column.unwrap() - 1;
            assert!(
                at[column..]
                    .trim_start_matches('"')
                    .starts_with("request_tiemout"),
                "{at}"
            );
        }
    }
}

/// What YAML makes of plain scalars, by the schema of its own specification; another reader agrees.
#[test]
fn yaml_is_read_by_its_core_schema() {
    let read = |text: &str| -> serde_json::Value {
        let source = Source::text(&format!("v: {text}"), Format::Yaml).unwrap();
        let mut root: serde_json::Value = Figment::from(source).extract().unwrap();
        root["v"].take()
    };
    let other = |text: &str| -> serde_json::Value {
        serde_saphyr::from_str_with_options(
            text,
            serde_saphyr::options! {
                strict_booleans: true,
                leading_zero_numbers_as_strings: true,
                underscored_numbers_as_strings: true,
            },
        )
        .unwrap()
    };
    for text in [
        "true",
        "false",
        "yes",
        "no",
        "on",
        "off",
        "y",
        "n",
        "null",
        "~",
        "''",
        "'null'",
        "\"true\"",
        "0",
        "-0",
        "1",
        "-1",
        "+1",
        "007",
        "0777",
        "1_000",
        "0x1f",
        "0o17",
        "1.5",
        "1.",
        ".5",
        "-.5",
        "1e3",
        "1.5E-3",
        "1e",
        "e1",
        "1.2.3",
        "127.0.0.1",
        "12:30:45",
        "2026-11-24",
        "1h30m",
        "- a",
        "a: b",
        "[1, 2]",
        "{a: 1}",
        "!!str 5",
        "!!float 3",
        "! 5",
        "'5'",
        "--1",
        "1 2",
        ".",
        "9223372036854775807",
        "a # b",
        "a#b",
        "'it''s'",
        "\"tab\\t\"",
        "|\n  two\n  lines\n",
        ">-\n  fol\n  ded\n",
    ] {
        let (ours, theirs) = match text {
            "- a" | "a: b" => (read(&format!("\n  {text}")), other(text)),
            _ => (read(text), other(text)),
        };
        assert_eq!(ours, theirs, "{text}");
    }
    for text in [".nan", ".inf", "-.inf"] {
        let source = Source::text(&format!("v: {text}"), Format::Yaml).unwrap();
        let value = Figment::from(source).find_value("v").unwrap();
        assert!(
            !value.to_num().unwrap().to_f64().unwrap().is_finite(),
            "{text}"
        );
    }
}

/// A secret shows nowhere, whatever lies over it or shadows it, and whatever else is wrong.
#[test]
fn a_secret_is_shown_nowhere_whatever_else_is_wrong() {
    let over = [
        ("TOWER_PLUGINS__PLUGINS__A__AUTH__TOKEN", "hunter2-over"),
        (
            "TOWER_PLUGINS__PLUGINS__A__RETRY__IDEMPOTENT",
            "/ok,hunter2",
        ),
        ("SECRET", "hunter2"),
    ];
    let plugin = |keys: &str| {
        format!("plugins: {{ a: {{ transport: http, endpoint: 'http://h', {keys} }} }}")
    };
    for text in [
        plugin("auth: { method: bearer, token: hunter2, bogus: 1 }"),
        plugin("auth: { <<: { token: hunter2 }, method: bearer, token: hunter2x, bogus: 1 }"),
        plugin("auth: { method: bearer, token: '}{hunter2][', bogus: 1 }"),
        plugin("auth: { method: bearer, token: \"${MISSING:-hunter2 }\" }, bogus: 1"),
        plugin("auth: { method: api-key, api_key: k, header: '${SECRET} x' }"),
        plugin("auth: { method: bearer, token: 'file:${SECRET}' }"),
        plugin("auth: { method: bearer, token: 'file:/nowhere/${SECRET}' }"),
        plugin("auth: hunter2"),
        plugin("auth: { method: hunter2 }").replace("hunter2 }", "bearer, token: [hunter2] }"),
        plugin("auth: { method: bearer, tokn: &x hunter2, token: *x, headers: { a: *x } }"),
        plugin("").replace("http://h", "http://user:hunter2@h"),
        plugin("").replace("http://h", "http://user:hunter2@${SECRET}"),
        plugin("").replace("http://h", "http://h/?key=hunter2"),
        plugin("bogus: 1 # hunter2"),
        "plugins:\n  a:\n    transport: http\n    endpoint: http://localhost\n    auth:\n      method: bearer\n      token: |\n        hunter2\n        hunter2\n".to_owned(),
    ] {
        for with_over in [false, true] {
            let environment = if with_over {
                Environment::from_iter(over)
            } else {
                Environment::from_iter([("SECRET", "hunter2")])
            };
            let loaded = Loader::text(&*text, Format::Yaml).environment(environment).load();
            let Err(error) = loaded.config else { continue };
            let shown = format!("{error}\n{error:?}\n{}\n{:?}", error.render(false), loaded.warnings);
            assert!(!shown.contains("hunter2"), "{text}\n{shown}");
        }
    }
    let loader = Loader::figment(Figment::from(
        Source::text(&plugin("x: hunter2"), Format::Yaml).unwrap(),
    ));
    assert!(!format!("{loader:?}").contains("hunter2"));
}

#[test]
fn a_byte_order_mark_moves_no_line() {
    let text = "\u{feff}plugins:\n  a: { transport: http, endpoint: 'http://h', bogus: 1 }";
    let error = yaml(text).unwrap_err();
    assert!(
        error.to_string().starts_with("2:47: plugins.a.bogus"),
        "{error}"
    );
}

/// Ten thousand problems are all there, and the lines of the first are shown.
#[test]
fn many_problems_are_counted_and_few_are_shown() {
    let text: String = (0..10_000).map(|i| format!("bogus_{i}: 1\n")).collect();
    let error = yaml(&text).unwrap_err();
    assert_eq!(error.problems().len(), 10_000);
    assert_eq!(error.problems()[9_999].line, Some(10_000));
    assert_eq!(error.render(false).matches("error: ").count(), 26);
    assert!(error.to_string().ends_with("and 9975 more problems"));
}

#[test]
fn a_file_may_say_which_schema_it_follows() {
    let text = r#"{ "$schema": "config.schema.json", "allow_empty": true }"#;
    assert!(Config::parse(text, Format::Json).is_ok());
    let deeper = "plugins: { a: { transport: http, endpoint: 'http://h', $schema: x } }";
    assert!(yaml(deeper).is_err());
}

/// A line is said of a layer only where the value is.
#[test]
fn no_line_is_made_up_for_a_layer() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("program.yaml");
    let text = "plugins:\n  a: { retry: 1 }\ncalls:\n  plugins:\n    a: { transport: http, endpoint: 'http://h', retry: 2 }\n";
    fs::write(&path, text).unwrap();
    let program = Figment::from(Source::file(&path).unwrap());
    let error = Config::from_figment(&program.focus("calls")).unwrap_err();
    assert_eq!(
        (error.problems()[0].key.as_str(), error.problems()[0].line),
        ("plugins.a.retry", None)
    );
    assert_eq!(error.problems()[0].file.as_deref(), Some(&*path));
}
