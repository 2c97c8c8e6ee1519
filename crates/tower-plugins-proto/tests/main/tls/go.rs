//! Go's TLS at the other end, with go-plugin's certificates and settings.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tower_plugins_proto::go_plugin::tls::{Identity, server_name};
use tower_plugins_proto::go_plugin::{Address, Certificate, HandshakeLine, env};

use super::identity;

/// What a test waits for an event at most.
const BOUND: Duration = Duration::from_secs(30);

/// What the program is called with, and what it then says of a connection.
const VERSIONS: [(&str, &str); 2] = [
    ("12", "TLS 1.2 h2 from rust"),
    ("13", "TLS 1.3 h2 from rust"),
];

async fn within<F: Future>(what: F) -> F::Output {
    timeout(BOUND, what).await.unwrap()
}

/// The peer as a program; `None` where there is no Go.
async fn built(directory: &Path) -> Option<PathBuf> {
    let program = directory.join("peer");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/main/tls/peer.go");
    let build = Command::new("go")
        .args(["build", "-o"])
        .args([&*program, Path::new(source)])
        .output();
    match timeout(Duration::from_secs(300), build).await.unwrap() {
        Ok(output) if output.status.success() => Some(program),
        Ok(output) => panic!("{}", String::from_utf8_lossy(&output.stderr)),
        Err(_) => {
            let required = std::env::var_os("TOWER_PLUGINS_REQUIRE_PEERS");
            assert!(required.is_none_or(|is| is != "1"), "there is no go here");
            eprintln!("skipped: no go here");
            None
        }
    }
}

struct Peer {
    _child: Child,
    input: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Peer {
    fn start(program: &Path, role: &str, version: &str, host: Option<&Certificate>) -> Self {
        let mut child = Command::new(program)
            .args([role, version])
            .env(
                env::CLIENT_CERT,
                host.map(Certificate::to_pem).unwrap_or_default(),
            )
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Self {
            input: child.stdin.take().unwrap(),
            lines: BufReader::new(child.stdout.take().unwrap()).lines(),
            _child: child,
        }
    }

    async fn line(&mut self) -> String {
        within(self.lines.next_line()).await.unwrap().unwrap()
    }
}

/// Connects to Go as `host`; what Go heard is in its next line.
async fn connect(host: &Identity, line: &HandshakeLine) -> std::io::Result<String> {
    let Address::Tcp(address) = line.address() else {
        panic!("not TCP: {line}");
    };
    let config = host.client_config(line.certificate().unwrap()).unwrap();
    let connector = TlsConnector::from(config);
    let stream = TcpStream::connect(address).await?;
    let mut stream = connector.connect(server_name(), stream).await?;
    stream.write_all(b"from rust\n").await?;
    let mut heard = vec![0; 6];
    stream.read_exact(&mut heard).await?;
    Ok(String::from_utf8(heard).unwrap())
}

#[tokio::test]
async fn a_plugin_in_go_takes_its_host_and_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let Some(program) = built(directory.path()).await else {
        return;
    };
    for (version, expected) in VERSIONS {
        let (host, other) = (identity(), identity());
        let mut peer = Peer::start(&program, "serve", version, Some(host.certificate()));
        let line = HandshakeLine::parse(&peer.line().await).unwrap();

        assert_eq!(within(connect(&host, &line)).await.unwrap(), "hello\n");
        assert_eq!(peer.line().await, expected);

        within(connect(&other, &line)).await.unwrap_err();
        let heard = peer.line().await;
        assert!(heard.starts_with("failed: "), "{heard}");

        let wrong = HandshakeLine::new(1, line.address().clone())
            .unwrap()
            .with_certificate(other.certificate().clone());
        let error = within(connect(&host, &wrong)).await.unwrap_err();
        assert!(super::is_not_the_one(&error), "{error:?}");
        assert!(peer.line().await.starts_with("failed: "));
    }
}

/// Accepts one connection of Go.
async fn accept(
    plugin: &Identity,
    host: &Certificate,
    listener: &TcpListener,
) -> std::io::Result<()> {
    let acceptor = TlsAcceptor::from(plugin.server_config(host).unwrap());
    let (stream, _) = listener.accept().await?;
    let mut stream = acceptor.accept(stream).await?;
    stream.write_all(b"from rust\n").await?;
    // Until Go is done.
    stream.read_to_end(&mut Vec::new()).await?;
    Ok(())
}

#[tokio::test]
async fn a_host_in_go_takes_its_plugin_and_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let Some(program) = built(directory.path()).await else {
        return;
    };
    for (version, expected) in VERSIONS {
        let (plugin, other) = (identity(), identity());
        let mut peer = Peer::start(&program, "dial", version, None);
        let mut pem = String::new();
        while !pem.contains("-----END") {
            pem += &(peer.line().await + "\n");
        }
        let host = Certificate::from_pem(&pem).unwrap();
        assert_eq!(host.to_pem(), pem);

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = Address::Tcp(listener.local_addr().unwrap());
        let line = HandshakeLine::new(1, address).unwrap();
        let mut dial = async |announced: &Identity, trusted: &Certificate| {
            let line = line
                .clone()
                .with_certificate(announced.certificate().clone());
            let line = format!("{line}\n");
            peer.input.write_all(line.as_bytes()).await.unwrap();
            let accepted = within(accept(&plugin, trusted, &listener)).await;
            (accepted, peer.line().await)
        };

        let (accepted, heard) = dial(&plugin, &host).await;
        assert_eq!(heard, expected);
        accepted.unwrap();

        let (accepted, heard) = dial(&other, &host).await;
        assert!(heard.starts_with("failed: "), "{heard}");
        accepted.unwrap_err();

        let (accepted, heard) = dial(&plugin, other.certificate()).await;
        assert!(heard.starts_with("failed: "), "{heard}");
        let error = accepted.unwrap_err();
        assert!(super::is_not_the_one(&error), "{error:?}");
    }
}
