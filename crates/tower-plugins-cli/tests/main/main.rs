//! The command as a shell sees it.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::process::{Command, Output};

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tower-plugins"))
        .args(arguments)
        .output()
        .unwrap()
}

#[test]
fn it_says_its_name_and_version() {
    for flag in ["--version", "-V"] {
        let output = run(&[flag]);
        assert!(output.status.success());
        let expected = concat!("tower-plugins ", env!("CARGO_PKG_VERSION"), "\n");
        assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
    }
}

#[test]
fn it_says_what_it_can_do() {
    for flag in ["--help", "-h"] {
        let output = run(&[flag]);
        assert!(output.status.success());
        assert!(
            String::from_utf8(output.stdout)
                .unwrap()
                .contains("--version")
        );
    }
}

#[test]
fn anything_else_is_refused_and_prints_nothing_to_standard_output() {
    for arguments in [
        &[][..],
        &["check", "plugins.yaml"],
        &["--help", "--version"],
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty());
        assert!(String::from_utf8(output.stderr).unwrap().contains("Usage"));
    }
}
