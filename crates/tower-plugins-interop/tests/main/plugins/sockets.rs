//! Where a plugin listens, and who may connect.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tower_plugins_interop::Version;

use super::pairs;
use crate::support::within;

#[tokio::test]
async fn a_socket_is_given_to_the_group_that_the_host_names() {
    // Who may give it to another group than its own.
    let group = std::fs::metadata("/proc/self").unwrap().gid();
    for pair in pairs([Version::V1_6_3, Version::V1_8_0]) {
        let pair = pair.flags(["-socket-group", &group.to_string()]);
        let paused = pair.pause("double", "broker=2,kill").await;
        let socket = std::fs::metadata(paused.address()).unwrap();
        assert_eq!(socket.gid(), group, "{}", pair.name);
        assert_eq!(socket.permissions().mode() & 0o777, 0o660, "{}", pair.name);
        let seen = paused.go_on().await.unwrap();
        assert_eq!(seen.failure(), None, "{}", pair.name);
    }
}

#[tokio::test]
async fn who_connects_and_says_nothing_disturbs_nobody() {
    for pair in pairs(Version::ALL) {
        let paused = pair.pause("double", "double,kill").await;
        for _ in 0..10 {
            drop(UnixStream::connect(paused.address()).await.unwrap());
        }
        let seen = paused.go_on().await.unwrap();
        assert_eq!(seen.failure(), None, "{}", pair.name);
    }
}

#[tokio::test]
async fn who_has_not_the_hosts_certificate_gets_no_answer() {
    for pair in pairs(Version::ALL) {
        let pair = pair.flags(["-automtls"]);
        let paused = pair.pause("double", "double,kill").await;
        let mut stranger = UnixStream::connect(paused.address()).await.unwrap();
        // What a client of HTTP/2 begins with, without TLS.
        stranger
            .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
            .await
            .unwrap();
        let mut heard = Vec::new();
        // It is closed, after an alert of TLS at most.
        let _ = within(stranger.read_to_end(&mut heard)).await;
        assert!(heard.len() < 64, "{}: {heard:?}", pair.name);
        let seen = paused.go_on().await.unwrap();
        assert_eq!(seen.failure(), None, "{}", pair.name);
    }
}
