//! What a plugin of go-plugin may say first, and must not.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use tower_plugins::Reason;
use tower_plugins::transport::subprocess::Exited;

use super::fake::{Fake, called, start};
use crate::support::{causes, within};

const PLAIN: &str = "go_plugin: { auto_mtls: false }, process: { max_restarts: 1 }";

/// What a call fails with, of a plugin that runs `script`.
async fn refused(script: &str, keys: &str) -> String {
    let fake = Fake::new();
    let plugins = start(&format!("{}, {keys}", fake.keys(script))).await;
    let error = within(called(&plugins)).await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::ConnectFailed));
    assert!(Exited::find(&error).is_some(), "{}", causes(&error));
    causes(&error)
}

#[tokio::test]
async fn each_kind_of_first_line_that_is_none_says_what_it_is_and_what_to_do() {
    for (line, said) in [
        ("", "is blank"),
        ("starting up ...", r#"is "starting up ...""#),
        ("1|1|udp|127.0.0.1:1|grpc|", r#"the network is "udp""#),
        ("1|1|tcp|somewhere|grpc|", "must be ip:port"),
        ("2|1|unix|/x|grpc|", "core protocol"),
        ("1|one|unix|/x|grpc|", "must be a whole number"),
        ("1|1|unix|/x|netrpc|", "implement GRPCPlugin"),
        ("1|1|unix|/x", "no fifth field"),
        ("1|1|unix|/x|http|", r#"must be "grpc""#),
        ("1|7|unix|/x|grpc|", "it speaks version 7"),
        ("1|1|unix|/nowhere/at-all|grpc|", "/nowhere/at-all: "),
    ] {
        let text = refused(&format!("echo '{line}'; stay"), PLAIN).await;
        assert!(text.contains(said), "{line}: {text}");
    }
}

#[tokio::test]
async fn a_line_that_is_no_handshake_comes_with_what_the_file_is() {
    let text = refused("echo hello; stay", PLAIN).await;
    assert!(
        text.contains("/bin/sh has mode 0755 and owner 0:0, is a program for"),
        "{text}"
    );
}

#[tokio::test]
async fn a_line_without_an_end_is_given_up() {
    let text = refused("head -c 100000 /dev/zero | tr '\\0' x; stay", PLAIN).await;
    assert!(text.contains("a handshake has at most 65536"), "{text}");
}

#[tokio::test]
async fn a_program_that_ends_before_it_spoke_says_how_and_its_last_words() {
    let text = refused("echo no licence >&2; exit 3", PLAIN).await;
    for said in [
        "cookie_key and cookie_value",
        "exited with code 3",
        "no licence",
    ] {
        assert!(text.contains(said), "{text}");
    }
}

#[tokio::test]
async fn a_program_that_says_nothing_is_killed_when_its_time_is_over() {
    let keys = "go_plugin: { auto_mtls: false }, process: { start_timeout: 50ms, max_restarts: 1 }";
    let text = refused("echo wait for me >&2; stay", keys).await;
    for said in ["process.start_timeout, 50ms", "wait for me", "was killed"] {
        assert!(text.contains(said), "{text}");
    }
}

#[tokio::test]
async fn a_carriage_return_and_fields_of_later_versions_are_taken() {
    for suffix in ["\\r", "|false", "|true|later"] {
        let fake = Fake::new();
        let script = format!("printf '{}{suffix}\\n'; stay", fake.line());
        let plugins = start(&format!("{}, {PLAIN}", fake.keys(&script))).await;
        assert_eq!(within(called(&plugins)).await.unwrap(), "/hello");
    }
}

#[tokio::test]
async fn what_is_written_to_standard_output_later_holds_up_nothing() {
    let fake = Fake::new();
    let script = "say; head -c 4000000 /dev/zero; echo >\"$0.done\"; stay";
    let plugins = start(&format!("{}, {PLAIN}", fake.keys(script))).await;
    assert_eq!(within(called(&plugins)).await.unwrap(), "/hello");
    let done = fake.folder().join("environment.done");
    let written = async {
        while !done.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within(written).await;
}

#[tokio::test]
async fn a_plugin_without_a_certificate_is_not_spoken_to_in_plaintext() {
    let text = refused("say; stay", "process: { max_restarts: 1 }").await;
    assert!(text.contains("go_plugin.auto_mtls asks for one"), "{text}");
}

#[tokio::test]
async fn a_plugin_that_does_not_multiplex_is_refused_by_that() {
    let keys = "go_plugin: { auto_mtls: false, multiplex: true }, process: { max_restarts: 1 }";
    for line in ["1|1|unix|/x|grpc|", "1|1|unix|/x|grpc||false"] {
        let text = refused(&format!("echo '{line}'; stay"), keys).await;
        assert!(text.contains("go_plugin.multiplex asks for"), "{text}");
    }
}

#[tokio::test]
async fn a_file_that_cannot_be_run_is_described() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("plugin");
    let mut other = vec![0; 64];
    // For a machine that nobody has.
    other[..20].copy_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x07\0");
    std::fs::write(&file, &other).unwrap();
    for (mode, said) in [(0o644, "has mode 0644"), (0o755, "(ELF) on machine 7")] {
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        let keys = format!(
            "transport: subprocess, executable: '{}', retry: off, {PLAIN}",
            file.display()
        );
        let plugins = start(&keys).await;
        let error = within(called(&plugins)).await.unwrap_err();
        let text = causes(&error);
        assert!(text.contains(said), "{text}");
    }
}

/// Another start would end as the first did.
const FOR_EVER: &str = "go_plugin: { auto_mtls: false }, process: { max_restarts: 1000 },
    connection: { connection_timeout: 300s, request_timeout: 300s }";

#[tokio::test]
async fn nobody_waits_for_a_start_that_would_end_in_the_same_way() {
    for (line, said) in [
        ("1|1|unix|/x|netrpc|", "implement GRPCPlugin"),
        ("1|7|unix|/x|grpc|", "it speaks version 7"),
        ("2|1|unix|/x|grpc|", "core protocol"),
    ] {
        let text = refused(&format!("echo '{line}'; stay"), FOR_EVER).await;
        assert!(text.contains(said), "{line}: {text}");
    }
}

#[tokio::test]
async fn a_program_that_is_not_there_fails_calls_at_once_and_is_run_when_it_is() {
    let fake = Fake::new();
    let file = fake.folder().join("late");
    let keys = format!(
        "{}, {FOR_EVER}",
        fake.keys("say; stay").replace(
            "executable: /bin/sh",
            &format!("executable: '{}'", file.display())
        )
    );
    let plugins = start(&keys).await;
    let error = within(called(&plugins)).await.unwrap_err();
    assert!(error.retry_after().is_some());
    let text = causes(&error);
    assert!(text.contains("late cannot be run: No such file"), "{text}");
    std::os::unix::fs::symlink("/bin/sh", file).unwrap();
    let served = async {
        while called(&plugins).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    within(served).await;
}

#[tokio::test]
async fn no_shell_reads_a_file_that_the_kernel_does_not_know() {
    let folder = tempfile::tempdir().unwrap();
    let (file, ran) = (folder.path().join("plugin"), folder.path().join("ran"));
    std::fs::write(&file, format!("echo >'{}'\n", ran.display())).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
    for transport in ["subprocess", "exec-json"] {
        let keys = format!(
            "transport: {transport}, executable: '{}', retry: off, connection: {{ connection_timeout: 300s, request_timeout: 300s }}",
            file.display()
        );
        let plugins = start(&keys).await;
        let plugin = plugins.plugin("p");
        let call = crate::support::text(&plugin, crate::support::post("/", "1"));
        let text = causes(&within(call).await.unwrap_err());
        for said in ["cannot be run: Exec format error", "begins with #!"] {
            assert!(text.contains(said), "{text}");
        }
        assert!(!ran.exists());
    }
}

#[tokio::test]
async fn what_is_no_file_is_said_to_be_none_and_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    let zeros = "0".repeat(64);
    for checksum in ["", &format!(", process: {{ checksum: 'sha256:{zeros}' }}")] {
        let keys = format!(
            "transport: subprocess, executable: '{}', retry: off{checksum}",
            pipe.display()
        );
        let plugins = start(&keys).await;
        let text = causes(&within(called(&plugins)).await.unwrap_err());
        assert!(text.contains("not a file"), "{text}");
    }
}
