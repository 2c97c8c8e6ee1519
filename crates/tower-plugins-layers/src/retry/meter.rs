//! How many attempts were made beyond the first, and why.

#[cfg(feature = "metrics")]
use std::sync::{Arc, OnceLock};

use crate::Reason;

/// The metrics of a layer that has a name; nothing without one.
#[derive(Clone, Debug, Default)]
pub(super) struct Meter {
    #[cfg(feature = "metrics")]
    handles: Option<Arc<Handles>>,
}

#[cfg(feature = "metrics")]
struct Handles {
    name: String,
    refused: metrics::Counter,
    /// One for each reason, and one for an error that gives none: each made when it is first needed, once.
    retries: [OnceLock<metrics::Counter>; Reason::ALL.len() + 1],
}

#[cfg(feature = "metrics")]
impl std::fmt::Debug for Handles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handles")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Meter {
    #[cfg_attr(not(feature = "metrics"), expect(unused_variables))]
    pub(super) fn new(name: &str) -> Self {
        Self {
            #[cfg(feature = "metrics")]
            handles: Some(Arc::new(Handles {
                name: name.to_owned(),
                refused: metrics::counter!(
                    "plugin_retries_refused_total", "plugin_name" => name.to_owned()
                ),
                retries: [const { OnceLock::new() }; Reason::ALL.len() + 1],
            })),
        }
    }

    /// Another attempt is made because of `reason`.
    #[cfg_attr(
        not(feature = "metrics"),
        expect(unused_variables, clippy::unused_self)
    )]
    pub(super) fn made(&self, reason: Option<Reason>) {
        #[cfg(feature = "metrics")]
        if let Some(handles) = &self.handles {
            let index = reason.map_or(Reason::ALL.len(), |reason| reason as usize);
            let counter = handles.retries[index].get_or_init(|| {
                metrics::counter!(
                    "plugin_retries_total",
                    "plugin_name" => handles.name.clone(),
                    "reason" => reason.map_or("error", Reason::as_str),
                )
            });
            counter.increment(1);
        }
    }

    /// The budget allows no other attempt.
    #[cfg_attr(not(feature = "metrics"), expect(clippy::unused_self))]
    pub(super) fn refused(&self) {
        #[cfg(feature = "metrics")]
        if let Some(handles) = &self.handles {
            handles.refused.increment(1);
        }
    }
}
