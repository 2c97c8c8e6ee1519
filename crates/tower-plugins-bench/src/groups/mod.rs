//! What is measured.

mod contention;
mod drain;
mod forms;
mod full;
mod grpc;
mod inproc;
mod layers;
mod loopback;
mod reload;
mod rollback;
#[cfg(all(feature = "subprocess", unix))]
mod subprocess;

use crate::harness::Variant;
use crate::report::Row;

/// Variants that take turns.
pub(crate) struct Group {
    pub(crate) name: &'static str,
    /// What its table says.
    pub(crate) about: &'static str,
    variants: fn() -> Vec<Variant>,
    /// What the measuring thread does first.
    pub(crate) prepare: Option<fn()>,
    /// What is to be seen across its rows.
    pub(crate) summary: Option<fn(&[Row]) -> String>,
}

impl Group {
    pub(crate) fn variants(&self) -> Vec<Variant> {
        (self.variants)()
    }
}

pub(crate) const GROUPS: &[Group] = &[
    inproc::GROUP,
    layers::GROUP,
    contention::GROUP,
    loopback::GROUP,
    grpc::GROUP,
    #[cfg(all(feature = "subprocess", unix))]
    subprocess::GROUP,
    reload::GROUP,
    drain::GROUP,
    rollback::GROUP,
];
