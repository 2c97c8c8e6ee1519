//! Endpoints that the program tells of, by a stream of changes.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;

use futures_util::future::poll_fn;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tower::discover::{Change, Discover};
use tower_plugins_layers::BoxError;

use crate::config::EndpointSpec;
use crate::error::{Error, Kind};

/// As many endpoints as a source may have at once.
const MOST: usize = 1024;

/// As many changes as are made together.
const MOST_AT_ONCE: usize = 1024;

/// The endpoints of a source; `None` until it has told of any.
pub(super) type List = Option<Arc<[EndpointSpec]>>;

type Follow = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A stream of changes, followed by one task for all plugins that name it. The task ends with this.
pub(crate) struct Source {
    list: watch::Receiver<List>,
    follow: Mutex<Option<Follow>>,
    task: Mutex<Option<AbortHandle>>,
}

impl Source {
    pub(crate) fn new<D>(name: &str, changes: D) -> Self
    where
        D: Discover<Service = EndpointSpec, Error: Into<BoxError>> + Send + 'static,
        D::Key: Send,
    {
        let (sender, list) = watch::channel(None);
        let follow = follow(name.to_owned(), changes, sender);
        Self {
            list,
            follow: Mutex::new(Some(Box::pin(follow))),
            task: Mutex::default(),
        }
    }

    /// Begins to follow the stream, unless it has. Within a runtime.
    pub(crate) fn begin(&self) {
        if let Some(follow) = lock(&self.follow).take() {
            *lock(&self.task) = Some(tokio::spawn(follow).abort_handle());
        }
    }

    pub(super) fn list(&self) -> watch::Receiver<List> {
        self.list.clone()
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        if let Some(task) = &*lock(&self.task) {
            task.abort();
        }
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What there is under `name`, where no source is.
pub(super) fn unknown(name: &str) -> Error {
    Error::caused_by(
        Kind::Config,
        format!(
            "no endpoints are registered as `{name}`: register them with Plugins::builder().endpoints(\"{name}\", …)"
        ),
    )
}

/// Puts out a new list after each change; those that are there at once are one. Ends with the stream, and the last
/// list stays.
async fn follow<D>(name: String, changes: D, list: watch::Sender<List>)
where
    D: Discover<Service = EndpointSpec, Error: Into<BoxError>>,
{
    let mut changes = std::pin::pin!(changes);
    let mut known: Vec<(D::Key, EndpointSpec)> = Vec::new();
    loop {
        let (mut taken, mut is_over) = (0, false);
        poll_fn(|cx| {
            while taken < MOST_AT_ONCE {
                match changes.as_mut().poll_discover(cx) {
                    Poll::Ready(Some(Ok(change))) => take(&name, &mut known, change),
                    Poll::Ready(Some(Err(error))) => {
                        let error = error.into();
                        tracing::warn!(source = name, error, "endpoints: the source failed");
                    }
                    Poll::Ready(None) => {
                        is_over = true;
                        break;
                    }
                    Poll::Pending if taken == 0 => return Poll::Pending,
                    Poll::Pending => break,
                }
                taken += 1;
            }
            Poll::Ready(())
        })
        .await;
        let now: Arc<[_]> = known.iter().map(|(_, endpoint)| endpoint.clone()).collect();
        list.send_if_modified(|list| {
            let is_new = list.as_ref() != Some(&now);
            *list = Some(now);
            is_new
        });
        if is_over {
            return;
        }
        if taken == MOST_AT_ONCE {
            tokio::task::yield_now().await;
        }
    }
}

fn take<K: Eq>(name: &str, known: &mut Vec<(K, EndpointSpec)>, change: Change<K, EndpointSpec>) {
    match change {
        Change::Insert(_, endpoint) if endpoint.address.stands_for_many() => {
            let address = endpoint.address.shown();
            tracing::warn!(
                source = name,
                address,
                "endpoints: this is no one endpoint: left out"
            );
        }
        Change::Insert(key, endpoint) => {
            let at = known.iter().position(|(known, _)| *known == key);
            match at {
                Some(at) => known[at].1 = endpoint,
                None if known.len() < MOST => known.push((key, endpoint)),
                None => {
                    let address = endpoint.address.shown();
                    tracing::warn!(
                        source = name,
                        address,
                        "endpoints: more than {MOST}: left out"
                    );
                }
            }
        }
        Change::Remove(key) => known.retain(|(known, _)| *known != key),
    }
}
