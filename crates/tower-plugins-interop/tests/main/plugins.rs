//! What hosts in Go see of plugins: of our SDK's, and of go-plugin's own, which has to be the same.

mod attach;
mod ends;
mod sockets;
mod start;
mod tls;

use std::io;
use std::path::PathBuf;
use std::process::Stdio;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout};
use tower_plugins_interop::{GoHost, Seen, Version, go};

use crate::support::within;

/// A host in Go, and a plugin.
#[derive(Debug, Clone)]
struct Pair {
    name: String,
    host: GoHost,
    version: Version,
    plugin: PathBuf,
    is_sdk: bool,
}

/// Hosts of these versions, each with a plugin of the same one and with that of the SDK; none where there is no Go.
fn pairs(versions: impl IntoIterator<Item = Version>) -> Vec<Pair> {
    let of_version = |version: Version| {
        let (Some(host), Some(plugin)) = (GoHost::new(version), go(version)) else {
            return Vec::new();
        };
        let name = version.name();
        let theirs = Pair {
            name: format!("{name} with its own"),
            host: host.clone().arguments(["plugin"]),
            version,
            plugin,
            is_sdk: false,
        };
        let ours = Pair {
            name: format!("{name} with the SDK's"),
            host,
            version,
            plugin: env!("CARGO_BIN_EXE_plugin").into(),
            is_sdk: true,
        };
        vec![theirs, ours]
    };
    versions.into_iter().flat_map(of_version).collect()
}

impl Pair {
    fn flags<'a>(mut self, flags: impl IntoIterator<Item = &'a str>) -> Self {
        self.host = self.host.flags(flags);
        self
    }

    fn arguments<'a>(mut self, arguments: impl IntoIterator<Item = &'a str>) -> Self {
        self.host = self.host.arguments(arguments);
        self
    }

    async fn run(&self, calls: &str) -> Seen {
        let seen = self.host.run(calls, &self.plugin).await;
        seen.unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }

    /// Does `calls`, and waits before it does `rest`.
    async fn pause(&self, calls: &str, rest: &str) -> Paused {
        let calls = format!("{calls},pause,{rest}");
        Paused::start(self.host.command(&calls, &self.plugin), &calls).await
    }
}

/// A host that waits.
struct Paused {
    seen: Vec<String>,
    process: Child,
    input: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Paused {
    async fn start(mut command: tokio::process::Command, calls: &str) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let input = process.stdin.take().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let before = calls.split(',').take_while(|call| *call != "pause").count();
        let mut seen = Vec::new();
        // What it says of the start, and of each call before the pause.
        while seen.len() < 1 + before {
            let line = within(lines.next_line()).await.unwrap();
            seen.push(line.unwrap_or_else(|| panic!("it ended: {seen:?}")));
        }
        Self {
            seen,
            process,
            input,
            lines,
        }
    }

    /// What it has seen until now.
    fn seen(&self) -> Seen {
        Seen::parse(&self.seen.join("\n"))
    }

    /// Where the plugin listens.
    fn address(&self) -> String {
        self.seen().step("start")["address"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    fn pid(&self) -> u32 {
        let seen = self.seen();
        let pid = seen.step("start")["pid"].as_u64();
        pid.unwrap().try_into().unwrap()
    }

    /// As JSON that other hosts attach by.
    fn attach(&self, test: bool) -> Value {
        let start = self.seen().step("start").clone();
        serde_json::json!({
            "Protocol": "grpc", "ProtocolVersion": 1, "Pid": start["pid"], "Test": test,
            "Addr": {"Network": start["network"], "String": start["address"]},
        })
    }

    /// Lets it go on, to its end; all that it saw.
    async fn go_on(mut self) -> io::Result<Seen> {
        drop(self.input);
        while let Some(line) = within(self.lines.next_line()).await? {
            self.seen.push(line);
        }
        within(self.process.wait()).await?;
        Ok(Seen::parse(&self.seen.join("\n")))
    }
}
