//! What an operator reads when a config is refused: every message, in every format, as it is shown.
//!
//! The texts and what is said of them are in `samples/refused/`, to be read by eye. After a change
//! of a message, `UPDATE_GENERATED=1 cargo test -p tower-plugins --test main config::refused` writes
//! them anew.

mod cases;

use std::fs;
use std::path::{Path, PathBuf};

use figment::Figment;
use serde_json::Value;
use tower_plugins::config::{Environment, Format, Loader, Source};

use self::cases::{CASES, Case, SYNTAX};

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/main/samples/refused")
        .join(format!("{name}.txt"))
}

/// What is said of `text`. It must not hold the secret that is in many of them.
fn refusal(name: &str, text: &str, format: Format) -> String {
    let environment = Environment::from_iter([("SET", "hunter2")]);
    let loaded = Loader::text(text, format).environment(environment).load();
    let Err(error) = loaded.config else {
        panic!("{name}: not refused in {format}:\n{text}");
    };
    let shown = format!("{error}\n{error:?}\n{}", error.render(false));
    assert!(
        !shown.contains("hunter2"),
        "{name}: a secret is shown:\n{shown}"
    );
    for problem in error.problems() {
        assert!(
            problem.line.is_some() || problem.variable.is_some() || text.trim().is_empty(),
            "{name}: no line: {error}"
        );
    }
    error.render(false)
}

/// The texts of a case: in YAML as it stands, and what that says in the others.
fn texts(case: &Case) -> [(Format, String); 3] {
    let value = || -> Value {
        let source = Source::text(case.yaml, Format::Yaml).unwrap();
        Figment::from(source).extract().unwrap()
    };
    let json = case.json.map_or_else(
        || serde_json::to_string_pretty(&value()).unwrap(),
        str::to_owned,
    );
    let toml = case
        .toml
        .map_or_else(|| toml::to_string(&value()).unwrap(), str::to_owned);
    [
        (Format::Yaml, case.yaml.to_owned()),
        (Format::Json, json),
        (Format::Toml, toml),
    ]
}

fn section(format: Format, text: &str, refusal: &str) -> String {
    // A text of a megabyte need not be read by anybody.
    let text: String = text
        .lines()
        .map(|line| match line.char_indices().nth(200) {
            Some((at, _)) => format!("{}…\n", &line[..at]),
            None => format!("{line}\n"),
        })
        .collect();
    format!("===== {format}\n{text}----- is refused with\n{refusal}\n\n")
}

fn assert_current(name: &str, found: &str) {
    let path = path(name);
    if std::env::var_os("UPDATE_GENERATED").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, found).unwrap();
    }
    let known = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        known == found,
        "{name}: what is said has changed; if it is better so, run\n\
         UPDATE_GENERATED=1 cargo test -p tower-plugins --test main config::refused\n{found}"
    );
}

#[test]
fn what_is_wrong_is_said_as_it_was_reviewed_in_each_format() {
    const { assert!(CASES.len() >= 60) };
    for case in CASES {
        let sections = texts(case)
            .map(|(format, text)| section(format, &text, &refusal(case.name, &text, format)));
        assert_current(case.name, &sections.concat());
    }
}

#[test]
fn what_is_not_of_its_format_is_said_as_it_was_reviewed() {
    for (name, format, text) in SYNTAX {
        let text = text();
        assert_current(
            name,
            &section(*format, &text, &refusal(name, &text, *format)),
        );
    }
}

#[test]
fn every_snapshot_is_of_a_case() {
    let mut known: Vec<_> = CASES.iter().map(|case| case.name).collect();
    known.extend(SYNTAX.iter().map(|(name, ..)| *name));
    for entry in fs::read_dir(path("x").parent().unwrap()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        assert!(known.contains(&name), "{}", path.display());
    }
    let count = known.len();
    known.sort_unstable();
    known.dedup();
    assert_eq!(known.len(), count, "two cases of one name");
}
