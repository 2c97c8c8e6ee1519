//! A transport whose endpoints fail as they are told.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use http::{Request, Response};
use tower_plugins::transport::{EndpointArgs, ProbeFuture, ResponseFuture, Transport};
use tower_plugins::{Body, Builder, Plugins};

use crate::reload::support::MS;

/// What is wrong with an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It cannot be made.
    Unmade,
    /// It is not ready.
    Unready,
    /// It answers with 500.
    Failing,
    Panicking,
    /// It does not answer.
    Silent,
    /// It is not there.
    Gone,
}

/// All endpoints.
#[derive(Clone, Default)]
pub(super) struct World(Arc<State>);

#[derive(Default)]
struct State {
    faults: Mutex<BTreeMap<u8, Fault>>,
    there: AtomicUsize,
    x: AtomicUsize,
    most_of_x: AtomicUsize,
}

impl World {
    pub(super) fn builder(&self) -> Builder {
        let state = Arc::clone(&self.0);
        Plugins::builder().transport("toy", move |args: EndpointArgs<()>| {
            Toy::new(&args, Arc::clone(&state))
        })
    }

    /// These and no others are wrong from now on.
    pub(super) fn fails(&self, faults: &BTreeMap<u8, Fault>) {
        self.0.faults.lock().unwrap().clone_from(faults);
    }

    /// How many of them there are.
    pub(super) fn there(&self) -> usize {
        self.0.there.load(SeqCst)
    }

    /// How many of the plugin `x` there were at a time.
    pub(super) fn most_of_x(&self) -> usize {
        self.0.most_of_x.load(SeqCst)
    }
}

struct Toy {
    number: u8,
    is_x: bool,
    state: Arc<State>,
}

impl Toy {
    fn new(args: &EndpointArgs<()>, state: Arc<State>) -> Result<Self, &'static str> {
        let toy = Self {
            number: args.endpoint[1..].parse().unwrap(),
            is_x: args.plugin == "x",
            state,
        };
        toy.state.there.fetch_add(1, SeqCst);
        if toy.is_x {
            let now = toy.state.x.fetch_add(1, SeqCst) + 1;
            toy.state.most_of_x.fetch_max(now, SeqCst);
        }
        match toy.fault() {
            Some(Fault::Unmade) => Err("it cannot be made"),
            _ => Ok(toy),
        }
    }

    fn fault(&self) -> Option<Fault> {
        self.state.faults.lock().unwrap().get(&self.number).copied()
    }
}

impl Transport for Toy {
    fn call(&self, _: Request<Body>) -> ResponseFuture<'_> {
        Box::pin(async move {
            tokio::time::sleep(5 * MS).await;
            let status = match self.fault() {
                Some(Fault::Failing) => 500,
                Some(Fault::Gone) => return Err("it is gone".into()),
                Some(Fault::Silent) => return std::future::pending().await,
                Some(Fault::Panicking) => panic!("as told"),
                Some(Fault::Unmade | Fault::Unready) | None => 200,
            };
            let answer = Body::from(format!("e{}", self.number));
            let response = Response::builder().status(status).body(answer);
            Ok(response.unwrap())
        })
    }

    fn probe(&self) -> ProbeFuture<'_> {
        Box::pin(async move {
            match self.fault() {
                Some(Fault::Unready | Fault::Gone) => Err("it is not ready".into()),
                Some(Fault::Silent) => std::future::pending().await,
                Some(Fault::Panicking) => panic!("as told"),
                Some(Fault::Unmade | Fault::Failing) | None => Ok(()),
            }
        })
    }
}

impl Drop for Toy {
    fn drop(&mut self) {
        self.state.there.fetch_sub(1, SeqCst);
        if self.is_x {
            self.state.x.fetch_sub(1, SeqCst);
        }
    }
}
