//! A server that others have written: nginx, with TLS and with client certificates.

use std::fs;
use std::net::TcpListener;
use std::process::Stdio;

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tower_plugins::config::{Address, FileContents, Protocol};
use tower_plugins_layers::Reason;

use super::server::Ca;
use super::{BOTH, http};
use crate::support::skipped;
use crate::transport::server::{get, read, within};
use tower_plugins::transport::Transport;

/// It runs as long as this lives.
struct Nginx {
    address: Address,
    _child: Child,
    _directory: TempDir,
}

impl Nginx {
    /// With a certificate of `ca` for `localhost`; `None` if it is not installed.
    async fn start(ca: &Ca, verify_client: &str) -> Option<Self> {
        if Command::new("nginx").arg("-v").output().await.is_err() {
            skipped("nginx");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let put = |name: &str, contents: &FileContents| {
            fs::write(directory.path().join(name), contents.expose()).unwrap();
        };
        let shows = ca.certify(&["localhost"]).identity();
        put("ca.pem", &ca.file());
        put("server.pem", &shows.cert);
        put("server.key", &shows.key);
        // Nobody tells which port it took, so one that is free now is tried, and another if it was taken since.
        within(async {
            loop {
                let port = TcpListener::bind("127.0.0.1:0").unwrap();
                let port = port.local_addr().unwrap().port();
                let config = config(port, verify_client);
                fs::write(directory.path().join("nginx.conf"), config).unwrap();
                if let Some(child) = run(&directory, port).await {
                    return Some(Self {
                        address: Address::https(&format!("https://localhost:{port}")).unwrap(),
                        _child: child,
                        _directory: directory,
                    });
                }
            }
        })
        .await
    }
}

fn config(port: u16, verify_client: &str) -> String {
    format!(
        "master_process off; daemon off; pid nginx.pid; error_log stderr notice;
         events {{ worker_connections 64; }}
         http {{
             access_log off;
             client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
             uwsgi_temp_path uwsgi; scgi_temp_path scgi;
             server {{
                 listen 127.0.0.1:{port} ssl http2;
                 ssl_certificate server.pem; ssl_certificate_key server.key;
                 ssl_client_certificate ca.pem; ssl_verify_client {verify_client};
                 add_header x-client $ssl_client_verify always;
                 add_header x-protocol $server_protocol always;
                 return 200 'hello from nginx';
             }}
         }}"
    )
}

/// It says that it starts before it listens, so that the connection is what is waited for.
async fn run(directory: &TempDir, port: u16) -> Option<Child> {
    let mut child = Command::new("nginx")
        .args(["-e", "stderr", "-p"])
        .arg(directory.path())
        .args(["-c", "nginx.conf"])
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let said = child.stderr.take()?;
    let mut lines = BufReader::new(said).lines();
    while let Some(line) = lines.next_line().await.unwrap() {
        let taken = line.contains("Address already in use");
        assert!(taken || !line.contains("[emerg]"), "{line}");
        if taken {
            return None;
        }
        if TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
            // Nobody else reads what it says, and it must not wait for that.
            tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
            return Some(child);
        }
    }
    None
}

#[tokio::test(flavor = "multi_thread")]
async fn nginx_is_reached_over_tls_by_both_protocols() {
    let ca = Ca::new();
    let Some(nginx) = Nginx::start(&ca, "off").await else {
        return;
    };
    for (protocol, name) in BOTH.into_iter().zip(["HTTP/1.1", "HTTP/2.0"]) {
        let http = http(&nginx.address, protocol, &ca.trusted());
        let response = within(http.call(get("/"))).await.unwrap();
        assert_eq!(response.headers()["x-protocol"], name);
        assert_eq!(read(response).await, "hello from nginx");
    }
    let other = http(&nginx.address, Protocol::Http1, &Ca::new().trusted());
    let error = within(other.call(get("/"))).await.unwrap_err();
    assert_eq!(Reason::of(&*error), Some(Reason::ConnectFailed));
}

#[tokio::test(flavor = "multi_thread")]
async fn nginx_takes_the_client_certificate_and_misses_it() {
    let ca = Ca::new();
    let Some(nginx) = Nginx::start(&ca, "on").await else {
        return;
    };
    for protocol in BOTH {
        let mut tls = ca.trusted();
        let without = http(&nginx.address, protocol, &tls);
        // It ends the handshake well, and answers so.
        let response = within(without.call(get("/"))).await.unwrap();
        assert_eq!(
            (response.status(), &response.headers()["x-client"]),
            (
                http::StatusCode::BAD_REQUEST,
                &http::HeaderValue::from_static("NONE")
            )
        );
        tls.identity = Some(ca.certify(&["me"]).identity());
        let http = http(&nginx.address, protocol, &tls);
        let response = within(http.call(get("/"))).await.unwrap();
        assert_eq!(response.headers()["x-client"], "SUCCESS");
        assert_eq!(read(response).await, "hello from nginx");
    }
}
