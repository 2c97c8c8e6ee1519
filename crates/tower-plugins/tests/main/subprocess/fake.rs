//! A plugin of go-plugin that is a shell script and a socket of this process.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use http::{HeaderValue, Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use tempfile::TempDir;
use tokio::net::UnixListener;
use tower_plugins::{Body, Error, Plugins};

use crate::support::{config, get, text};

/// What the script says and does; the socket that it names is served here.
pub(crate) struct Fake {
    folder: TempDir,
    /// The paths that were asked for.
    asked: Arc<Mutex<Vec<String>>>,
}

impl Fake {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let listener = UnixListener::bind(folder.path().join("socket")).unwrap();
        tokio::spawn(serve(listener, Arc::clone(&asked)));
        Self { folder, asked }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The line of a plugin that is served here.
    pub(crate) fn line(&self) -> String {
        format!("1|1|unix|{}|grpc|", self.socket().display())
    }

    /// The keys of a plugin that runs `script`, which may call `say` to write the line, and `stay` to live on.
    pub(crate) fn keys(&self, script: &str) -> String {
        let script = format!(
            "say() {{ env -0 >\"$0.new\"; mv \"$0.new\" \"$0\"; echo '{}'; }}\nstay() {{ exec sleep 3600; }}\n{script}",
            self.line()
        );
        let environment = self.folder.path().join("environment");
        let args = ["-c", &script, environment.to_str().unwrap()];
        let args = serde_json::to_string(&args).unwrap();
        format!(
            "transport: subprocess, executable: /bin/sh, args: {args}, retry: off, circuit_breaker: off"
        )
    }

    /// The plugin `p` that says the line and lives on, with `keys`.
    pub(crate) async fn start(&self, keys: &str) -> Plugins {
        start(&format!("{}, {keys}", self.keys("say; stay"))).await
    }

    /// What the environment of the script was.
    pub(crate) fn environment(&self) -> BTreeMap<String, String> {
        let text = std::fs::read_to_string(self.folder.path().join("environment")).unwrap();
        let variables = text.split('\0').filter_map(|one| one.split_once('='));
        variables
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    }

    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

pub(crate) async fn start(keys: &str) -> Plugins {
    let yaml = format!("plugins: {{ p: {{ {keys} }} }}");
    Plugins::builder().start(config(&yaml)).await.unwrap()
}

/// What `p` answers.
pub(crate) async fn called(plugins: &Plugins) -> Result<String, Error> {
    text(&plugins.plugin("p"), get("/hello")).await
}

/// Answers with the path, and of what belongs to gRPC that it is not there.
async fn serve(listener: UnixListener, asked: Arc<Mutex<Vec<String>>>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let asked = Arc::clone(&asked);
        let answer = tower::service_fn(move |request: Request<Incoming>| {
            let path = request.uri().path().to_owned();
            asked.lock().unwrap().push(path.clone());
            let is_grpc = request.headers().contains_key("te");
            let mut response = Response::new(Body::from(path));
            if is_grpc {
                response = Response::new(Body::empty());
                let headers = response.headers_mut();
                headers.insert("content-type", HeaderValue::from_static("application/grpc"));
                headers.insert("grpc-status", HeaderValue::from_static("12"));
            }
            async { Ok::<_, Infallible>(response) }
        });
        let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(answer));
        tokio::spawn(connection);
    }
}
