//! Files that a config names: those it includes, and those that hold secrets.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tower_plugins::config::{Config, ConfigError, CredentialsSpec, Loader, ProblemKind};

struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        private(&path);
        path
    }

    fn load(&self) -> Result<Config, ConfigError> {
        Config::from_file(self.path("plugins.yaml"))
    }
}

#[cfg(unix)]
fn private(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

#[cfg(not(unix))]
fn private(_: &Path) {}

const A: &str = "plugins: { a: { transport: http, endpoint: 'http://a' } }";

#[test]
fn files_directories_and_patterns_are_one_config() {
    let place = Place::new();
    place.write(
        "plugins.yaml",
        "include: [one.json, conf.d, 'teams/*.toml', '${EXTRA:-one.json}', '*.yaml']
default_retry: { max_retries: 7 }
plugins: { main: { transport: http, endpoint: 'http://h' } }",
    );
    place.write(
        "one.json",
        r#"{ "plugins": [{ "name": "one", "transport": "http", "endpoint": "http://h" }] }"#,
    );
    place.write(
        "conf.d/20-b.yaml",
        "plugins: { b: { transport: http, endpoint: 'http://h' } }",
    );
    place.write("conf.d/10-a.yml", A);
    place.write("conf.d/.hidden.yaml", "nonsense: true");
    place.write("conf.d/README.md", "no config");
    place.write(
        "teams/x.toml",
        "drain_timeout = '3s'\n[plugins.x]\ntransport = 'http'\nendpoint = 'http://h'",
    );
    place.write("teams/x.toml.bak", "nonsense");
    let config = place.load().unwrap();
    let names: Vec<_> = config.plugins.keys().map(|name| name.as_str()).collect();
    assert_eq!(names, ["a", "b", "main", "one", "x"]);
    for plugin in config.plugins.values() {
        assert_eq!(plugin.policy.retry.as_ref().unwrap().max_retries, 7);
        assert_eq!(plugin.policy.drain_timeout.as_secs(), 3);
    }
    let loaded = Loader::file(place.path("plugins.yaml")).load();
    assert_eq!(loaded.dependencies.files().count(), 5);
    assert_eq!(loaded.dependencies.directories().count(), 3);
    assert_eq!(loaded.files.len(), 5);
}

#[test]
fn each_problem_is_said_of_its_own_file() {
    let place = Place::new();
    place.write(
        "plugins.yaml",
        "include: [conf.d]\nplugns: []\ndrain_timeout: 1s",
    );
    place.write(
        "conf.d/a.yaml",
        "plugins:\n  a: { transport: http, endpoint: 'http://h', retyr: off }",
    );
    place.write("conf.d/b.toml", "drain_timeout = '2s'\ninclude = ['x']\n[plugins.a]\ntransport = 'http'\nendpoint = 'http://h'");
    place.write(
        "conf.d/c.json",
        "{ \"plugins\": [\n  { \"transport\": \"http\" } ] }",
    );
    let error = place.load().unwrap_err();
    let shown = error
        .to_string()
        .replace(&place.0.path().display().to_string(), "");
    assert_eq!(
        shown,
        "8 problems in the config:
  - /conf.d/a.yaml:2:47: plugins.a.retyr: unknown key, did you mean `retry`?
  - /conf.d/b.toml:1:1: drain_timeout: is in two files of this config, keep one of them; the other is, at /plugins.yaml:3
  - /conf.d/b.toml:2:1: include: is read in the main file only
  - /conf.d/b.toml:3:10: plugins.a.name: a is the name of plugins.a already, at /conf.d/a.yaml:2
  - /conf.d/c.json:2:3: plugins[0].name: is missing
  - /conf.d/c.json:2:3: plugins[0].endpoint: is missing
  - /plugins.yaml:2:1: plugns: unknown key, did you mean `plugins`?"
            .replace("8 problems", "7 problems")
    );
}

#[test]
fn several_files_that_cannot_be_read_are_said_at_once() {
    let place = Place::new();
    place.write(
        "plugins.yaml",
        "include: [a.yaml, b.toml, missing.yaml, notes.txt]",
    );
    place.write("a.yaml", "plugins: [");
    place.write("b.toml", "plugins = ");
    place.write("notes.txt", "hello");
    let error = place.load().unwrap_err();
    assert_eq!(error.problems().len(), 4, "{error}");
    for problem in error.problems() {
        assert!(
            matches!(
                problem.kind,
                ProblemKind::Syntax | ProblemKind::Unreadable | ProblemKind::File
            ),
            "{error}"
        );
    }
}

#[test]
fn what_else_is_wrong_is_said_beside_an_include_that_is() {
    let place = Place::new();
    place.write("plugins.yaml", "include: [missing.yaml]\ndrain_timeout: 3");
    let error = place.load().unwrap_err();
    let found: Vec<_> = error
        .problems()
        .iter()
        .map(|p| (p.line.unwrap(), &*p.key))
        .collect();
    assert_eq!(found, [(1, "include[0]"), (2, "drain_timeout")], "{error}");
}

#[test]
fn what_cannot_be_included_is_refused_where_it_is_written() {
    for (written, part) in [
        ("[missing.d/*.yaml]", "cannot be read"),
        ("['*.d/a.yaml']", "only the name of a file may be one"),
        ("['[.yaml']", "is no pattern"),
        ("conf.d", "expected a list, found text"),
        ("[7]", "expected text, found a number"),
        ("['']", "is not the path of a file"),
        ("['${UNSET_VARIABLE_OF_THIS_TEST}']", "is not set"),
    ] {
        let place = Place::new();
        place.write("plugins.yaml", &format!("include: {written}\n{A}"));
        let error = place.load().unwrap_err();
        assert!(error.problems()[0].key.starts_with("include"), "{error}");
        assert_eq!(error.problems()[0].line, Some(1), "{error}");
        assert!(error.to_string().contains(part), "{error}");
    }
    let error = super::yaml("include: [a.yaml]\nallow_empty: true").unwrap_err();
    assert!(
        error.to_string().contains("is read in a config file only"),
        "{error}"
    );
}

#[test]
fn the_sample_of_the_docs_is_accepted() {
    let docs = include_str!("../../../../../docs/config.md");
    let sample = docs.split("```yaml include\n").nth(1).unwrap();
    let sample = sample.split("```").next().unwrap();
    let place = Place::new();
    place.write("plugins.yaml", sample);
    place.write("conf.d/a.yaml", A);
    place.write("teams/b.yaml", &A.replace("a:", "b:"));
    place.write("base.toml", "drain_timeout = '1s'");
    assert_eq!(place.load().unwrap().plugins.len(), 2);
}

fn secret(place: &Place) -> Result<String, ConfigError> {
    let config = place.load()?;
    match &config.plugins["a"].policy.credentials {
        CredentialsSpec::Bearer { token } => Ok(token.expose().to_owned()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_secret_is_what_its_file_holds_less_the_last_line_break() {
    let place = Place::new();
    let with = |token: &str| {
        format!(
            "plugins: {{ a: {{ transport: http, endpoint: 'http://localhost', auth: {{ method: bearer, token: '{token}' }} }} }}"
        )
    };
    place.write("plugins.yaml", &with("file:secrets/token"));
    for (held, secret_is) in [
        ("hunter2", "hunter2"),
        ("hunter2\n", "hunter2"),
        ("hunter2\r\n", "hunter2"),
    ] {
        place.write("secrets/token", held);
        assert_eq!(secret(&place).unwrap(), secret_is);
    }
    for (held, part) in [
        ("", "is empty"),
        ("\n", "is empty"),
        ("hunter2\n\n", "line break"),
    ] {
        place.write("secrets/token", held);
        let error = secret(&place).unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
        assert!(!format!("{error:?}").contains("hunter2"), "{error}");
    }
    fs::write(place.path("secrets/token"), b"hunter2\xff").unwrap();
    assert!(
        secret(&place)
            .unwrap_err()
            .to_string()
            .contains("not UTF-8")
    );
    fs::remove_file(place.path("secrets/token")).unwrap();
    let error = secret(&place).unwrap_err();
    assert_eq!(error.problems()[0].kind, ProblemKind::File);
    assert!(
        error.to_string().contains("secrets/token cannot be read"),
        "{error}"
    );

    let absolute = place.write("elsewhere", "hunter3");
    place.write(
        "plugins.yaml",
        &with(&format!("file:{}", absolute.display())),
    );
    assert_eq!(secret(&place).unwrap(), "hunter3");
}

#[cfg(unix)]
#[test]
fn a_secret_that_others_can_read_or_change_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    place.write("plugins.yaml", "plugins: { a: { transport: http, endpoint: 'http://localhost', auth: { method: bearer, token: file:token } } }");
    let token = place.write("token", "hunter2");
    for (mode, part) in [
        (0o400, None),
        (0o600, None),
        (0o640, None),
        (0o644, Some("can be read by others (mode 0644)")),
        (0o660, Some("can be changed by others (mode 0660)")),
        (0o604, Some("can be read by others (mode 0604)")),
    ] {
        fs::set_permissions(&token, fs::Permissions::from_mode(mode)).unwrap();
        match (secret(&place), part) {
            (Ok(_), None) => {}
            (Err(error), Some(part)) => assert!(error.to_string().contains(part), "{error}"),
            (other, _) => panic!("{mode:o}: {other:?}"),
        }
    }
}

#[test]
fn the_digest_is_of_every_file_that_the_config_names() {
    let place = Place::new();
    place.write("plugins.yaml", "include: [conf.d]");
    place.write("conf.d/a.yaml", "plugins: { a: { transport: http, endpoint: 'http://localhost', auth: { method: bearer, token: file:token } } }");
    place.write("conf.d/token", "hunter2");
    let digest = || {
        Loader::file(place.path("plugins.yaml"))
            .load()
            .dependencies
            .digest()
    };
    let mut seen = vec![digest()];
    place.write("conf.d/token", "hunter3");
    seen.push(digest());
    place.write("conf.d/b.yaml", "drain_timeout: 1s");
    seen.push(digest());
    fs::remove_file(place.path("conf.d/token")).unwrap();
    seen.push(digest());
    place.write("conf.d/token", "hunter2");
    fs::remove_file(place.path("conf.d/b.yaml")).unwrap();
    assert_eq!(digest(), seen[0]);
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 4);
}
