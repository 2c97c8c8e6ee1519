//! A server that gives out tokens, in a test.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::transport::tls::server::{Certified, Setup};

/// Ends with this value. Its tokens are `t1`, `t2` and so on, and live for a minute.
pub(crate) struct Issuer {
    pub(crate) port: u16,
    desk: Arc<Desk>,
    task: tokio::task::JoinHandle<()>,
}

struct Desk {
    asked: Mutex<Vec<Asked>>,
    next: Mutex<VecDeque<Answer>>,
    /// Whether answers go out.
    open: watch::Sender<bool>,
}

/// A question.
pub(crate) struct Asked {
    pub(crate) path: String,
    pub(crate) authorization: Option<String>,
    pub(crate) form: String,
}

type Answer = (u16, String);

/// The answer with the token `name`.
pub(crate) fn token(name: &str) -> Answer {
    let json = format!(r#"{{"access_token":"{name}","token_type":"Bearer","expires_in":60}}"#);
    (200, json)
}

impl Issuer {
    pub(crate) async fn start() -> Self {
        let (desk, app) = desk();
        let (port, listener) = listen().await;
        let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { port, desk, task }
    }

    /// One that speaks TLS, and shows this certificate.
    pub(crate) async fn start_with(shows: &Certified) -> Self {
        let (desk, app) = desk();
        let (port, listener) = listen().await;
        let acceptor = TlsAcceptor::from(Arc::new(Setup::new(shows).config()));
        let task = tokio::spawn(async move {
            let mut tasks = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (acceptor, app) = (acceptor.clone(), TowerToHyperService::new(app.clone()));
                tasks.spawn(async move {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        let io = TokioIo::new(stream);
                        let _ = http1::Builder::new().serve_connection(io, app).await;
                    }
                });
            }
        });
        Self { port, desk, task }
    }

    /// The block `auth` that asks here for tokens, with further keys.
    pub(crate) fn auth(&self, keys: &str) -> String {
        let port = self.port;
        format!(
            "auth: {{ method: oauth2, token_url: 'http://127.0.0.1:{port}/token',
                client_id: me, client_secret: hunter2, {keys} }}"
        )
    }

    pub(crate) fn asked(&self) -> MutexGuard<'_, Vec<Asked>> {
        self.desk.asked.lock().unwrap()
    }

    pub(crate) fn times_asked(&self) -> usize {
        self.asked().len()
    }

    /// The next question is answered so.
    pub(crate) fn answers(&self, answer: Answer) {
        self.desk.next.lock().unwrap().push_back(answer);
    }

    /// Holds its answers back until it is to give them.
    pub(crate) fn gives(&self, answers: bool) {
        self.desk.open.send_replace(answers);
    }
}

fn desk() -> (Arc<Desk>, Router) {
    let desk = Arc::new(Desk {
        asked: Mutex::default(),
        next: Mutex::default(),
        open: watch::Sender::new(true),
    });
    let app = Router::new().fallback(answer).with_state(Arc::clone(&desk));
    (desk, app)
}

async fn listen() -> (u16, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    (listener.local_addr().unwrap().port(), listener)
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(
    State(desk): State<Arc<Desk>>,
    uri: Uri,
    headers: HeaderMap,
    form: String,
) -> (StatusCode, [(header::HeaderName, &'static str); 1], String) {
    let authorization = headers.get(header::AUTHORIZATION);
    let asked = Asked {
        path: uri.path().to_owned(),
        authorization: authorization.map(|value| value.to_str().unwrap().to_owned()),
        form,
    };
    let number = {
        let mut all = desk.asked.lock().unwrap();
        all.push(asked);
        all.len()
    };
    let mut open = desk.open.subscribe();
    open.wait_for(|open| *open).await.unwrap();
    let next = desk.next.lock().unwrap().pop_front();
    let (status, body) = next.unwrap_or_else(|| token(&format!("t{number}")));
    let json = (header::CONTENT_TYPE, "application/json");
    (StatusCode::from_u16(status).unwrap(), [json], body)
}
