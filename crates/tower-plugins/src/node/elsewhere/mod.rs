//! Calls that go to another plugin, and copies of those that do not.
//!
//! The other plugin is looked up for each call, in the graph that serves then, as every caller's is.

mod shadow;
mod split;

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{HeaderMap, Request, Response};
use tower::Layer;
use tower_plugins_layers::{BoxError, CallContext, Principal};
use tower_service::Service;

pub(super) use self::shadow::Shadow;
pub(super) use self::split::Split;
use super::around::{Next, Owned};
use super::authorize::LetIn;
use super::{CallFuture, Node, Services};
use crate::Body;
use crate::config::PluginName;

/// Finds a plugin by its name, in the graph that serves.
pub(crate) type Find = dyn Fn(&str, &HeaderMap) -> Option<Arc<Node>> + Send + Sync;

/// Marks a request that has been sent elsewhere, or is a copy: neither happens to it again.
#[derive(Clone, Copy, Debug)]
struct Sent;

/// Another plugin.
#[derive(Clone)]
struct Other {
    name: PluginName,
    services: Arc<Services>,
}

impl Other {
    fn find(&self, headers: &HeaderMap) -> Option<Arc<Node>> {
        self.services.find(self.name.as_str(), headers)
    }
}

/// Sends `request`, of `caller` if it was let in by this plugin, elsewhere.
fn send(node: Arc<Node>, mut request: Request<Body>, caller: Option<Principal>) -> CallFuture {
    let extensions = request.extensions_mut();
    extensions.insert(Sent);
    if let Some(caller) = caller {
        extensions.insert(caller);
        extensions.insert(LetIn(node.spec.name.clone()));
    }
    node.call(request)
}

impl fmt::Debug for Other {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Other").field(&self.name).finish()
    }
}

/// Sends a part of the calls elsewhere, and copies of a part of the others.
#[derive(Clone, Debug)]
pub(super) struct ElsewhereLayer {
    split: Option<Arc<Split>>,
    shadow: Option<Arc<Shadow>>,
    /// Whether this plugin asks who calls. Otherwise whoever is named in a request is named by somebody else.
    authorizes: bool,
}

impl ElsewhereLayer {
    /// `None` if all calls stay here, and are not copied.
    pub(super) fn new(
        split: Option<Split>,
        shadow: Option<Shadow>,
        authorizes: bool,
    ) -> Option<Self> {
        let (split, shadow) = (split.map(Arc::new), shadow.map(Arc::new));
        (split.is_some() || shadow.is_some()).then_some(Self {
            split,
            shadow,
            authorizes,
        })
    }

    /// Whom this plugin has let in.
    fn caller(&self, request: &Request<Body>) -> Option<Principal> {
        let caller = request.extensions().get::<Principal>();
        caller.filter(|_| self.authorizes).cloned()
    }
}

/// Whether `request` is for one endpoint of this plugin, such as the process that a session is of.
fn is_for_one(request: &Request<Body>) -> bool {
    CallContext::of(request).is_some_and(|context| context.get_endpoint().is_some())
}

impl Layer<Next> for ElsewhereLayer {
    type Service = Elsewhere;

    fn layer(&self, here: Next) -> Elsewhere {
        Elsewhere {
            here,
            layer: self.clone(),
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Elsewhere {
    here: Next,
    layer: ElsewhereLayer,
}

impl Service<Request<Body>> for Elsewhere {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Owned;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.here.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Owned {
        if request.extensions().get::<Sent>().is_none() && !is_for_one(&request) {
            let split = self.layer.split.as_ref();
            if let Some(there) = split.and_then(|split| split.way(&request)) {
                let caller = self.layer.caller(&request);
                let call = send(there, request, caller);
                return Box::pin(async { Ok(call.await?) });
            }
            if let Some(shadow) = &self.layer.shadow {
                let caller = self.layer.caller(&request);
                request = shadow.copy(request, caller);
            }
        }
        self.here.call(request)
    }
}

/// A number from 0 to 1, of the same bytes always the same, in each process.
pub(crate) fn spread(key: &[u8]) -> f64 {
    // The upper 53 bits are what a float holds.
    (hash(key) >> 11) as f64 / (1_u64 << 53) as f64
}

/// FNV-1a, and the end of SplitMix64 for the upper bits: the same in each process.
fn hash(bytes: &[u8]) -> u64 {
    let mut hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}
