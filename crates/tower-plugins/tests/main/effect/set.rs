//! A plugin at several endpoints, some of which fail.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering::SeqCst};

use http::{Response, StatusCode};
use tower::{ServiceExt, service_fn};
use tower_plugins::{Body, Plugins};

use crate::support::{config, get};

/// The plugin `p` at the services `s0`, `s1`, and so on. Nobody but outlier detection leaves one out.
pub(super) struct Set {
    plugins: Plugins,
    services: Arc<[Service]>,
}

struct Service {
    status: AtomicU16,
    calls: AtomicUsize,
}

fn yaml(root: &str, endpoints: usize, balancing: &str, keys: &str) -> String {
    let ends: Vec<_> = (0..endpoints).map(|n| format!("s{n}")).collect();
    let balancing = if balancing.is_empty() {
        "strategy: round-robin, panic_threshold: 0"
    } else {
        balancing
    };
    format!(
        "{{ {root} plugins: {{ p: {{ transport: in-process, endpoints: [{}], retry: off, circuit_breaker: off,
            load_balancing: {{ {balancing} }}, {keys} }} }} }}",
        ends.join(", ")
    )
}

impl Set {
    /// `endpoints` of them, with what is said of outliers.
    pub(super) async fn of(endpoints: usize, keys: &str) -> Self {
        Self::start(endpoints, &yaml("", endpoints, "", keys)).await
    }

    /// Three of them, under `root`.
    pub(super) async fn under(root: &str, keys: &str) -> Self {
        Self::start(3, &yaml(root, 3, "", keys)).await
    }

    /// The first `endpoints` of ten, balanced so.
    pub(super) async fn balanced(endpoints: usize, balancing: &str, keys: &str) -> Self {
        Self::start(10, &yaml("", endpoints, balancing, keys)).await
    }

    async fn start(services: usize, yaml: &str) -> Self {
        let all = (0..services).map(|_| Service {
            status: AtomicU16::new(200),
            calls: AtomicUsize::new(0),
        });
        let all: Arc<[Service]> = all.collect();
        let mut builder = Plugins::builder();
        for n in 0..services {
            let all = Arc::clone(&all);
            let service = service_fn(move |_: http::Request<Body>| {
                all[n].calls.fetch_add(1, SeqCst);
                let status = StatusCode::from_u16(all[n].status.load(SeqCst)).unwrap();
                let response = Response::builder().status(status).body(Body::empty());
                std::future::ready(Ok::<_, Infallible>(response.unwrap()))
            });
            builder = builder.service(&format!("s{n}"), service);
        }
        Self {
            plugins: builder.start(config(yaml)).await.unwrap(),
            services: all,
        }
    }

    /// From now on there are so many endpoints, balanced so.
    pub(super) async fn reload(&self, endpoints: usize, balancing: &str, keys: &str) {
        let config = config(&yaml("", endpoints, balancing, keys));
        self.plugins.reload(config).await.unwrap();
    }

    /// From now on the endpoint answers so.
    pub(super) fn answers(&self, endpoint: usize, status: u16) {
        self.services[endpoint].status.store(status, SeqCst);
    }

    /// Makes so many calls; says how many each endpoint got.
    pub(super) async fn calls(&self, calls: usize) -> Vec<usize> {
        for service in &*self.services {
            service.calls.store(0, SeqCst);
        }
        for _ in 0..calls {
            self.plugins.plugin("p").oneshot(get("/")).await.unwrap();
        }
        let calls = self.services.iter();
        calls.map(|service| service.calls.load(SeqCst)).collect()
    }

    /// Has the endpoint fail for so many calls.
    pub(super) async fn fails(&self, endpoint: usize, calls: usize) -> Vec<usize> {
        self.answers(endpoint, 500);
        let calls = self.calls(calls).await;
        self.answers(endpoint, 200);
        calls
    }

    /// Who gets no calls, of which all succeed.
    pub(super) async fn out(&self) -> BTreeSet<usize> {
        for endpoint in 0..self.services.len() {
            self.answers(endpoint, 200);
        }
        // It may be this one that has rates judged, and it may go to whom they are about.
        self.calls(1).await;
        let calls = self.calls(3 * self.services.len()).await;
        (0..calls.len()).filter(|&n| calls[n] == 0).collect()
    }
}
