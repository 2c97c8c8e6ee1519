//! Plugins with a terminal of their own.

#![cfg(target_os = "linux")]

use std::fmt::Debug;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tower_plugins::Plugins;
use tower_plugins::transport::subprocess::Terminal;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Dispatch, Event, Metadata, Subscriber};

use super::fake::{Fake, called};
use crate::support::{config, within};

/// `p`, with what takes its terminals.
pub(crate) async fn start(keys: &str, take: impl Fn(Terminal) + Send + Sync + 'static) -> Plugins {
    let yaml = format!("plugins: {{ p: {{ {keys} }} }}");
    let plugins = Plugins::builder().terminal("p", take);
    plugins.start(config(&yaml)).await.unwrap()
}

/// The keys of a plugin on a terminal that runs `script`.
fn keys(fake: &Fake, script: &str, process: &str) -> String {
    format!(
        "{}, go_plugin: {{ auto_mtls: false }}, process: {{ stdin: terminal, {process} }}",
        fake.keys(script)
    )
}

/// A plugin that runs `script`, and its terminals.
async fn started(
    fake: &Fake,
    script: &str,
    process: &str,
) -> (Plugins, mpsc::UnboundedReceiver<Terminal>) {
    let (taken, terminals) = mpsc::unbounded_channel();
    let take = move |terminal| {
        let _ = taken.send(terminal);
    };
    let plugins = start(&keys(fake, script, process), take).await;
    (plugins, terminals)
}

/// What is shown up to `end`, and that.
async fn until(mut terminal: &Terminal, end: &str) -> String {
    let mut shown = Vec::new();
    let read = async {
        while !shown.ends_with(end.as_bytes()) {
            let read = terminal.read_u8().await;
            let text = String::from_utf8_lossy(&shown);
            shown.push(read.unwrap_or_else(|error| panic!("{error} after {text:?}")));
        }
    };
    within(read).await;
    String::from_utf8(shown).unwrap()
}

async fn rest(mut terminal: &Terminal) -> Vec<u8> {
    let mut rest = Vec::new();
    within(terminal.read_to_end(&mut rest)).await.unwrap();
    rest
}

/// A script that asks before it says where it is.
const ASKS: &str = r#"
tty; cut -d" " -f1,5,6,8 "/proc/$$/stat"; stty size; stty -echo
printf "Password: " >/dev/tty
read word </dev/tty
stty echo; echo "it was $word" >/dev/tty
exec >&3; say; stay
"#;

async fn asks(process: &str) -> String {
    let fake = Fake::new();
    let script = format!("exec 3>&1 >/dev/tty; {ASKS}");
    let (plugins, mut terminals) = started(&fake, &script, process).await;
    let asked = tokio::spawn({
        let plugins = plugins.clone();
        async move { called(&plugins).await }
    });
    let mut terminal = within(terminals.recv()).await.unwrap();
    assert!(terminal.endpoint().starts_with("subprocess:/bin/sh"));
    assert_eq!(terminal.size().unwrap(), (24, 80));
    let shown = until(&terminal, "Password: ").await;
    terminal.write_all(b"a secret\n").await.unwrap();
    assert_eq!(
        until(&terminal, "a secret\r\n").await,
        "it was a secret\r\n"
    );
    assert_eq!(within(asked).await.unwrap().unwrap(), "/hello");
    within(plugins.shutdown(Duration::from_secs(30)))
        .await
        .unwrap();
    assert_eq!(rest(&terminal).await, b"");
    let late = terminal.write_all(b"late").await.unwrap_err();
    assert_eq!(late.kind(), std::io::ErrorKind::BrokenPipe);
    shown
}

#[tokio::test]
async fn a_plugin_asks_on_its_terminal_and_is_answered() {
    let shown = asks("").await;
    let mut lines = shown.lines();
    assert!(lines.next().unwrap().starts_with("/dev/pts/"), "{shown}");
    // Its own id, group, session, and the group in the foreground of its terminal.
    let ids: Vec<_> = lines.next().unwrap().split(' ').collect();
    assert_eq!(ids, [ids[0]; 4], "{shown}");
    assert_eq!(lines.next(), Some("24 80"), "{shown}");
}

#[tokio::test]
async fn one_in_a_namespace_of_its_own_does_too() {
    if super::namespaces() {
        let shown = asks("pid_namespace: true, stop_timeout: 100ms").await;
        assert!(shown.starts_with("/dev/pts/"), "{shown}");
    }
}

#[tokio::test]
async fn each_byte_arrives_and_the_end_comes_after_the_last() {
    let fake = Fake::new();
    // In the end nobody has the terminal open but by its name.
    let script = r#"stty raw -echo; exec 0</dev/null
        head -c 1000000 /dev/urandom >"$0.bytes"; say; cat "$0.bytes" >/dev/tty"#;
    let (plugins, mut terminals) = started(&fake, script, "restart: never").await;
    let asked = plugins.clone();
    tokio::spawn(async move { called(&asked).await });
    let terminal = within(terminals.recv()).await.unwrap();
    let shown = rest(&terminal).await;
    let written = std::fs::read(fake.folder().join("environment.bytes")).unwrap();
    assert_eq!(written.len(), 1_000_000);
    assert!(shown == written, "{} bytes arrived", shown.len());
}

