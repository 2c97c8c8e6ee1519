//! What is measured.

mod contention;
mod forms;
mod full;
mod inproc;
mod loopback;
mod reload;

use crate::harness::Variant;

/// Variants that take turns.
pub(crate) struct Group {
    pub(crate) name: &'static str,
    /// What its table says.
    pub(crate) about: &'static str,
    variants: fn() -> Vec<Variant>,
    /// What the measuring thread does first.
    pub(crate) prepare: Option<fn()>,
}

impl Group {
    pub(crate) fn variants(&self) -> Vec<Variant> {
        (self.variants)()
    }
}

pub(crate) const GROUPS: &[Group] = &[
    inproc::GROUP,
    contention::GROUP,
    loopback::GROUP,
    reload::GROUP,
];
