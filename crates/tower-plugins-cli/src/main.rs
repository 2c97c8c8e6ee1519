//! The `tower-plugins` command: checks configs before they are deployed.

#![forbid(unsafe_code)]

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tower_plugins::config::{Config, Environment, Loader};

/// The command of tower-plugins, a plugin system made of tower services.
#[derive(Parser)]
#[command(name = "tower-plugins", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Check configs as a program would that loads them, with every file they name.
    ///
    /// Exits with 0 if all of them would be taken, and with 1 if one would not.
    Check {
        /// The config files: .yaml, .yml, .json or .toml.
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Take no variable from the environment: `${NAME}` without a default is an error, and
        /// TOWER_PLUGINS__… changes nothing.
        #[arg(long)]
        no_environment: bool,
        /// Fail on warnings too.
        #[arg(long)]
        deny_warnings: bool,
    },
    /// Print the JSON Schema of a config, for editors.
    Schema,
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Check {
            files,
            no_environment,
            deny_warnings,
        } => check(&files, no_environment, deny_warnings),
        Command::Schema => schema(),
    };
    // A reader that has gone away, as in `| head -1`, is a failure but no reason to panic.
    done.unwrap_or(ExitCode::FAILURE)
}

fn check(files: &[PathBuf], no_environment: bool, deny_warnings: bool) -> io::Result<ExitCode> {
    let colored = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let mut all_taken = true;
    for file in files {
        let mut loader = Loader::file(file);
        if no_environment {
            loader = loader.environment(Environment::empty());
        }
        let loaded = loader.load();
        for warning in &loaded.warnings {
            say(warning.render_as_warning(colored))?;
        }
        all_taken &= loaded.warnings.is_empty() || !deny_warnings;
        match loaded.config {
            Ok(config) => {
                let plugins = config.plugins.len();
                let s = if plugins == 1 { "" } else { "s" };
                writeln!(io::stdout(), "{}: {plugins} plugin{s}", file.display())?;
            }
            Err(error) => {
                all_taken = false;
                say(error.render(colored))?;
            }
        }
    }
    Ok(if all_taken {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn say(problem: impl Display) -> io::Result<()> {
    writeln!(io::stderr(), "{problem}\n")
}

fn schema() -> io::Result<ExitCode> {
    let schema = serde_json::to_string_pretty(&schemars::schema_for!(Config))?;
    writeln!(io::stdout(), "{schema}")?;
    Ok(ExitCode::SUCCESS)
}
