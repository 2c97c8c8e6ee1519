//! Typed handlers, answered over every wire that a host speaks.
//!
//! A [`Router`] has methods, each a name and an async function. What the function takes says what is made of a call,
//! and what it returns what is answered, as with axum's handlers:
//!
//! ```
//! use axum::extract::State;
//! use serde::{Deserialize, Serialize};
//! use tower_plugins_sdk::router::{CallError, Caller, Input, Kind, Router};
//!
//! #[derive(Clone)]
//! struct Limits { widest: u32 }
//!
//! #[derive(Deserialize)]
//! struct Resize { width: u32, height: u32, to: u32 }
//!
//! #[derive(Serialize)]
//! struct Resized { width: u32, height: u32 }
//!
//! async fn resize(
//!     State(limits): State<Limits>,
//!     caller: Caller,
//!     Input(asked): Input<Resize>,
//! ) -> Result<Resized, CallError> {
//!     if asked.to > limits.widest || asked.width == 0 {
//!         return Err(CallError::new(Kind::InvalidArgument, "that is too wide").code("width"));
//!     }
//!     eprintln!("{:?} waits {:?}", caller.request_id(), caller.time_left());
//!     Ok(Resized { width: asked.to, height: asked.height * asked.to / asked.width })
//! }
//!
//! let router = Router::with_state(Limits { widest: 4096 })
//!     .method("resize", resize)
//!     .method("version", async || "1.2");
//!
//! // Over HTTP and gRPC, on one listener:
//! let app: axum::Router = router.into();
//! ```
//!
//! | wire | of the host | a call of `resize` | served by |
//! | --- | --- | --- | --- |
//! | JSON over HTTP | codec `Json` | `POST /resize` | [`Router::into_axum`] |
//! | envelope over HTTP | codec `Envelope` | `POST /resize`, or `POST /` | [`Router::into_axum`] |
//! | gRPC | `tower_plugins.v1.Plugin` | `Execute` or `ExecuteStream` of `resize` | [`Router::into_axum`] |
//! | lines of JSON on standard streams | `exec-json` | a line | [`Router::serve_lines`] |
//! | lines of JSON on a Unix socket | `unix-json` | a line | [`Router::serve_unix`] |
//!
//! A call that has no path, a line or a `POST /`, names its method in the header `x-operation`, or in the text
//! `operation` of its payload; it needs no name where there is only one method.
//!
//! # Cancellation
//! When the caller goes away or its time is up, the handler's future is dropped, at the `.await` where it is. Work
//! that must go on belongs into a task. A caller of lines on standard streams cannot be seen to go away; its host
//! ends the process.
//!
//! # Panics
//! A panic of a handler is logged and answered as [`Kind::Internal`], without its text. Others are not touched by it.

mod answer;
mod call;
mod caller;
mod envelope;
mod error;
mod extract;
mod grpc;
mod handler;
mod http;
mod info;
mod lines;
mod methods;

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::sync::Arc;

use ::http::HeaderName;
use axum::extract::Request;
use axum::response::IntoResponse;
use axum::routing::{Route, get, post};
use tonic::codec::CompressionEncoding;
use tower_layer::Layer;
use tower_plugins_layers::DeadlineLayer;
use tower_plugins_proto::v1::plugin_server::PluginServer;
use tower_service::Service;

#[doc(hidden)]
pub use self::answer::shape;
pub use self::answer::{Answer, IntoAnswer, IntoReply, Output, Raw, Reply, WithHeaders};
pub use self::call::{Call, Messages};
pub use self::caller::Caller;
pub use self::error::{BoxError, CallError, IntoCallError, Kind};
pub use self::extract::{FromCall, Input};
pub use self::handler::Handler;
pub use self::info::Info;
pub use axum::extract::State;

use self::methods::{Endpoint, Methods};

/// The largest request that is read, unless [`Router::max_request`] says otherwise: 4 MiB.
const MAX_REQUEST: usize = 4 << 20;

type Wrap = Box<dyn FnOnce(axum::Router) -> axum::Router + Send + Sync>;