#[tokio::test]
async fn a_new_size_is_told_to_the_plugin() {
    let fake = Fake::new();
    let script = r#"trap "stty size >/dev/tty" WINCH; echo ready >/dev/tty; say
        while :; do sleep 3600 & wait; done"#;
    let (plugins, mut terminals) = started(&fake, script, "").await;
    within(called(&plugins)).await.unwrap();
    let terminal = within(terminals.recv()).await.unwrap();
    until(&terminal, "ready\r\n").await;
    terminal.resize(50, 132).unwrap();
    assert_eq!(terminal.size().unwrap(), (50, 132));
    assert_eq!(until(&terminal, "\r\n").await, "50 132\r\n");
}

#[tokio::test]
async fn what_a_plugin_started_on_its_terminal_ends_with_it() {
    let fake = Fake::new();
    let script = r#"(trap "" HUP TERM; exec sleep 3600) & echo "$!" >/dev/tty; say; stay"#;
    let (plugins, mut terminals) = started(&fake, script, "").await;
    within(called(&plugins)).await.unwrap();
    let terminal = within(terminals.recv()).await.unwrap();
    let sleeper = until(&terminal, "\r\n").await.trim().parse().unwrap();
    within(plugins.shutdown(Duration::from_secs(30)))
        .await
        .unwrap();
    super::until_gone(sleeper).await;
    assert_eq!(rest(&terminal).await, b"");
}

/// Keeps each text of an event about what a process wrote.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Visit for &Log {
    fn record_str(&mut self, _: &Field, value: &str) {
        self.0.lock().unwrap().push(value.to_owned());
    }

    fn record_debug(&mut self, _: &Field, value: &dyn Debug) {
        self.0.lock().unwrap().push(format!("{value:?}"));
    }
}

impl Subscriber for Log {
    fn enabled(&self, of: &Metadata<'_>) -> bool {
        of.target() == "tower_plugins::process"
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        event.record(&mut &*self);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// A script that writes more to its terminal than the kernel holds, and then says where it is.
const FLOOD: &str = r#"head -c 300000 /dev/zero | tr "\0" x >/dev/tty; echo >/dev/tty; echo the last line >/dev/tty; say; stay"#;

#[tokio::test]
async fn what_nobody_reads_of_a_terminal_is_logged_and_holds_up_nothing() {
    let log = Log::default();
    // With only one subscriber alive, a test on another thread, which has none, would switch events off for all.
    let _another = Dispatch::new(Log::default());
    let _listening = tracing::subscriber::set_default(log.clone());
    let drops: [fn(Terminal); 2] = [drop, |_| panic!("not taken")];
    for take in [None, Some(drops[0]), Some(drops[1])] {
        log.0.lock().unwrap().clear();
        let fake = Fake::new();
        let keys = keys(&fake, FLOOD, "");
        let plugins = match take {
            None => super::fake::start(&keys).await,
            Some(take) => start(&keys, take).await,
        };
        within(called(&plugins)).await.unwrap();
        within(plugins.shutdown(Duration::from_secs(30)))
            .await
            .unwrap();
        let heard = log.0.lock().unwrap();
        assert!(
            heard.iter().any(|text| text == "the last line"),
            "{heard:?}"
        );
        let flood: usize = heard.iter().map(|text| text.matches('x').count()).sum();
        assert!(flood >= 300_000, "{flood}");
    }
}

#[test]
fn restarts_leave_no_descriptor_of_a_terminal() {
    let name = "subprocess::terminal::restarts_leave_no_descriptor_of_a_terminal";
    crate::alone::alone(name, || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let fake = Fake::new();
            let script = r#"echo "$$" >/dev/tty; stay"#;
            let (plugins, mut terminals) = started(&fake, script, "max_restarts: 100").await;
            let asked = plugins.clone();
            tokio::spawn(async move { called(&asked).await });
            let mut first = None;
            for _ in 0..5 {
                let terminal = within(terminals.recv()).await.unwrap();
                let pid = until(&terminal, "\r\n").await.trim().parse().unwrap();
                let open = crate::alone::Held::now().descriptors;
                assert!(
                    open <= *first.get_or_insert(open) + 2,
                    "{open} of {first:?}"
                );
                let theirs = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
                let is_ours = |path: &Path| path.to_string_lossy().contains("ptmx");
                let mut theirs = theirs.filter_map(|fd| fd.unwrap().path().read_link().ok());
                assert!(
                    !theirs.any(|path| is_ours(&path)),
                    "a child has the end of its host"
                );
                super::signal(pid, "-KILL");
                assert_eq!(rest(&terminal).await, b"");
            }
        });
    });
}
