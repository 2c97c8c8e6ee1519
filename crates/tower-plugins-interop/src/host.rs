//! A host in Go, and what it says it saw.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::process::Command;
use tokio::time::timeout;

use crate::{Version, go};

/// What a host takes at most.
const BOUND: Duration = Duration::from_secs(120);

/// A host in Go: `peers/go-plugin/host.go` has its flags, and `steps.go` what it can be asked for.
///
/// ```no_run
/// # async fn host() -> std::io::Result<()> {
/// use tower_plugins_interop::{GoHost, Version};
///
/// let Some(host) = GoHost::new(Version::V1_8_0) else { return Ok(()) };
/// let seen = host.flags(["-automtls"]).run("double,kill", "target/debug/plugin").await?;
/// assert_eq!(seen.step("double")["value"], 42);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct GoHost {
    program: PathBuf,
    flags: Vec<String>,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
}

impl GoHost {
    /// A host with this version of go-plugin; `None` as [`go`] says.
    #[must_use]
    pub fn new(version: Version) -> Option<Self> {
        go(version).map(|program| Self {
            program,
            flags: Vec::new(),
            arguments: Vec::new(),
            environment: Vec::new(),
        })
    }

    /// With these flags more.
    #[must_use]
    pub fn flags<'a>(mut self, flags: impl IntoIterator<Item = &'a str>) -> Self {
        self.flags.extend(flags.into_iter().map(str::to_owned));
        self
    }

    /// With these arguments for the plugin.
    #[must_use]
    pub fn arguments<'a>(mut self, arguments: impl IntoIterator<Item = &'a str>) -> Self {
        self.arguments
            .extend(arguments.into_iter().map(str::to_owned));
        self
    }

    /// With a variable, of its own and so of the plugin.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The command that runs `plugin` and does `calls`, a list with commas between.
    ///
    /// For a plugin that runs already there is no program: it is named by the flag `-attach`.
    #[must_use]
    pub fn command(&self, calls: &str, plugin: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("host").args(&self.flags);
        command.args(["-calls", calls, "--"]).arg(plugin);
        command.args(&self.arguments);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.kill_on_drop(true).stdin(Stdio::null());
        command
    }

    /// Runs `plugin`, does `calls`, and ends; all it said.
    ///
    /// # Errors
    ///
    /// If it cannot be run, ends with a failure, or takes longer than two minutes.
    pub async fn run(&self, calls: &str, plugin: impl AsRef<Path>) -> io::Result<Seen> {
        let mut command = self.command(calls, plugin.as_ref());
        let output = timeout(BOUND, command.output()).await??;
        let (said, log) = (output.stdout, output.stderr);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if !output.status.success() {
            let (said, log) = (text(&said), text(&log));
            return Err(io::Error::other(format!("{}: {said}{log}", output.status)));
        }
        Ok(Seen::parse(&text(&said)))
    }
}

/// What a host saw: an object of JSON for each step.
#[derive(Debug, Clone, Default)]
pub struct Seen(Vec<Value>);

impl Seen {
    /// What it said on its stdout.
    #[must_use]
    pub fn parse(stdout: &str) -> Self {
        let lines = stdout.lines();
        Self(
            lines
                .filter_map(|line| serde_json::from_str(line).ok())
                .collect(),
        )
    }

    /// The last that it said of `step`, in which `error` is the text of an error; null if it said nothing.
    #[must_use]
    pub fn step(&self, step: &str) -> &Value {
        let found = self.0.iter().rev().find(|line| line["step"] == step);
        found.unwrap_or(&Value::Null)
    }

    /// All that it said.
    #[must_use]
    pub fn steps(&self) -> &[Value] {
        &self.0
    }

    /// The first step that failed, with why.
    #[must_use]
    pub fn failure(&self) -> Option<&Value> {
        self.0.iter().find(|line| line.get("error").is_some())
    }
}
