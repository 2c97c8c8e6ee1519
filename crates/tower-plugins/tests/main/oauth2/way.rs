//! The way to the token endpoint: TLS, and the proxy that the plugin has.

use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use http::{Request, Response};
use tempfile::NamedTempFile;
use tower_plugins::{Body, Error, Plugins, Reason};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Dispatch, Event, Metadata, Subscriber};

use tower_plugins::config::{Config, Protocol};

use crate::alone::alone_with;
use crate::issuer::{Issuer, token};
use crate::support::{Server, Socket, causes, config, get, text, within};
use crate::transport::proxy::{Proxy, port_of};
use crate::transport::tls::server::Ca;

/// What no error and no log may show: the secret, and the forms in which it is sent.
const SECRETS: [&str; 3] = ["hunter2", "bWU6aHVudGVyMg==", "open-sesame"];

/// Where the proxy is asked for the issuer.
const ISSUER: &str = "issuer.internal:443";

/// A plugin that gives back what it was shown, its issuer, and who vouches for that one.
struct Scene {
    plugin: Server,
    issuer: Issuer,
    ca: NamedTempFile,
}

/// Keeps all that is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<String>>);

impl Visit for &Log {
    fn record_debug(&mut self, _: &Field, value: &dyn Debug) {
        *self.0.lock().unwrap() += &format!(" {value:?}");
    }
}

impl Subscriber for Log {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut this = self;
        span.record(&mut this);
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, values: &Record<'_>) {
        let mut this = self;
        values.record(&mut this);
    }

    fn event(&self, event: &Event<'_>) {
        let mut this = self;
        event.record(&mut this);
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

async fn shown(request: Request<Body>) -> Response<Body> {
    let shown = request.headers()["authorization"].as_bytes().to_vec();
    Response::new(Body::from(shown))
}

fn written(ca: &Ca) -> NamedTempFile {
    let file = NamedTempFile::new().unwrap();
    std::fs::write(file.path(), ca.file().expose()).unwrap();
    file
}

impl Scene {
    /// The issuer has a certificate for this name.
    async fn new(name: &str) -> Self {
        let ca = Ca::new();
        Self {
            plugin: Server::start(Socket::Tcp, Protocol::Http1, shown).await,
            issuer: Issuer::start_with(&ca.certify(&[name])).await,
            ca: written(&ca),
        }
    }

    fn config(&self, token_url: &str, ca: Option<&NamedTempFile>, proxy: &str) -> Config {
        let trust = ca.map(|ca| format!("ca_file: '{}'", ca.path().display()));
        config(&format!(
            "plugins: {{ p: {{ transport: http, endpoint: '{}', retry: off, connection: {{ {proxy} }},
                auth: {{ method: oauth2, token_url: '{token_url}', client_id: me, client_secret: hunter2, {} }} }} }}",
            self.plugin.address,
            trust.unwrap_or_default()
        ))
    }

    /// What the plugin is shown.
    async fn call(&self, config: Config) -> Result<String, Error> {
        let plugins = Plugins::builder().start(config).await.unwrap();
        text(&plugins.plugin("p"), get("/")).await
    }
}

fn tell_no_secret(texts: &[&str]) {
    for text in texts {
        let told = SECRETS.iter().find(|secret| text.contains(*secret));
        assert_eq!(told, None, "{text}");
    }
}

#[tokio::test]
async fn a_token_endpoint_is_known_by_its_certificate_and_no_other_gets_the_secret() {
    let _another = Dispatch::new(Log::default());
    let log = Log::default();
    let _listening = tracing::subscriber::set_default(log.clone());
    let scene = Scene::new("localhost").await;
    let url = format!("https://localhost:{}/token", scene.issuer.port);
    scene.issuer.answers(token("open-sesame"));
    let known = scene.config(&url, Some(&scene.ca), "");
    assert_eq!(scene.call(known).await.unwrap(), "Bearer open-sesame");
    let asked = scene.issuer.asked().pop().unwrap();
    assert_eq!(asked.authorization.unwrap(), "Basic bWU6aHVudGVyMg==");

    let stranger = written(&Ca::new());
    let other_name = format!("https://127.0.0.1:{}/token", scene.issuer.port);
    for (url, ca, why) in [
        (&url, Some(&stranger), "set auth.ca_file"),
        (&url, None, "set auth.ca_file"),
        (
            &other_name,
            Some(&scene.ca),
            "set the host of auth.token_url",
        ),
    ] {
        let error = scene.call(scene.config(url, ca, "")).await.unwrap_err();
        assert_eq!(error.reason(), Some(Reason::CredentialsFailed));
        let shown = causes(&error);
        assert!(shown.contains("connecting to"), "{shown}");
        assert!(shown.contains(why), "{shown}");
        tell_no_secret(&[&shown, &format!("{error:?}")]);
    }
    assert_eq!(scene.issuer.times_asked(), 0);
    let log = log.0.lock().unwrap();
    assert!(log.contains("no new token"), "{log}");
    tell_no_secret(&[&log]);
}

