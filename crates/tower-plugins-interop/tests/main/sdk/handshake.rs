//! The first line, and what it depends on.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Stdio;

use tokio::process::Command;
use tower_plugins_interop::peer::Empty;
use tower_plugins_proto::go_plugin::env;
use tower_plugins_proto::go_plugin::grpc::Empty as Nothing;
use tower_plugins_proto::go_plugin::grpc::grpc_controller_client::GrpcControllerClient;
use tower_plugins_proto::go_plugin::tls::Identity;

use super::{PLUGIN, Running, command, within};

#[tokio::test]
async fn the_line_has_six_fields_and_a_seventh_for_who_can_read_it() {
    let directory = tempfile::tempdir().unwrap();
    let start = |variables: Vec<(&'static str, String)>| {
        let mut command = command(directory.path());
        command.envs(variables);
        Running::start(command)
    };
    let plain = start(vec![]).await;
    let path = plain.address().to_string();
    assert_eq!(plain.said, format!("1|1|unix|{path}|grpc|\n"));

    let multiplexed = (env::MULTIPLEX_GRPC, "true".to_owned());
    let said = start(vec![multiplexed.clone()]).await.said;
    assert!(said.ends_with("|grpc||true\n"), "{said}");

    let host = Identity::generate().unwrap().certificate().to_pem();
    let certified = (env::CLIENT_CERT, host);
    let said = start(vec![certified.clone()]).await.said;
    let certificate = said.trim_end().rsplit('|').next().unwrap();
    assert!(
        certificate.len() > 50 && !certificate.contains('='),
        "{said}"
    );
    assert_eq!(said.matches('|').count(), 5);

    let both = start(vec![multiplexed, certified]).await;
    assert_eq!(both.line().multiplexing(), Some(true));
    assert!(both.line().certificate().is_some());
}

#[tokio::test]
async fn the_highest_version_that_both_have_is_served_or_else_the_lowest() {
    let directory = tempfile::tempdir().unwrap();
    for (offered, version) in [
        (Some("7,5,6"), 6),
        (Some("5"), 5),
        (Some("x,5,"), 5),
        (Some("9,10"), 4),
        (Some(""), 4),
        (None, 4),
    ] {
        let mut command = command(directory.path());
        command.arg("-versions=4,6,5");
        command.envs(offered.map(|offered| (env::PROTOCOL_VERSIONS, offered)));
        let plugin = Running::start(command).await;
        assert_eq!(plugin.line().version(), version, "{offered:?}");
        let described = plugin.peer().await.describe(Empty {}).await.unwrap();
        assert_eq!(described.into_inner().version, version as i32);
    }
}

#[tokio::test]
async fn its_socket_is_where_the_host_says_and_for_whom_and_gone_with_it() {
    let directory = tempfile::tempdir().unwrap();
    let group = std::fs::metadata(directory.path()).unwrap().gid();
    let mut command = command(directory.path());
    command.env(env::UNIX_SOCKET_GROUP, group.to_string());
    let plugin = Running::start(command).await;
    let address = plugin.address();
    let path = address.path().unwrap();
    assert_eq!(path.parent(), Some(directory.path()));
    let socket = std::fs::metadata(path).unwrap();
    assert_eq!(
        (socket.gid(), socket.permissions().mode() & 0o777),
        (group, 0o660)
    );
    let mut controller = GrpcControllerClient::new(plugin.channel().await);
    within(controller.shutdown(Nothing {})).await.unwrap();
    assert_eq!(plugin.ended().await.0, Some(0));
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn started_by_hand_it_says_what_to_do_and_fails() {
    let run = |arguments: &'static [&str], cookie: Option<&'static str>| async move {
        let mut command = Command::new(PLUGIN);
        command.args(arguments).stdin(Stdio::null());
        command.envs(cookie.map(|cookie| ("TOWER_PLUGINS_COOKIE", cookie)));
        let output = within(command.output()).await.unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (
            output.status.code(),
            text(output.stdout),
            text(output.stderr),
        )
    };
    for cookie in [None, Some("of another")] {
        let (code, out, err) = run(&[], cookie).await;
        assert_eq!((code, &*out), (Some(1), ""));
        assert!(err.contains("--listen http://127.0.0.1:8080"), "{err}");
    }
    let (code, out, err) = run(&["--help"], None).await;
    assert_eq!((code, &*err), (Some(0), ""));
    assert!(out.contains("unix:/run/plugin.sock"), "{out}");
    let (code, _, err) = run(&["--listen", "8080"], None).await;
    assert_eq!(code, Some(1));
    assert!(
        err.contains("http://host:port") && err.contains("--help"),
        "{err}"
    );
}

#[tokio::test]
async fn what_a_host_says_wrong_is_an_error_and_no_line() {
    let directory = tempfile::tempdir().unwrap();
    let no_text = OsStr::from_bytes(b"\xff");
    for (name, value) in [
        (env::CLIENT_CERT, OsStr::new("no certificate")),
        (env::CLIENT_CERT, no_text),
        (env::UNIX_SOCKET_DIR, OsStr::new("/nowhere/at/all")),
        (env::UNIX_SOCKET_GROUP, OsStr::new("no such group")),
    ] {
        let mut command = command(directory.path());
        command.env(name, value);
        let plugin = Running::start(command).await;
        assert_eq!(plugin.said, "");
        let (code, log) = plugin.ended().await;
        assert_eq!(code, Some(1), "{name}");
        let value = value.to_string_lossy();
        assert!(log.contains(&*value) || log.contains(name), "{log}");
    }
}
