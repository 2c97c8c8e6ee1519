//! What holds of every text, whoever wrote it. Each check panics where it does not.
//!
//! The fuzz targets call this, and so does a test of the workspace, with the corpus.

use figment::value::{Dict, Value};
use figment::{Figment, Profile, Provider};
use tower_plugins::config::{
    Config, ConfigError, CredentialsSpec, Environment, Format, Loader, Problem, ProblemKind,
    Secret, Secrets, Source,
};

const FORMATS: [Format; 3] = [Format::Json, Format::Yaml, Format::Toml];

/// What no message may repeat. It is formed like the name of a plugin, a host and a header's value,
/// so that it comes far before it is refused.
const SECRET: &str = "hunter2-in-the-environment";

/// A secret that some texts of the corpus have in them. No message repeats it either.
const WRITTEN: &str = "hunter2";

/// What the texts can name.
const VARIABLES: [(&str, &str); 6] = [
    ("SET", "value"),
    ("SECRET", SECRET),
    ("EMPTY", ""),
    ("NUMBER", "7"),
    // What a variable holds is not looked at again.
    ("NESTED", "${SET}"),
    ("PATHLIKE", "file:/nowhere"),
];

/// The largest secret that is sent.
const MAX_SECRET: usize = 8 << 10;

/// Checks the config that `text` says in `format`: it is loaded or refused, with nothing said that
/// must not be; and what was loaded is written, and read again, as it was.
pub fn config(text: &str, format: Format) {
    if names_files(text, format) {
        return;
    }
    let loaded = Loader::text(text, format)
        .environment(Environment::from_iter(VARIABLES))
        .load();
    let mut files = loaded.dependencies.files();
    assert_eq!(files.next(), None, "a file was read");
    for warning in &loaded.warnings {
        assert_within(warning, text);
        assert_no_secret(text, &warning.to_string());
        assert_no_secret(text, &warning.render_as_warning(true));
    }
    match loaded.config {
        Ok(config) => {
            assert_is_written_and_read(&config);
            assert_is_what_figment_reads(&config, text, format);
        }
        Err(error) => {
            assert_says_well(&error, text);
            if gives_secret(text, format) {
                for shown in all_shown(&error) {
                    assert!(!shown.contains(WRITTEN), "a secret is shown:\n{shown}");
                }
            }
        }
    }
}

/// Checks the variables that `text` names, against the rules in `docs/config.md` once more.
pub fn expansion(text: &str) {
    // A password may be any text without control characters. The `p` is so that it is not one that
    // begins like the name of a file.
    let written = serde_json::to_string(&format!("p{text}")).expect("a text is JSON");
    let config = format!(
        r#"{{"plugins": {{"a": {{"transport": "http", "endpoint": "http://localhost",
            "auth": {{"method": "basic", "username": "u", "password": {written}}}}}}}}}"#
    );
    let loaded = Loader::text(&*config, Format::Json)
        .environment(Environment::from_iter(VARIABLES))
        .load();
    let expected = expanded(text).map(|text| format!("p{text}"));
    match (loaded.config, expected) {
        (Ok(config), Some(expected)) => {
            let credentials = &config.plugins["a"].policy.credentials;
            let CredentialsSpec::Basic { password, .. } = credentials else {
                panic!("not the credentials that were written: {credentials:?}");
            };
            assert_eq!(password.expose(), expected);
            assert_is_written_and_read(&config);
        }
        (Ok(_), None) => panic!("taken, and it should not be"),
        (Err(error), expected) => {
            assert_says_well(&error, &config);
            let [problem] = error.problems() else {
                panic!("not one problem: {error}");
            };
            assert_eq!(problem.key, "plugins.a.auth.password", "{error}");
            match expected {
                None => assert_eq!(problem.kind, ProblemKind::Variable, "{error}"),
                Some(text) => {
                    assert_eq!(problem.kind, ProblemKind::BadValue, "{error}");
                    let fits = !text.contains(char::is_control) && text.len() <= MAX_SECRET;
                    assert!(!fits, "refused, and it should not be: {error}");
                }
            }
        }
    }
}

