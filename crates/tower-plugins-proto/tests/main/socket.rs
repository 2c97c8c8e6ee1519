//! The sockets of go-plugin: where they are, who may connect, and that they go.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use tower_plugins_proto::go_plugin::Address;
use tower_plugins_proto::go_plugin::socket::{Listen, ListenError, Listener, Socket};

/// What a test waits for an event at most.
const BOUND: Duration = Duration::from_secs(30);

fn path(listener: &Listener) -> &Path {
    listener.address().path().unwrap()
}

fn files(directory: &Path) -> usize {
    fs::read_dir(directory).unwrap().count()
}

/// One byte goes over.
async fn reaches(listener: &Listener) {
    let connected = async {
        let mut near = Socket::connect(listener.address()).await.unwrap();
        near.write_u8(7).await.unwrap();
        near
    };
    let both = async { tokio::join!(connected, listener.accept()) };
    let (_near, mut far) = timeout(BOUND, both).await.unwrap();
    assert_eq!(far.read_u8().await.unwrap(), 7);
}

#[tokio::test]
async fn a_socket_is_its_owners_alone_and_goes_with_its_listener() {
    let directory = tempfile::tempdir().unwrap();
    let listener = Listen::unix().directory(directory.path()).bind().unwrap();
    assert_eq!(path(&listener).parent().unwrap(), directory.path());
    let mode = path(&listener).metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    reaches(&listener).await;

    // What it was made in is gone.
    assert_eq!(files(directory.path()), 1);
    drop(listener);
    assert_eq!(files(directory.path()), 0);
}

#[tokio::test]
async fn a_socket_can_be_shared_with_a_group() {
    let directory = tempfile::tempdir().unwrap();
    let group = fs::metadata(directory.path()).unwrap().gid();
    let listen = Listen::unix().directory(directory.path());
    let listener = listen.clone().group(group.to_string()).bind().unwrap();
    let metadata = path(&listener).metadata().unwrap();
    assert_eq!((metadata.mode() & 0o777, metadata.gid()), (0o660, group));
    reaches(&listener).await;
    drop(listener);

    let error = listen.group("no such group").bind().unwrap_err();
    assert!(matches!(error, ListenError::Group { .. }), "{error}");
    assert_eq!(files(directory.path()), 0);
}

#[tokio::test]
async fn a_path_that_is_too_long_is_refused_with_its_length() {
    let directory = tempfile::tempdir().unwrap();
    let long = directory.path().join("d".repeat(100));
    fs::create_dir(&long).unwrap();
    let error = Listen::unix().directory(&long).bind().unwrap_err();
    let ListenError::TooLong { length, limit, .. } = error else {
        panic!("{error}");
    };
    assert!(length > 100 && limit < length && limit > 100);
    assert_eq!(files(&long), 0);

    let missing = directory.path().join("missing");
    let error = Listen::unix().directory(missing).bind().unwrap_err();
    assert!(matches!(error, ListenError::Unix { .. }), "{error}");
}

#[tokio::test]
async fn on_tcp_it_is_the_first_port_that_is_free() {
    let any = Listen::tcp(0..=0).bind().unwrap();
    reaches(&any).await;
    let Address::Tcp(address) = any.address() else {
        panic!("{any:?}");
    };
    assert!(address.ip().is_loopback());
    let taken = address.port();
    let error = Listen::tcp(taken..=taken).bind().unwrap_err();
    assert!(matches!(error, ListenError::Tcp { .. }), "{error}");
    let next = Listen::tcp(taken..=u16::MAX).bind().unwrap();
    assert_ne!(next.address(), any.address());
    let (low, high) = (taken, taken + 1);
    assert!(Listen::tcp(high..=low).bind().is_err());
}

#[tokio::test]
async fn who_cannot_connect_hears_to_what() {
    let directory = tempfile::tempdir().unwrap();
    let listener = Listen::unix().directory(directory.path()).bind().unwrap();
    let address = listener.address().clone();
    drop(listener);
    let error = Socket::connect(&address).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
    assert!(error.to_string().contains(&address.to_string()), "{error}");
}
