//! Both sides of an upgraded connection, joined.

use http::{Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;

use crate::upgrade::{OnUpgrade, on};

/// The caller's side of a request that asks for an upgrade.
#[derive(Clone, Debug)]
pub(super) struct Caller(hyper::upgrade::OnUpgrade);

impl Caller {
    /// That of `request`, if it asks for an upgrade and came over a connection that can be upgraded.
    pub(super) fn of<B>(request: &Request<B>) -> Option<Self> {
        if !request.headers().contains_key(header::UPGRADE) {
            return None;
        }
        request.extensions().get().cloned().map(Self)
    }

    /// If `response` grants the upgrade with a connection: joins the two, in a task that is counted with the plugin's
    /// calls and ends when a drain cancels it.
    pub(super) fn join<B>(self, response: &mut Response<B>) {
        let is_granted = response.status() == StatusCode::SWITCHING_PROTOCOLS
            && response.extensions().get::<OnUpgrade>().is_some();
        if !is_granted {
            // A service of this program may have taken the caller's side itself.
            return;
        }
        let plugin = on(response);
        let drain = plugin.drain();
        let talk = async {
            let mut caller = TokioIo::new(self.0.await?);
            let mut plugin = plugin.await?;
            copy_bidirectional(&mut caller, &mut plugin).await?;
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
        };
        tokio::spawn(async move {
            // Dropped when it is cancelled: a side that takes no bytes must not hold it up.
            let ended = match drain {
                Some(drain) => drain.keep(talk).await,
                None => Some(talk.await),
            };
            match ended {
                Some(Ok(())) => {}
                Some(Err(error)) => tracing::debug!(%error, "an upgraded connection broke"),
                None => tracing::debug!("an upgraded connection was cut: it outlived its drain"),
            }
        });
    }
}
