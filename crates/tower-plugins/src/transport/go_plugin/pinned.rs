//! One process, for those who want that and no other.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use ::http::uri::Scheme;
use ::http::{Request, Response};
use tokio::sync::watch;
use tower_plugins_layers::{BoxError, Refused};
use tower_plugins_proto::go_plugin::broker::{Dialer, Io, Link, LinkError};

use super::body::OfProcess;
use super::session::Session;
use super::{FOREVER, GoPlugin, while_there, why_ended};
use crate::Body;
use crate::config::{ConnectionSpec, Protocol};
use crate::transport::error::lost;
use crate::transport::http::open::{self, Open, Opening};
use crate::transport::subprocess::{Exited, InUse, Running};
use crate::transport::{Http, Transport};

/// One process that runs, or ran: in the extensions of a request it is the only one that gets it. It keeps nothing of the process.
#[derive(Clone)]
pub(crate) struct Pinned {
    name: Arc<str>,
    running: Weak<Running<Session>>,
    link: Link,
    exit: watch::Receiver<Option<Arc<Exited>>>,
}

/// A call for a process that has ended.
#[derive(Debug, thiserror::Error)]
#[error("the process of this session has ended, and a session goes to no other: begin a new one")]
struct Ended {
    #[source]
    exited: Exited,
}

impl GoPlugin {
    /// The process that runs; it is started if need be.
    pub(crate) async fn pinned(&self) -> Result<Pinned, Refused> {
        let running = self.running().await?;
        Ok(Pinned::to(&self.name, &running))
    }
}

impl Pinned {
    /// The process `running`, whose endpoint is called `name`.
    pub(super) fn to(name: &Arc<str>, running: &InUse<Session>) -> Self {
        Self {
            name: Arc::clone(name),
            link: running.session.link().clone(),
            exit: running.exit(),
            running: running.downgrade(),
        }
    }

    /// The connections beside the first.
    pub(crate) const fn link(&self) -> &Link {
        &self.link
    }

    /// The process, or the error of a call that was for it.
    pub(super) async fn running(&self) -> Result<InUse<Session>, BoxError> {
        match self.used() {
            Some(running) => Ok(running),
            None => {
                let exited = self.ended().await;
                Err(lost(&self.name, Ended { exited }).into())
            }
        }
    }

    fn used(&self) -> Option<InUse<Session>> {
        let running = self.running.upgrade();
        running.filter(|running| !running.is_over())?.in_use()
    }

    /// As long as what it gives is there, the process is not stopped as nobody needed it.
    pub(crate) fn in_use(&self) -> Option<impl Send + 'static + use<>> {
        self.used()
    }

    /// Whether it runs.
    fn is_over(&self) -> bool {
        let running = self.running.upgrade();
        running.is_none_or(|running| running.is_over())
    }

    /// How it ended, if it has.
    pub(crate) async fn exited(&self) -> Option<Exited> {
        match self.is_over() {
            true => Some(self.ended().await),
            false => None,
        }
    }

    /// Waits until it has ended.
    pub(crate) async fn ended(&self) -> Exited {
        let mut exit = self.exit.clone();
        // Who would say it is gone with the runtime: it was killed.
        let exited = exit.wait_for(Option::is_some).await;
        let exited = exited.ok().and_then(|exited| exited.clone());
        exited.map_or_else(Exited::unknown, |exited| (*exited).clone())
    }

    /// Connects to what the process offers as `id`.
    pub(crate) async fn connect(&self, id: u32) -> Result<Offered, LinkError> {
        let dialer = self.link.dialer(id);
        let first = dialer.connect().await?;
        let dialed = Dialed {
            dialer,
            first: Mutex::new(Some(first)),
        };
        // It lasts as long as who has it, or the process.
        let connection = ConnectionSpec {
            protocol: Protocol::Http2,
            max_age: None,
            idle_timeout: FOREVER,
            ..ConnectionSpec::default()
        };
        let name = format!("{}, offered as {id}", self.name);
        let http = Http::through(&name, Arc::new(dialed), Scheme::HTTP, connection);
        Ok(Offered {
            http,
            name: name.into(),
            pinned: self.clone(),
        })
    }
}

impl fmt::Debug for Pinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pinned").field(&self.name).finish()
    }
}

/// What a process offers beside its first service.
#[derive(Debug)]
pub(crate) struct Offered {
    http: Http,
    name: Arc<str>,
    pinned: Pinned,
}

impl Offered {
    pub(crate) async fn call(&self, request: Request<Body>) -> Result<Response<Body>, BoxError> {
        let running = self.pinned.running().await?;
        match while_there(self.http.call(request), &self.name, &running).await {
            Ok(response) => {
                let name = Arc::clone(&self.name);
                Ok(response.map(|body| OfProcess::wrap(body, name, running)))
            }
            Err(error) => match why_ended(&error, &running).await {
                Some(exited) => Err(lost(&self.name, (*exited).clone()).into()),
                None => Err(error),
            },
        }
    }
}

/// The connections to what is offered as one id.
#[derive(Debug)]
struct Dialed {
    dialer: Dialer,
    first: Mutex<Option<Io>>,
}

impl Open for Dialed {
    fn open(&self) -> Opening<'_> {
        let first = self.first.lock();
        let first = first.unwrap_or_else(PoisonError::into_inner).take();
        Box::pin(async move {
            let io = match first {
                Some(io) => io,
                None => self.dialer.connect().await.map_err(io::Error::other)?,
            };
            Ok(Box::new(io) as Box<dyn open::Io>)
        })
    }
}
