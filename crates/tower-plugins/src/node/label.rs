//! What metrics call endpoints.
//!
//! An endpoint of the config goes by its address. Those that are found while the plugin runs come and go, and their
//! addresses are without end, as a recorder keeps every series: they go by where they were found and a number, the
//! smallest that no other has, which is free again when the endpoint is gone.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// The numbers of a plugin that are taken. Clones are the same.
#[derive(Clone, Default)]
pub(super) struct Labels(Arc<Mutex<HashMap<Arc<str>, Vec<bool>>>>);

/// The label of an endpoint. A number is taken for as long as this is held.
pub(super) struct Label {
    text: Box<str>,
    place: Option<Place>,
}

struct Place {
    labels: Labels,
    found_by: Arc<str>,
    number: usize,
}

impl Labels {
    /// The label of an endpoint that was found by what `found_by` says.
    pub(super) fn found(&self, found_by: &Arc<str>) -> Arc<Label> {
        let number = {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let taken = all.entry(Arc::clone(found_by)).or_default();
            let free = taken.iter().position(|taken| !taken);
            let number = free.unwrap_or(taken.len());
            match taken.get_mut(number) {
                Some(place) => *place = true,
                None => taken.push(true),
            }
            number
        };
        Arc::new(Label {
            text: format!("{found_by}#{}", number + 1).into(),
            place: Some(Place {
                labels: self.clone(),
                found_by: Arc::clone(found_by),
                number,
            }),
        })
    }

    fn free(&self, found_by: &Arc<str>, number: usize) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(taken) = all.get_mut(found_by) else {
            return;
        };
        if let Some(place) = taken.get_mut(number) {
            *place = false;
        }
        if !taken.contains(&true) {
            all.remove(found_by);
        }
    }
}

impl Label {
    /// Of an endpoint whose address is in the config.
    pub(super) fn fixed(address: &str) -> Arc<Self> {
        Arc::new(Self {
            text: address.into(),
            place: None,
        })
    }

    pub(super) fn as_str(&self) -> &str {
        &self.text
    }
}

impl Drop for Label {
    fn drop(&mut self) {
        if let Some(place) = &self.place {
            place.labels.free(&place.found_by, place.number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_free_again_when_its_endpoint_is_gone() {
        let (labels, name) = (Labels::default(), Arc::<str>::from("dns:///search:80"));
        let (one, two) = (labels.found(&name), labels.found(&name));
        assert_eq!(one.as_str(), "dns:///search:80#1");
        assert_eq!(two.as_str(), "dns:///search:80#2");
        assert_eq!(labels.found(&"hosts".into()).as_str(), "hosts#1");
        drop(one);
        assert_eq!(labels.found(&name).as_str(), "dns:///search:80#1");
        drop(two);
        assert!(labels.0.lock().unwrap().is_empty());
    }
}