/// The rules for variables, one character after the other; `None` is an error.
fn expanded(text: &str) -> Option<String> {
    let mut expanded = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix("$${") {
            expanded.push_str("${");
            rest = after;
        } else if let Some(inner) = rest.strip_prefix("${") {
            let end = inner.find('}')?;
            expanded.push_str(value(&inner[..end])?);
            rest = &inner[end + 1..];
        } else {
            expanded.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    Some(expanded)
}

/// What `NAME` or `NAME:-default` stands for.
fn value(variable: &str) -> Option<&str> {
    let of_name = |c: char| matches!(c, 'A'..='Z' | 'a'..='z' | '0'..='9' | '_');
    let end = variable.find(|c| !of_name(c)).unwrap_or(variable.len());
    let (name, rest) = variable.split_at(end);
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let held = VARIABLES.iter().find(|(known, _)| *known == name);
    let held = held.map(|(_, held)| *held);
    match rest.strip_prefix(":-") {
        Some(default) => Some(held.filter(|held| !held.is_empty()).unwrap_or(default)),
        None if rest.is_empty() => held,
        None => None,
    }
}

/// Whether `text` may name a file. Files are not read here: what they hold is the machine's, and a
/// text that is found could name any.
fn names_files(text: &str, format: Format) -> bool {
    let names = |text: &str| text.contains("file:") || text.contains("_file");
    if names(text) {
        return true;
    }
    // Without an escape, what a text says it says in these letters.
    if !text.contains('\\') {
        return false;
    }
    fn any(value: &Value, names: &impl Fn(&str) -> bool) -> bool {
        match value {
            Value::String(_, text) => names(text),
            Value::Dict(_, dict) => dict
                .iter()
                .any(|(key, value)| names(key) || any(value, names)),
            Value::Array(_, items) => items.iter().any(|item| any(item, names)),
            _ => false,
        }
    }
    // What cannot be parsed is refused before a file is looked for.
    parsed(text, format).is_some_and(|root| {
        root.iter()
            .any(|(key, value)| names(key) || any(value, &names))
    })
}

/// A refusal is for an operator: there is something in it, where it says, and no secret.
fn assert_says_well(error: &ConfigError, text: &str) {
    assert!(!error.problems().is_empty(), "refused without a problem");
    for problem in error.problems() {
        assert_within(problem, text);
    }
    for shown in all_shown(error) {
        assert!(!shown.is_empty());
        assert_no_secret(text, &shown);
    }
}

fn all_shown(error: &ConfigError) -> [String; 4] {
    [
        error.to_string(),
        error.render(false),
        error.render(true),
        format!("{error:?}"),
    ]
}

/// Whether [`WRITTEN`] is in `text` just once, and that in a secret.
fn gives_secret(text: &str, format: Format) -> bool {
    // What an alias stands for is there more than once, and the name of a variable is no secret.
    if text.matches(WRITTEN).count() != 1 || text.contains(['*', '$']) {
        return false;
    }
    // In a text that cannot be parsed, nobody knows what is a secret.
    let Some(root) = parsed(text, format) else {
        return false;
    };
    let is_it = |value: &Value| matches!(value, Value::String(_, text) if text.contains(WRITTEN));
    let in_auth = |plugin: &Value| {
        let Some(auth) = plugin
            .as_dict()
            .and_then(|plugin| plugin.get("auth")?.as_dict())
        else {
            return false;
        };
        let mut secrets = ["api_key", "token", "password"].iter();
        let headers = auth.get("headers").and_then(Value::as_dict);
        secrets.any(|key| auth.get(*key).is_some_and(is_it))
            || headers.is_some_and(|headers| headers.values().any(is_it))
    };
    match root.get("plugins") {
        Some(Value::Array(_, plugins)) => plugins.iter().any(in_auth),
        Some(Value::Dict(_, plugins)) => plugins.values().any(in_auth),
        _ => false,
    }
}

/// What `text` says, its variables as they are written.
fn parsed(text: &str, format: Format) -> Option<Dict> {
    let mut profiles = Source::text(text, format).ok()?.data().ok()?;
    profiles.remove(&Profile::Default)
}

fn assert_within(problem: &Problem, text: &str) {
    let Some(line) = problem.line else {
        assert_eq!(problem.column, None, "a column of no line: {problem}");
        return;
    };
    let found = line.checked_sub(1).and_then(|at| text.split('\n').nth(at));
    let Some(found) = found else {
        panic!("there is no line {line}: {problem}");
    };
    if let Some(column) = problem.column {
        // One after the last is where something is missing.
        let last = found.chars().count() + 1;
        assert!(
            (1..=last).contains(&column),
            "no column {column}: {problem}"
        );
    }
}

fn assert_no_secret(text: &str, shown: &str) {
    // It is no secret in a text that has it already.
    if !text.contains(SECRET) {
        assert!(!shown.contains(SECRET), "a secret is shown:\n{shown}");
    }
}

fn assert_is_written_and_read(config: &Config) {
    let others = with_other_secrets(config);
    for format in FORMATS {
        let text = config.to_text(format, Secrets::Shown);
        let loaded = Loader::text(&*text, format)
            .environment(Environment::empty())
            .load();
        match loaded.config {
            Ok(read) => assert_eq!(read, *config, "not read as it was written:\n{text}"),
            Err(error) => panic!("what was written is refused:\n{error}\n{text}"),
        }
        // What is the same whatever the secrets are tells nothing of them.
        assert_eq!(
            config.to_text(format, Secrets::Hidden),
            others.to_text(format, Secrets::Hidden)
        );
    }
    assert_eq!(format!("{config:?}"), format!("{others:?}"));
}

/// A text is the same config on the other way that a program may read it.
fn assert_is_what_figment_reads(config: &Config, text: &str, format: Format) {
    let source = Source::text(text, format).expect("it was read before");
    let loaded = Loader::figment(Figment::from(source))
        .environment(Environment::from_iter(VARIABLES))
        .load();
    assert_eq!(loaded.config.as_ref(), Ok(config), "not what figment reads");
}

/// `config` with each secret replaced.
fn with_other_secrets(config: &Config) -> Config {
    let mut config = config.clone();
    let other = || Secret::new("another".to_owned());
    for plugin in config.plugins.values_mut() {
        match &mut plugin.policy.credentials {
            CredentialsSpec::None => {}
            CredentialsSpec::ApiKey { key, .. } => *key = other(),
            CredentialsSpec::Bearer { token } => *token = other(),
            CredentialsSpec::Basic { password, .. } => *password = other(),
            CredentialsSpec::Custom { headers } => {
                headers.iter_mut().for_each(|(_, value)| *value = other());
            }
            credentials => panic!("no check for {credentials:?}"),
        }
    }
    config
}
