//! Both sides of an upgraded connection, joined.

use http::{Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;
use tower_plugins_layers::BoxError;
use tower_plugins_layers::drain::DrainHold;

use crate::upgrade::{OnUpgrade, on};

/// The caller's side of a request that asks for an upgrade.
#[derive(Debug)]
pub(super) struct Caller {
    connection: hyper::upgrade::OnUpgrade,
    /// What the program itself counts the call by, if it has a drain around the route.
    drain: Option<DrainHold>,
}

impl Caller {
    /// That of `request`, if it asks for an upgrade and came over a connection that can be upgraded.
    pub(super) fn of<B>(request: &Request<B>) -> Option<Self> {
        if !request.headers().contains_key(header::UPGRADE) {
            return None;
        }
        let extensions = request.extensions();
        Some(Self {
            connection: extensions.get().cloned()?,
            drain: extensions.get().cloned(),
        })
    }

    /// If `response` grants the upgrade with a connection: joins the two, in a task that is counted with the plugin's
    /// calls, and with those of a [`Drain`](tower_plugins_layers::Drain) around the route, and ends when one of them is
    /// cancelled.
    pub(super) fn join<B>(self, response: &mut Response<B>) {
        let is_granted = response.status() == StatusCode::SWITCHING_PROTOCOLS
            && response.extensions().get::<OnUpgrade>().is_some();
        if !is_granted {
            // A service of this program may have taken the caller's side itself.
            return;
        }
        let plugin = on(response);
        let drains = [plugin.drain(), self.drain];
        let talk = async {
            let mut caller = TokioIo::new(self.connection.await?);
            let mut plugin = plugin.await?;
            copy_bidirectional(&mut caller, &mut plugin).await?;
            Ok::<_, BoxError>(())
        };
        tokio::spawn(async move {
            // Dropped when it is cancelled: a side that takes no bytes must not hold it up.
            let [plugins, programs] = drains;
            match kept(programs, kept(plugins, talk)).await.flatten() {
                Some(Ok(())) => {}
                Some(Err(error)) => tracing::debug!(%error, "an upgraded connection broke"),
                None => tracing::debug!("an upgraded connection was cut: it outlived its drain"),
            }
        });
    }
}

/// Does `work` while `drain` counts it; `None` if that cancels it.
async fn kept<F: Future>(drain: Option<DrainHold>, work: F) -> Option<F::Output> {
    match drain {
        Some(drain) => drain.keep(work).await,
        None => Some(work.await),
    }
}
