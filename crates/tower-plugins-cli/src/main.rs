//! The `tower-plugins` command.
//!
//! It will check configs and watch running plugins. Today it says what it is, and refuses the rest
//! with exit code 2, so that a script cannot take it for a command that did something.

#![forbid(unsafe_code)]

use std::io::Write;
use std::process::ExitCode;

const VERSION: &str = concat!("tower-plugins ", env!("CARGO_PKG_VERSION"), "\n");

const HELP: &str = "\
The command of tower-plugins, a plugin system made of tower services.

Usage: tower-plugins --help | --version

  -h, --help       Print this text
  -V, --version    Print the version

It has no commands yet: configs are checked when they are loaded, by the library.
";

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let known = match arguments.as_slice() {
        [one] => one.to_str(),
        _ => None,
    };
    let text = match known {
        Some("-h" | "--help") => HELP,
        Some("-V" | "--version") => VERSION,
        _ => {
            // Nothing is left to tell an error to when standard error is closed.
            let _ = std::io::stderr().write_all(HELP.as_bytes());
            return ExitCode::from(2);
        }
    };
    // A reader that has gone away, as in `| head -1`, is a failure but no reason to panic.
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
