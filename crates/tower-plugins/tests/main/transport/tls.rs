//! HTTP over TLS: who is trusted, who is not, and what an error says about it.

mod closed;
pub(crate) mod expiry;
mod nginx;
mod rotation;
pub(crate) mod server;

use std::process::Command;
use std::time::Duration;

use http::Response;
use http_body_util::BodyExt;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::version;
use tokio::net::TcpListener;
use tower_plugins::Body;
use tower_plugins::config::{Address, Protocol, TlsSpec, TlsVersion};
use tower_plugins::transport::{Http, Transport};
use tower_plugins_layers::{Reason, Unsent};

use self::server::{Ca, Setup, TlsServer};
use super::server::{Server, Socket, chain, echo, get, post, read, spec, within};

const BOTH: [Protocol; 2] = [Protocol::Http1, Protocol::Http2];

fn http(address: &Address, protocol: Protocol, tls: &TlsSpec) -> Http {
    Http::with_tls(address, &spec(protocol), tls).unwrap()
}

/// What `server`, by the name `localhost`, answers to a small request.
async fn answer(server: &TlsServer, protocol: Protocol, tls: &TlsSpec) -> Response<Body> {
    let http = http(&server.at("localhost"), protocol, tls);
    within(http.call(post("/", "hello"))).await.unwrap()
}

