//! A peer in Go, which writes and reads lines as go-plugins does.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tower_plugins::Plugins;
use tower_plugins::call::{Codec, Envelope, Json, Method};
use tower_plugins_proto::line;

use super::Peer;
use crate::support::{config, get, text, within};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Text {
    text: String,
}

/// The peer as a program; `None` where there is no Go.
async fn built(directory: &Path) -> Option<PathBuf> {
    let program = directory.join("peer");
    let source = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/main/transport/unix_json/peer.go"
    );
    let build = Command::new("go")
        .args(["build", "-o"])
        .args([&*program, Path::new(source)])
        .output();
    match tokio::time::timeout(Duration::from_secs(300), build).await {
        Ok(Ok(output)) if output.status.success() => Some(program),
        Ok(Ok(output)) => panic!("{}", String::from_utf8_lossy(&output.stderr)),
        Err(_) => panic!("go is not done after five minutes"),
        Ok(Err(_)) => {
            let required = std::env::var_os("TOWER_PLUGINS_REQUIRE_PEERS");
            assert!(required.is_none_or(|is| is != "1"), "there is no go here");
            eprintln!("skipped: no go here");
            None
        }
    }
}

async fn serve(program: &Path, socket: &Path) -> Child {
    let mut child = Command::new(program)
        .args([Path::new("serve"), socket])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let ready = within(lines.next_line()).await.unwrap();
    assert_eq!(ready.as_deref(), Some("ready"));
    child
}

/// Makes the same calls by methods with this codec; what failed is told by its status, if it has one.
async fn call_with<C: Codec<Text, Text> + Sync>(plugins: &Plugins, codec: C, status: Option<u16>) {
    let plugin = plugins.plugin("p");
    let shout = Method::with_codec(http::Method::POST, "/", codec);
    // What Go escapes, and what it does not.
    for text in ["a < b & c > d", "\u{2028} \u{1f980} \"\\\n\t\u{0}", "x"] {
        let ask = Text { text: text.into() };
        let answer = plugin.invoke(&shout, &ask).header("x-tenant", "seven");
        assert_eq!(
            within(answer.into_future()).await.unwrap().text,
            text.to_uppercase()
        );
    }
    let ask = Text {
        text: String::new(),
    };
    let error = within(plugin.invoke(&shout, &ask).into_future())
        .await
        .unwrap_err();
    assert!(error.is_answer());
    assert_eq!(
        error.answered_status().map(|status| status.as_u16()),
        status
    );
    let causes = crate::support::causes(&error);
    assert!(causes.contains("there is no <text>"), "{causes}");
}

#[tokio::test]
async fn a_plugin_in_go_is_called_and_a_host_in_go_calls() {
    let directory = tempfile::tempdir().unwrap();
    let Some(program) = built(directory.path()).await else {
        return;
    };
    let socket = directory.path().join("plugin.sock");
    let _plugin = serve(&program, &socket).await;
    let yaml = format!(
        "plugins: {{ p: {{ transport: unix-json, endpoint: {} }} }}",
        socket.display()
    );
    let plugins = Plugins::builder().start(config(&yaml)).await.unwrap();
    call_with(&plugins, Json, Some(422)).await;
    call_with(&plugins, Envelope, None).await;
    for word in ["health", "info", "ping"] {
        let answer = text(&plugins.plugin("p"), get(&format!("/{word}"))).await;
        let expected = format!(r#"{{"name":"peer","type":"{word}"}}"#);
        assert_eq!(answer.unwrap(), expected);
    }

    // The other way round: the plugin is written with the types of the wire.
    let peer = Peer::start();
    let host = Command::new(&program)
        .args([Path::new("call"), &peer.path, Path::new("20")])
        .kill_on_drop(true)
        .output();
    let serve = async {
        let mut talk = peer.accept().await;
        while let Some(asked) = within(talk.next()).await {
            let asked: line::Request<'_, Text> = serde_json::from_str(&asked).unwrap();
            assert_eq!(
                (asked.kind, asked.timeout_ms),
                (line::Kind::Execute, Some(5_000))
            );
            let answer = match &*asked.data.text {
                "<7>" => line::Response::failure(&asked, "not seven"),
                text => line::Response::success(
                    &asked,
                    Text {
                        text: text.repeat(2),
                    },
                ),
            };
            talk.say(&(serde_json::to_string(&answer).unwrap() + "\n"))
                .await;
        }
    };
    let (output, ()) = tokio::join!(within(host), serve);
    let said = String::from_utf8(output.unwrap().stdout).unwrap();
    let said: Vec<_> = said.lines().collect();
    assert_eq!(said.len(), 20);
    assert_eq!(said[6], r#"req_6 true {"text":"<6><6>"}"#);
    assert_eq!(said[7], "req_7 false not seven");
}
