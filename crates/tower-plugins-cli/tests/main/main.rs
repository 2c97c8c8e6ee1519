//! The command as a shell sees it.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::Path;
use std::process::Command;

/// The exit code, standard output and standard error.
fn run(directory: &Path, arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_tower-plugins"))
        .args(arguments)
        .current_dir(directory)
        .env("SEARCH_TOKEN", "hunter2")
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code().unwrap(),
        text(output.stdout),
        text(output.stderr),
    )
}

fn here(arguments: &[&str]) -> (i32, String, String) {
    run(Path::new("."), arguments)
}

#[test]
fn it_says_its_name_and_version() {
    for flag in ["--version", "-V"] {
        let expected = concat!("tower-plugins ", env!("CARGO_PKG_VERSION"), "\n");
        assert_eq!(here(&[flag]), (0, expected.to_owned(), String::new()));
    }
}

#[test]
fn it_says_what_it_can_do() {
    let (code, said, _) = here(&["--help"]);
    assert_eq!(code, 0);
    assert!(said.contains("check") && said.contains("schema"), "{said}");
}

#[test]
fn what_it_does_not_know_is_refused_and_prints_nothing_to_standard_output() {
    for arguments in [&[][..], &["chekc"], &["check"], &["--colour"]] {
        let (code, said, error) = here(arguments);
        assert_eq!((code, said.as_str()), (2, ""), "{arguments:?}");
        assert!(error.contains("Usage"), "{error}");
    }
}

#[test]
fn a_config_is_checked_with_what_is_wrong_shown_at_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let good = "plugins:\n  search:\n    transport: https\n    endpoint: https://search\n    auth: { method: bearer, token: '${SEARCH_TOKEN}' }\n";
    fs::write(dir.path().join("good.yaml"), good).unwrap();
    fs::write(
        dir.path().join("bad.yaml"),
        good.replace("transport", "transprot"),
    )
    .unwrap();
    let vain = format!("{good}    retry: {{ attempt_timeout: 1h }}\n");
    fs::write(dir.path().join("vain.yaml"), vain).unwrap();

    let taken = run(dir.path(), &["check", "good.yaml"]);
    assert_eq!(
        taken,
        (0, "good.yaml: 1 plugin\n".to_owned(), String::new())
    );

    let (code, said, error) = run(dir.path(), &["check", "good.yaml", "bad.yaml"]);
    assert_eq!((code, said.as_str()), (1, "good.yaml: 1 plugin\n"));
    let shown = "error: plugins.search.transprot: unknown key, did you mean `transport`?
 --> bad.yaml:3:5
  |
3 |     transprot: ***
  |     ^^^^^^^^^";
    assert!(error.contains(shown), "{error}");
    assert!(!error.contains("hunter2"), "{error}");

    let (code, _, error) = run(dir.path(), &["check", "--no-environment", "good.yaml"]);
    assert_eq!(code, 1);
    assert!(error.contains("SEARCH_TOKEN is not set"), "{error}");

    let (code, _, error) = run(dir.path(), &["check", "vain.yaml"]);
    assert_eq!(code, 0);
    assert!(
        error.contains("warning: plugins.search.retry: attempt_timeout, 1h, is never reached"),
        "{error}"
    );
    let (code, ..) = run(dir.path(), &["check", "--deny-warnings", "vain.yaml"]);
    assert_eq!(code, 1);

    let (code, _, error) = run(dir.path(), &["check", "missing.toml"]);
    assert_eq!(code, 1);
    assert!(error.contains("cannot be read"), "{error}");
}

#[test]
fn the_schema_is_the_published_one() {
    let published = fs::read_to_string("../../docs/config.schema.json").unwrap();
    assert!(here(&["schema"]) == (0, published, String::new()));
}
