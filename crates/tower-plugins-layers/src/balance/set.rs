use tokio::time::Instant;

use super::pick::Picker;
use super::{BalancePolicy, Member};
use crate::{BoxError, Reason, Refused};

/// The endpoints of a balancer. Its members never change; all that picks goes through here, so that
/// they may.
#[derive(Debug)]
pub(super) struct Set<S> {
    members: Box<[S]>,
    picker: Picker,
}

impl<S> Set<S> {
    pub(super) const fn new(policy: BalancePolicy, members: Box<[S]>) -> Self {
        Self {
            members,
            picker: Picker::new(policy),
        }
    }

    pub(super) const fn members(&self) -> &[S] {
        &self.members
    }
}

impl<S: Member> Set<S> {
    /// The index of a member for a call that has been offered to those `tried`.
    pub(super) fn pick(&self, now: impl FnOnce() -> Instant, tried: &[usize]) -> Option<usize> {
        match (self.members.len(), tried.len()) {
            // The only member says for itself why it does not take the call.
            (1, 0) => Some(0),
            (all, tried) if all == tried => None,
            _ => self.picker.pick(&self.members, now(), tried),
        }
    }

    /// The error of a call that nobody takes, the last of them because of `cause`.
    pub(super) fn refusal(&self, cause: Option<BoxError>) -> BoxError {
        let now = Instant::now();
        let mut refused = Refused::new(Reason::NoEndpoint);
        if let Some(wait) = self.members.iter().filter_map(|m| m.retry_after(now)).min() {
            refused = refused.retry_after(wait);
        }
        match cause {
            Some(cause) if self.members.len() == 1 => cause,
            Some(cause) => refused.caused_by(cause).into(),
            None => refused.into(),
        }
    }
}