#[tokio::test]
async fn a_token_is_asked_for_through_the_proxy_of_the_plugin() {
    let _another = Dispatch::new(Log::default());
    let log = Log::default();
    let _listening = tracing::subscriber::set_default(log.clone());
    let scene = Scene::new("issuer.internal").await;
    let (issuer, plugin) = (scene.issuer.port, port_of(&scene.plugin.address));
    let proxy = Proxy::by(
        move |host| if host == ISSUER { issuer } else { plugin },
        Some("proxy-authorization: Basic dXNlcjpvcGVuLXNlc2FtZQ==\r\n"),
    )
    .await;
    let way = |auth: &str| {
        let keys = format!(
            "proxy: 'http://127.0.0.1:{}', proxy_auth: '{auth}'",
            proxy.port
        );
        scene.config("https://issuer.internal/token", Some(&scene.ca), &keys)
    };
    let plugins = Plugins::builder()
        .start(way("user:open-sesame"))
        .await
        .unwrap();
    for _ in 0..3 {
        let shown = text(&plugins.plugin("p"), get("/")).await.unwrap();
        assert_eq!(shown, "Bearer t1");
    }
    let to_issuer = || {
        let heads = proxy.heads();
        let is_to = |head: &&String| head.starts_with(&format!("CONNECT {ISSUER} "));
        heads.iter().filter(is_to).count()
    };
    assert_eq!((to_issuer(), scene.issuer.times_asked()), (1, 1));

    // By another way there is another token, and an equal way keeps it.
    plugins.reload(way("user:open-sesame")).await.unwrap();
    assert_eq!(
        text(&plugins.plugin("p"), get("/")).await.unwrap(),
        "Bearer t1"
    );
    plugins.reload(way("user:wrong-hunter2")).await.unwrap();
    let error = within(crate::support::call(&plugins.plugin("p"), get("/")))
        .await
        .unwrap_err();
    assert_eq!(error.reason(), Some(Reason::CredentialsFailed));
    let shown = causes(&error);
    assert!(shown.contains("set connection.proxy_auth"), "{shown}");
    assert_eq!(scene.issuer.times_asked(), 1);
    tell_no_secret(&[&shown, &format!("{error:?}"), &log.0.lock().unwrap()]);
}

#[test]
fn a_token_is_asked_for_through_the_proxy_of_the_environment_where_the_plugin_uses_that() {
    // Nobody listens at the discard port.
    let variables = [
        ("https_proxy", "http://user:open-sesame@127.0.0.1:9"),
        ("no_proxy", "exempt.invalid"),
    ];
    let name = "oauth2::way::a_token_is_asked_for_through_the_proxy_of_the_environment_where_the_plugin_uses_that";
    alone_with(name, &variables, || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let scene = Scene::new("issuer.invalid").await;
            let error = async |keys: &str, host: &str| {
                let url = format!("https://{host}/token");
                let called = scene.call(scene.config(&url, Some(&scene.ca), keys)).await;
                let shown = causes(&called.unwrap_err());
                tell_no_secret(&[&shown]);
                shown
            };
            let through = "the proxy at 127.0.0.1:9";
            let of_environment = error("proxy: environment", "issuer.invalid").await;
            assert!(of_environment.contains(through), "{of_environment}");
            for (keys, host) in [
                ("proxy: environment", "exempt.invalid"),
                ("", "issuer.invalid"),
            ] {
                let direct = error(keys, host).await;
                assert!(!direct.contains(through), "{direct}");
            }
        });
    });
}

#[tokio::test]
async fn a_token_endpoint_of_this_machine_is_asked_without_the_proxy() {
    let scene = Scene::new("localhost").await;
    let plain = Issuer::start().await;
    let proxy = Proxy::to(port_of(&scene.plugin.address), None).await;
    let keys = format!("proxy: 'http://127.0.0.1:{}'", proxy.port);
    for url in [
        format!("https://localhost:{}/token", scene.issuer.port),
        format!("http://127.0.0.1:{}/token", plain.port),
    ] {
        let config = scene.config(&url, Some(&scene.ca), &keys);
        assert_eq!(scene.call(config).await.unwrap(), "Bearer t1");
    }
    assert_eq!((scene.issuer.times_asked(), plain.times_asked()), (1, 1));
    let to_plugin = format!("CONNECT 127.0.0.1:{} ", port_of(&scene.plugin.address));
    assert_eq!(proxy.heads().len(), 2);
    assert!(
        proxy
            .heads()
            .iter()
            .all(|head| head.starts_with(&to_plugin))
    );
}
