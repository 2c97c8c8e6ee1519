//! Plugins that are processes of this program's.

#![cfg(unix)]

pub(crate) mod checksum;
mod ends;
pub(crate) mod fake;
mod go_plugin;
mod handshake;
pub(crate) mod host;
mod idle;
pub(crate) mod limits;
mod restarts;
pub(crate) mod terminal;
mod wire;

use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use tower_plugins::{Error, Plugin, Plugins};

use crate::support::{config, post, text, within};

/// What each program begins with: `serve(f)` answers each payload with what `f` makes of it.
const PRELUDE: &str = "
import json, os, signal, sys, time
def serve(f):
    for line in sys.stdin:
        asked = json.loads(line)
        print(json.dumps({'id': asked['id'], 'result': f(asked['payload'])}), flush=True)
";

/// A plugin that answers with its process id.
pub(crate) const PID: &str = "serve(lambda _: os.getpid())";

/// Where `name` is.
pub(crate) fn which(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap();
    let mut found = std::env::split_paths(&path).map(|folder| folder.join(name));
    found.find(|path| path.exists()).expect(name)
}

/// The interpreter itself: what stands in the path may be a script that looks for it.
pub(crate) fn interpreter() -> &'static str {
    static FOUND: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    FOUND.get_or_init(|| {
        let mut python = std::process::Command::new("python3");
        let output = python
            .args(["-c", "import sys; print(sys.executable)"])
            .output();
        String::from_utf8(output.unwrap().stdout)
            .unwrap()
            .trim()
            .to_owned()
    })
}

/// The arguments that have the interpreter run `code`.
pub(crate) fn args(code: &str) -> [String; 4] {
    let code = format!("{PRELUDE}{code}");
    ["-S", "-E", "-c", &code].map(str::to_owned)
}

/// Whether this process may make PID namespaces.
pub(crate) fn namespaces() -> bool {
    let mut unshare = std::process::Command::new("unshare");
    let made = unshare.args(["--pid", "--fork", "true"]).status();
    let may = made.is_ok_and(|status| status.success());
    if !may {
        crate::support::skipped("leave to make PID namespaces, or unshare,");
    }
    may
}

/// A file that is this Python program.
pub(crate) fn script_of(code: &str) -> String {
    format!("#!{} -S\n{PRELUDE}{code}\n", interpreter())
}

/// The keys of a plugin that is this Python program.
pub(crate) fn python(code: &str) -> String {
    let args = serde_json::to_string(&args(code)).unwrap();
    format!(
        "transport: exec-json, executable: '{}', args: {args}",
        interpreter()
    )
}

/// The plugin `p` that is this Python program, which is asked once a call.
pub(crate) async fn start(code: &str, keys: &str) -> Plugins {
    let keys = format!("{}, {keys}", python(code));
    let yaml = format!("plugins: {{ p: {{ retry: off, circuit_breaker: off, {keys} }} }}");
    Plugins::builder().start(config(&yaml)).await.unwrap()
}

/// Asks `p` with `payload`.
pub(crate) async fn ask(plugins: &Plugins, payload: &'static str) -> Result<Value, Error> {
    asked(&plugins.plugin("p"), payload).await
}

pub(crate) async fn asked(plugin: &Plugin, payload: &'static str) -> Result<Value, Error> {
    let answer = text(plugin, post("/", payload)).await?;
    Ok(serde_json::from_str(&answer).unwrap())
}

/// The id of the process that answers now.
pub(crate) async fn pid(plugins: &Plugins) -> u32 {
    let pid = ask(plugins, "null").await.unwrap();
    u32::try_from(pid.as_u64().unwrap()).unwrap()
}

pub(crate) fn signal(pid: u32, signal: &str) {
    let kill = std::process::Command::new("kill")
        .args([signal, &pid.to_string()])
        .status();
    assert!(kill.unwrap().success());
}

/// Whether there is a process `pid`, be it over.
pub(crate) fn is_there(pid: u32) -> bool {
    std::path::Path::new(&format!("/proc/{pid}")).exists()
}

/// Waits until nothing is left of the process `pid`.
pub(crate) async fn until_gone(pid: u32) {
    let gone = async {
        while is_there(pid) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within(gone).await;
}