/// A plugin's methods, each a name and a [`Handler`]. See the [module](self).
#[must_use = "a router does nothing unless it is served"]
pub struct Router<S = ()> {
    state: Arc<S>,
    table: BTreeMap<Arc<str>, Endpoint>,
    /// Those that `GET` is for, too.
    gets: BTreeSet<Arc<str>>,
    info: Info,
    max_request: usize,
    reads_envelopes: bool,
    deadline: DeadlineLayer,
    layers: Vec<Wrap>,
}

impl Router {
    /// A router without methods and without state.
    pub fn new() -> Self {
        Self::with_state(())
    }
}

impl Default for Router {
    fn default() -> Self {
        Self::new()
    }
}

impl<S: Send + Sync + 'static> Router<S> {
    /// A router without methods, whose handlers have [`State<S>`], and `State` of any part of it that is
    /// [`FromRef`](axum::extract::FromRef). The state is cloned for each call that takes it.
    pub fn with_state(state: S) -> Self {
        Self {
            state: Arc::new(state),
            table: BTreeMap::new(),
            gets: BTreeSet::new(),
            info: Info::default(),
            max_request: MAX_REQUEST,
            reads_envelopes: true,
            deadline: DeadlineLayer::of_callers(),
            layers: Vec::new(),
        }
    }

    /// Answers calls of the method `name` by `handler`.
    ///
    /// A name is letters, digits, `-`, `_`, `.` and `/`, without a slash at either end: over HTTP it is the path.
    ///
    /// # Panics
    /// `name` is none, or there is such a method already.
    #[track_caller]
    pub fn method<H, Args, Shape>(mut self, name: &str, handler: H) -> Self
    where
        H: Handler<Args>,
        Args: FromCall<S>,
        <H::Future as Future>::Output: IntoAnswer<Shape>,
    {
        let fits = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
        let is_name = name.chars().all(fits) && name.split('/').all(|part| !part.is_empty());
        assert!(
            is_name,
            "{name:?} is no name for a method: it takes letters, digits, `-`, `_`, `.`, and `/` between them"
        );
        let endpoint = handler::endpoint::<H, Args, Shape, S>(handler, Arc::clone(&self.state));
        let before = self.table.insert(name.into(), endpoint);
        assert!(before.is_none(), "there are two methods {name:?}");
        self
    }

    /// As [`method`](Self::method), for a handler that changes nothing, and so may be repeated: over HTTP it answers
    /// `GET` too, which hosts call again as they see fit.
    ///
    /// # Panics
    /// As `method` does.
    #[track_caller]
    pub fn get<H, Args, Shape>(self, name: &str, handler: H) -> Self
    where
        H: Handler<Args>,
        Args: FromCall<S>,
        <H::Future as Future>::Output: IntoAnswer<Shape>,
    {
        let mut router = self.method(name, handler);
        router.gets.insert(name.into());
        router
    }

    /// What the plugin says of itself. Without it, no more than the names of its methods.
    pub fn info(mut self, info: Info) -> Self {
        self.info = info;
        self
    }

    /// The largest request that is read, in bytes, and the largest message of a stream; 4 MiB by default. More is
    /// answered with 413, over gRPC with `OUT_OF_RANGE`, as tonic has it. A line or a message may be 64 KiB longer, for
    /// what it says beside its payload.
    pub const fn max_request(mut self, bytes: usize) -> Self {
        self.max_request = bytes;
        self
    }

    /// The header in which callers over HTTP say how long they wait: `250ms`, `1.5s`, or a number of seconds, or of
    /// milliseconds if the name ends in `-ms`. It is what a host's config has as `connection.timeout_header`. None by
    /// default; `grpc-timeout`, and what an envelope or a line says, always hold.
    pub fn timeout_header(mut self, name: HeaderName) -> Self {
        self.deadline = self.deadline.header(name);
        self
    }

    /// Whether a payload that is an object of exactly `data`, `request_id` and `timeout`, and perhaps `headers` and
    /// `metadata`, is taken for go-plugins' envelope, and answered with one. It is, unless this says otherwise.
    pub const fn envelopes(mut self, read: bool) -> Self {
        self.reads_envelopes = read;
        self
    }

    /// Puts a tower layer around all calls, over every wire, such as one that authenticates the host: lines come to
    /// it as the HTTP requests they stand for. The last one is outermost, as in axum.
    pub fn layer<L>(mut self, layer: L) -> Self
    where
        L: Layer<Route> + Clone + Send + Sync + 'static,
        L::Service: Service<Request, Response: IntoResponse, Error: Into<Infallible>>
            + Clone
            + Send
            + Sync
            + 'static,
        <L::Service as Service<Request>>::Future: Send + 'static,
    {
        let wrap = move |app: axum::Router| app.layer(layer);
        self.layers.push(Box::new(wrap));
        self
    }

    /// All of it as an axum router, which answers HTTP and gRPC, and can be merged into another, or nested in one
    /// where gRPC is not needed.
    ///
    /// | request | answered by |
    /// | --- | --- |
    /// | `POST /name` | the method |
    /// | `GET /name` | the same, if it was given to [`get`](Self::get) |
    /// | `POST /` | the method that the request [names](self) |
    /// | `GET /info` | what the plugin says of itself, if no method does |
    /// | `GET /health`, `GET /ping` | 200, as long as it serves, if no method does |
    /// | `POST /tower_plugins.v1.Plugin/…` | the service of gRPC |
    pub fn into_axum(self) -> axum::Router {
        let (methods, gets, layers) = self.into_parts();
        let mut app = axum::Router::new();
        let door = |name: Option<Arc<str>>| {
            let methods = Arc::clone(&methods);
            move |request: Request| http::answer(Arc::clone(&methods), name.clone(), request)
        };
        for name in methods.table.keys() {
            let path = format!("/{name}");
            if gets.contains(name) {
                app = app.route(&path, get(door(Some(Arc::clone(name)))));
            }
            app = app.route(&path, post(door(Some(Arc::clone(name)))));
        }
        let info = http::json(&methods.info);
        let ok = http::json(&"OK");
        let unknown = Arc::clone(&methods);
        app = app
            .route("/", post(door(None)))
            .method_not_allowed_fallback(http::not_allowed)
            .route_service("/tower_plugins.v1.Plugin/{*method}", grpc_service(methods))
            .fallback(move |request: Request| http::unknown(Arc::clone(&unknown), request));
        for (path, answer) in [("info", info), ("health", ok.clone()), ("ping", ok)] {
            // A method of that name goes first.
            if !gets.contains(path) {
                app = app.route(&format!("/{path}"), get(async move || answer.clone()));
            }
        }
        layers.into_iter().fold(app, |app, wrap| wrap(app))
    }

    fn into_parts(self) -> (Arc<Methods>, BTreeSet<Arc<str>>, Vec<Wrap>) {
        let names = self.table.keys().map(|name| name.as_ref().to_owned());
        let methods = Methods {
            info: self.info.or_can(names),
            table: self.table,
            max_request: self.max_request,
            reads_envelopes: self.reads_envelopes,
            deadline: self.deadline,
        };
        (Arc::new(methods), self.gets, self.layers)
    }
}

fn grpc_service(methods: Arc<Methods>) -> PluginServer<grpc::Grpc> {
    // What goes with a payload in its message.
    let max = methods.max_request.saturating_add(lines::BESIDE);
    PluginServer::new(grpc::Grpc(methods))
        .max_decoding_message_size(max)
        .max_encoding_message_size(usize::MAX)
        .accept_compressed(CompressionEncoding::Gzip)
        .send_compressed(CompressionEncoding::Gzip)
}

impl<S: Send + Sync + 'static> From<Router<S>> for axum::Router {
    fn from(router: Router<S>) -> Self {
        router.into_axum()
    }
}

impl<S> fmt::Debug for Router<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Router")
            .field("methods", &self.table.keys())
            .field("info", &self.info)
            .field("max_request", &self.max_request)
            .finish_non_exhaustive()
    }
}