/// Why a request to `address` came back: no connection, in the words that are returned.
async fn refusal(address: &Address, protocol: Protocol, tls: &TlsSpec) -> String {
    let http = http(address, protocol, tls);
    let error = within(http.call(post("/", "mine"))).await.unwrap_err();
    let text = chain(&error);
    assert_eq!(Reason::of(&*error), Some(Reason::ConnectFailed), "{text}");
    assert!(text.contains(&address.to_string()), "{text}");
    assert!(Unsent::<Body>::recover(error).is_ok(), "{text}");
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_over_tls_share_connections_and_bodies_arrive_whole() {
    let ca = Ca::new();
    let shows = ca.certify(&["localhost"]);
    let large: Vec<u8> = (0..9_000_007_u32).map(|i| (i ^ (i >> 9)) as u8).collect();
    for version in [&version::TLS12, &version::TLS13] {
        let setup = Setup {
            version,
            ..Setup::new(&shows)
        };
        for (protocol, name) in [(Protocol::Http1, "HTTP/1.1"), (Protocol::Http2, "HTTP/2.0")] {
            let server = setup.start().await;
            let http = http(&server.at("localhost"), protocol, &ca.trusted());
            for _ in 0..20 {
                let response = within(http.call(post("/", "hello"))).await.unwrap();
                assert_eq!(response.headers()["x-version"], name);
                assert_eq!(
                    response.headers()["x-host"],
                    format!("localhost:{}", server.port)
                );
                if protocol == Protocol::Http2 {
                    assert_eq!(response.headers()["x-scheme"], "https");
                }
                assert_eq!(read(response).await, "hello");
                read(within(http.call(get("/"))).await.unwrap()).await;
            }
            let response = within(http.call(post("/", large.clone()))).await.unwrap();
            assert!(read(response).await == large, "{version:?} {protocol:?}");
            assert_eq!(server.accepted(), 1, "{version:?} {protocol:?}");
        }
    }
}

#[tokio::test]
async fn a_certificate_of_an_unknown_issuer_is_refused_and_the_error_names_ca_file() {
    let ca = Ca::named("one");
    let shows = ca.certify(&["localhost"]);
    let server = Setup::new(&shows).start().await;
    for protocol in BOTH {
        for other in ["another", "one"] {
            let other = Ca::named(other).trusted();
            let text = refusal(&server.at("localhost"), protocol, &other).await;
            let expected =
                "its certificate was issued by none of those in \"the-ca.pem\": set tls.ca_file";
            assert!(text.contains(expected), "{text}");
        }
    }
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused_and_server_name_says_which_to_expect() {
    let ca = Ca::new();
    let shows = ca.certify(&["search.internal"]);
    let server = Setup::new(&shows).start().await;
    let mut tls = ca.trusted();
    for protocol in BOTH {
        let text = refusal(&server.at("localhost"), protocol, &tls).await;
        assert!(
            text.contains("is for another name: set tls.server_name"),
            "{text}"
        );
        assert!(text.contains("search.internal"), "{text}");
    }
    tls.server_name = Some("search.internal".into());
    for protocol in BOTH {
        assert_eq!(read(answer(&server, protocol, &tls).await).await, "hello");
    }
    tls.server_name = Some("no name".into());
    let error = Http::with_tls(&server.at("localhost"), &spec(Protocol::Http1), &tls);
    let text = error.unwrap_err().to_string();
    assert!(
        text.contains("tls.server_name, \"no name\", is neither"),
        "{text}"
    );
}

#[tokio::test]
async fn a_certificate_that_has_expired_is_refused() {
    let ca = Ca::new();
    let shows = ca.certify_until(&["localhost"], 2020);
    let server = Setup::new(&shows).start().await;
    for protocol in BOTH {
        let text = refusal(&server.at("localhost"), protocol, &ca.trusted()).await;
        assert!(text.contains("its certificate has expired"), "{text}");
    }
}

#[tokio::test]
async fn a_client_shows_its_certificate_and_is_refused_in_clear_words_without_one() {
    let (ca, clients) = (Ca::new(), Ca::named("clients"));
    let (shows, mine) = (ca.certify(&["localhost"]), clients.certify(&["me"]));
    let namesake = Ca::named("clients").certify(&["me"]).identity();
    let strange = [ca.certify(&["me"]).identity(), namesake];
    for version in [&version::TLS12, &version::TLS13] {
        let setup = Setup {
            clients: Some(&clients),
            version,
            ..Setup::new(&shows)
        };
        let server = setup.start().await;
        let address = server.at("localhost");
        for protocol in BOTH {
            let mut tls = ca.trusted();
            tls.identity = Some(mine.identity());
            let response = answer(&server, protocol, &tls).await;
            assert_eq!(response.headers()["x-client"], mine.fingerprint());

            // Which of the two sees the end of the connection first is a race: it is run often.
            for _ in 0..20 {
                let text = refusal(&address, protocol, &ca.trusted()).await;
                let expected =
                    "it requires a client certificate: set tls.cert_file and tls.key_file";
                assert!(text.contains(expected), "{version:?} {protocol:?}: {text}");
                for strange in &strange {
                    tls.identity = Some(strange.clone());
                    let text = refusal(&address, protocol, &tls).await;
                    let expected = "does not accept the client certificate in \"the-client.pem\"";
                    assert!(text.contains(expected), "{version:?} {protocol:?}: {text}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_refused_certificate_costs_one_handshake_a_call() {
    let ca = Ca::new();
    let shows = ca.certify(&["localhost"]);
    let setup = Setup {
        clients: Some(&ca),
        ..Setup::new(&shows)
    };
    for protocol in BOTH {
        let server = setup.start().await;
        refusal(&server.at("localhost"), protocol, &ca.trusted()).await;
        assert_eq!(server.accepted(), 1, "{protocol:?}");
    }
}

#[tokio::test]
async fn min_version_refuses_a_peer_that_speaks_an_older_one_only() {
    let ca = Ca::new();
    let shows = ca.certify(&["localhost"]);
    let setup = Setup {
        version: &version::TLS12,
        ..Setup::new(&shows)
    };
    let server = setup.start().await;
    let mut tls = ca.trusted();
    for protocol in BOTH {
        tls.min_version = TlsVersion::Tls12;
        assert_eq!(read(answer(&server, protocol, &tls).await).await, "hello");
        tls.min_version = TlsVersion::Tls13;
        let text = refusal(&server.at("localhost"), protocol, &tls).await;
        assert!(
            text.contains("does not speak TLS 1.3: set tls.min_version"),
            "{text}"
        );
    }
}

#[tokio::test]
async fn a_peer_that_does_not_agree_to_http2_is_refused_and_one_that_names_nothing_speaks_http1() {
    let ca = Ca::new();
    let shows = ca.certify(&["localhost"]);
    for alpn in [&["http/1.1"][..], &[]] {
        let setup = Setup {
            alpn,
            ..Setup::new(&shows)
        };
        let server = setup.start().await;
        let text = refusal(&server.at("localhost"), Protocol::Http2, &ca.trusted()).await;
        assert!(text.contains("set connection.protocol: http1"), "{text}");
        let response = answer(&server, Protocol::Http1, &ca.trusted()).await;
        assert_eq!(read(response).await, "hello");
    }
    let setup = Setup {
        alpn: &["h2"],
        ..Setup::new(&shows)
    };
    let server = setup.start().await;
    let text = refusal(&server.at("localhost"), Protocol::Http1, &ca.trusted()).await;
    assert!(text.contains("set connection.protocol: http2"), "{text}");
}

#[tokio::test]
async fn endpoints_may_be_ip_addresses_and_a_zone_stays_on_this_machine() {
    let ca = Ca::new();
    let shows = ca.certify(&["127.0.0.1", "::1"]);
    let mut hosts = vec![("127.0.0.1", "127.0.0.1:0", "127.0.0.1")];
    // Not every machine has IPv6.
    if TcpListener::bind("[::1]:0").await.is_ok() {
        hosts.push(("[::1]", "[::1]:0", "[::1]"));
        if cfg!(target_os = "linux") {
            hosts.push(("[::1%251]", "[::1]:0", "[::1]"));
        }
    }
    for (host, listens, sent) in hosts {
        let server = Setup::new(&shows).start_at(listens).await;
        for protocol in BOTH {
            let http = http(&server.at(host), protocol, &ca.trusted());
            let response = within(http.call(post("/", "hello"))).await.unwrap();
            assert_eq!(
                response.headers()["x-host"],
                format!("{sent}:{}", server.port)
            );
            assert_eq!(read(response).await, "hello");
        }
    }
}

#[tokio::test]
async fn a_peer_that_speaks_plain_http_is_refused_and_the_error_says_so() {
    let server = Server::start(Socket::Tcp, Protocol::Http1, echo).await;
    let address = Address::https(&server.address.to_string().replace("http:", "https:")).unwrap();
    for protocol in BOTH {
        let text = refusal(&address, protocol, &Ca::new().trusted()).await;
        assert!(
            text.contains("is not TLS: if it takes plain HTTP"),
            "{text}"
        );
    }
}

#[tokio::test]
async fn a_handshake_is_within_the_connection_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    for protocol in BOTH {
        let mut connection = spec(protocol);
        connection.connection_timeout = Duration::from_millis(100);
        let address = Address::https(&url).unwrap();
        let http = Http::with_tls(&address, &connection, &Ca::new().trusted()).unwrap();
        // The kernel accepts, and nobody answers.
        let error = within(http.call(get("/"))).await.unwrap_err();
        assert_eq!(Reason::of(&*error), Some(Reason::ConnectFailed));
        assert!(
            chain(&error).contains("connection_timeout of 100ms"),
            "{}",
            chain(&error)
        );
    }
}

#[tokio::test]
async fn a_key_of_another_certificate_makes_no_transport() {
    let ca = Ca::new();
    let mut tls = ca.trusted();
    let mut identity = ca.certify(&["me"]).identity();
    identity.key = ca.certify(&["me"]).identity().key;
    tls.identity = Some(identity);
    let address = Address::https("https://localhost").unwrap();
    let error = Http::with_tls(&address, &spec(Protocol::Http1), &tls).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("does not belong to the certificate"),
        "{error}"
    );
}

#[tokio::test]
async fn the_provider_of_the_process_has_no_say() {
    let useless = CryptoProvider {
        cipher_suites: vec![],
        kx_groups: vec![],
        ..aws_lc_rs::default_provider()
    };
    useless.install_default().unwrap();
    let ca = Ca::new();
    let (shows, mine) = (ca.certify(&["localhost"]), ca.certify(&["me"]));
    let setup = Setup {
        clients: Some(&ca),
        ..Setup::new(&shows)
    };
    let server = setup.start().await;
    let mut tls = ca.trusted();
    tls.identity = Some(mine.identity());
    for protocol in BOTH {
        let response = answer(&server, protocol, &tls).await;
        assert_eq!(response.headers()["x-client"], mine.fingerprint());
    }
}

const URL: &str = "TOWER_PLUGINS_TEST_URL";

#[test]
#[ignore = "is run in processes of their own by the test below"]
fn a_call_with_the_roots_of_the_system() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let url = std::env::var(URL).unwrap();
    match Http::new(&Address::https(&url).unwrap(), &spec(Protocol::Http1)) {
        Err(error) => println!("{error}"),
        Ok(http) => match runtime.block_on(within(http.call(post("/", "hello")))) {
            Err(error) => println!("{}", chain(&error)),
            Ok(response) => {
                let body = runtime.block_on(response.into_body().collect()).unwrap();
                println!("{:?} came back", body.to_bytes());
            }
        },
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_roots_of_the_system_vouch_when_the_spec_names_no_ca() {
    let ca = Ca::new();
    let shows = ca.certify(&["localhost"]);
    let server = Setup::new(&shows).start().await;
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = directory.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let roots = [
        (write("ours", ca.file().expose()), "b\"hello\" came back"),
        (
            write("others", Ca::new().file().expose()),
            "none of this system's roots: set tls.ca_file",
        ),
        (
            write("none", b""),
            "this system has no root certificates; set tls.ca_file",
        ),
    ];
    for (file, expected) in roots {
        let mut test = Command::new(std::env::current_exe().unwrap());
        test.args(["--ignored", "--nocapture", "--exact"])
            .arg("transport::tls::a_call_with_the_roots_of_the_system")
            .env(URL, server.at("localhost").to_string())
            .env("SSL_CERT_FILE", &file)
            .env_remove("SSL_CERT_DIR");
        let output = tokio::task::spawn_blocking(move || test.output().unwrap());
        let output = within(output).await.unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains(expected), "{text}");
    }
}
