//! A plugin that is to be ready before it serves.

use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::{sleep, timeout};

use super::ask::{Ask, Failed, unpanicked};
use crate::config::Address;
use crate::config::units::write_duration;

/// How soon an endpoint is asked again, at first and in the end.
const AGAIN: Duration = Duration::from_millis(50);
const AT_LAST: Duration = Duration::from_secs(1);

/// Waits until one of the endpoints is well.
///
/// # Errors
/// What each said last, when the time is over.
pub(in super::super) async fn ready(
    asks: Vec<(Address, Arc<Ask>)>,
    limit: Duration,
    not_ready: impl FnOnce() -> String,
) -> Result<(), String> {
    // Here, and not in tasks: what is dropped with this holds the endpoint no longer.
    let mut asking = FuturesUnordered::new();
    let mut said = Vec::with_capacity(asks.len());
    for (address, ask) in asks {
        let last = Arc::new(Mutex::new("no answer yet".to_owned()));
        said.push((address, Arc::clone(&last)));
        asking.push(until_well(ask, last));
    }
    if asking.is_empty() {
        return Ok(());
    }
    if timeout(limit, asking.next()).await.is_ok() {
        return Ok(());
    }
    let mut message = not_ready();
    for (address, last) in said {
        let last = last.lock().unwrap_or_else(PoisonError::into_inner);
        // Writing to a text does not fail.
        let _ = write!(message, "; {}: {last}", address.shown());
    }
    Err(message)
}

/// What is said of a plugin that is not ready after `limit`; `why` is what has it wait.
pub(in super::super) fn not_ready(limit: Duration, why: &str) -> String {
    format!("it is not ready after {}, {why}", write_duration(limit))
}

async fn until_well(ask: Arc<Ask>, last: Arc<Mutex<String>>) {
    let mut pause = AGAIN;
    loop {
        let failed = match unpanicked(ask.once()).await {
            Ok(Ok(())) => return,
            Ok(Err(Failed::There(failure))) => failure.message,
            Ok(Err(Failed::Here)) => "it could not be asked".to_owned(),
            Err(()) => "the check panicked".to_owned(),
        };
        *last.lock().unwrap_or_else(PoisonError::into_inner) = failed;
        sleep(pause).await;
        pause = (pause * 2).min(AT_LAST);
    }
}
