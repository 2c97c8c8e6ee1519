//! Who a plugin is to a gRPC server: credentials are metadata in the forms of HTTP, or a certificate.

use std::io::Write;
use std::path::Path;

use tempfile::NamedTempFile;
use tonic::{Code, Request, Status};
use tower_plugins::{Plugin, Reason};

use super::server::calculator::DivideRequest;
use super::server::{Server, WAYS, Way, client, number};
use crate::effect::later;
use crate::issuer::Issuer;
use crate::support::within;

/// A unary call of a generated client.
async fn divide(plugin: Plugin) -> Result<f64, Status> {
    let request = DivideRequest {
        dividend: 1.0,
        divisor: 2.0,
    };
    let answer = within(client(plugin).divide(request)).await?;
    Ok(answer.into_inner().value)
}

/// What the server was shown by the last call.
fn shown(server: &Server, name: &str) -> Option<String> {
    let (metadata, _) = server.desk.seen().pop().unwrap();
    let value = metadata.get(name)?;
    Some(value.to_str().unwrap().to_owned())
}

#[tokio::test]
async fn credentials_are_metadata_in_the_forms_of_http() {
    for way in WAYS {
        let server = Server::start(way).await;
        for (auth, name, value) in [
            ("method: api-key, api_key: hunter2", "x-api-key", "hunter2"),
            (
                "method: api-key, api_key: hunter2, header: x-own",
                "x-own",
                "hunter2",
            ),
            (
                "method: bearer, token: hunter2",
                "authorization",
                "Bearer hunter2",
            ),
            (
                "method: basic, username: u, password: hunter2",
                "authorization",
                "Basic dTpodW50ZXIy",
            ),
            (
                "method: custom, headers: { x-own: hunter2 }",
                "x-own",
                "hunter2",
            ),
        ] {
            let plugin = server.plugin(&format!("auth: {{ {auth} }}")).await;
            divide(plugin.clone()).await.unwrap();
            let (metadata, _) = server.desk.seen().pop().unwrap();
            assert_eq!(metadata.get(name).unwrap(), value, "{way:?} {auth}");
            // Nowhere else, and a password nowhere in clear.
            let all = metadata.as_ref().iter();
            let others = all.filter(|(other, value)| {
                let text = value.to_str().unwrap();
                other.as_str() != name && (text.contains("hunter2") || text == "u")
            });
            assert_eq!(others.count(), 0, "{way:?} {auth}");

            // A stream has them too, in place of the caller's.
            let mut request = Request::new(number(2.0));
            let theirs = "theirs".parse().unwrap();
            request.metadata_mut().insert(name, theirs);
            let stream = within(client(plugin).count(request)).await.unwrap();
            let mut numbers = stream.into_inner();
            while within(numbers.message()).await.unwrap().is_some() {}
            assert_eq!(shown(&server, name).unwrap(), value, "{way:?} {auth}");
        }
    }
}

/// A private file that holds `contents`.
pub(super) fn file(contents: &[u8]) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(contents).unwrap();
    file
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
}

#[tokio::test]
async fn mtls_shows_a_certificate() {
    let server = Server::start(Way::MutualTls).await;
    let identity = server.ca.certify(&["client"]).identity();
    let ca = file(server.ca.file().expose());
    let (cert, key) = (file(identity.cert.expose()), file(identity.key.expose()));
    let auth = format!(
        "auth: {{ method: mtls, ca_file: {}, cert_file: {}, key_file: {} }}",
        ca.path().display(),
        cert.path().display(),
        key.path().display()
    );
    assert_eq!(divide(server.plugin(&auth).await).await.unwrap(), 0.5);

    let nobody = server.plugin("retry: off").await;
    let status = divide(nobody).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert_eq!(server.desk.seen().len(), 1);
}

#[tokio::test]
async fn a_token_in_a_file_rotates_over_the_same_connection() {
    for way in WAYS {
        let server = Server::start(way).await;
        let token = file(b"one");
        let keys = format!(
            "auth: {{ method: bearer, token: 'file:{}' }}",
            token.path().display()
        );
        let plugins = server.plugins(&keys).await;
        let plugin = plugins.plugin("p");
        divide(plugin.clone()).await.unwrap();
        assert_eq!(shown(&server, "authorization").unwrap(), "Bearer one");

        // A stream that is open when the token changes goes on.
        let mut client = client(plugin.clone());
        let mut open = within(client.count(number(2.0)))
            .await
            .unwrap()
            .into_inner();
        within(open.message()).await.unwrap().unwrap();
        for next in ["two", "three"] {
            write(token.path(), next);
            let report = plugins.reload(server.config(&keys)).await.unwrap();
            assert_eq!(report.plan.to_string(), "restack p (auth)", "{way:?}");
            divide(plugin.clone()).await.unwrap();
            let wanted = format!("Bearer {next}");
            assert_eq!(shown(&server, "authorization").unwrap(), wanted, "{way:?}");
        }
        assert_eq!(within(open.message()).await.unwrap().unwrap().value, 2.0);
        assert_eq!(server.accepted(), 1, "{way:?}");
    }
}

#[tokio::test]
async fn a_token_that_a_grpc_server_turns_away_is_refreshed() {
    let (server, issuer) = (Server::start(Way::Tcp).await, Issuer::start().await);
    let plugin = server
        .plugin(&format!("retry: off, {}", issuer.auth("")))
        .await;
    divide(plugin.clone()).await.unwrap();
    assert_eq!(shown(&server, "authorization").unwrap(), "Bearer t1");
    later(2).await;
    server.desk.fail(Status::unauthenticated("revoked"));
    let status = divide(plugin.clone()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    divide(plugin).await.unwrap();
    assert_eq!(shown(&server, "authorization").unwrap(), "Bearer t2");
    assert_eq!(issuer.times_asked(), 2);
}

#[tokio::test]
async fn without_a_token_a_generated_client_is_told_unavailable() {
    let (server, issuer) = (Server::start(Way::Tcp).await, Issuer::start().await);
    issuer.answers((500, "hunter2".to_owned()));
    let plugin = server
        .plugin(&format!("retry: off, {}", issuer.auth("")))
        .await;
    let status = divide(plugin).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert_eq!(
        Reason::of(&status),
        Some(Reason::CredentialsFailed),
        "{status:?}"
    );
    assert!(!format!("{status:?}").contains("hunter2"), "{status:?}");
    assert!(server.desk.seen().is_empty());
}
