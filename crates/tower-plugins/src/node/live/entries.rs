//! What a plugin's config says of its endpoints, where some are not there themselves but say where to find them.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::{pending, select_all};
use tokio::sync::watch;

#[cfg(feature = "dns")]
use super::dns::{Answers, Name};
use super::source::{self, List};
use crate::config::{Address, EndpointSpec, PluginSpec};
use crate::error::Error;
use crate::node::Services;

/// The entries of a config, in their order.
pub(in super::super) struct Entries(Vec<Entry>);

/// An endpoint that there is now.
pub(super) struct Found {
    pub(super) spec: EndpointSpec,
    /// What told of it; `None` if the config has it.
    pub(super) by: Option<Arc<str>>,
}

enum Entry {
    One(EndpointSpec),
    Source {
        name: Arc<str>,
        list: watch::Receiver<List>,
    },
    #[cfg(feature = "dns")]
    Name {
        name: Arc<str>,
        spec: EndpointSpec,
        /// It looks the name up for as long as it is here.
        _name: Arc<Name>,
        answers: watch::Receiver<Option<Answers>>,
    },
}

impl Entries {
    /// Those of `spec`; `None` if each is an endpoint itself.
    pub(in super::super) fn of(
        spec: &PluginSpec,
        #[cfg(feature = "dns")] names: &[Arc<Name>],
        services: &Services,
    ) -> Result<Option<Self>, Error> {
        let endpoints = &spec.upstream.endpoints;
        if !endpoints.iter().any(|end| end.address.stands_for_many()) {
            return Ok(None);
        }
        let entries = endpoints.iter().map(|endpoint| match &endpoint.address {
            Address::Source { name, .. } => {
                let source = services.source(name).ok_or_else(|| source::unknown(name))?;
                Ok(Entry::Source {
                    name: name.as_str().into(),
                    list: source.list(),
                })
            }
            #[cfg(feature = "dns")]
            Address::Dns(name) => {
                let found = names.iter().find(|known| known.is_of(name));
                let found = found.ok_or_else(|| Error::new(crate::error::Kind::Config))?;
                Ok(Entry::Name {
                    name: name.to_string().into(),
                    spec: endpoint.clone(),
                    _name: Arc::clone(found),
                    answers: found.answers(),
                })
            }
            #[cfg(not(feature = "dns"))]
            Address::Dns(_) => Err(Error::caused_by(
                crate::error::Kind::Config,
                format!(
                    "`{}` needs the feature `dns` of tower-plugins, which is off",
                    endpoint.address
                ),
            )),
            _ => Ok(Entry::One(endpoint.clone())),
        });
        entries
            .collect::<Result<_, _>>()
            .map(|entries| Some(Self(entries)))
    }

    /// The endpoints that there are now; `None` as long as there is none, and more may be known soon.
    pub(super) fn now(&mut self) -> Option<Vec<Found>> {
        let (mut all, mut is_known) = (Vec::new(), true);
        let found = |spec, by: &Arc<str>| Found {
            spec,
            by: Some(Arc::clone(by)),
        };
        for entry in &mut self.0 {
            match entry {
                Entry::One(endpoint) => all.push(Found {
                    spec: endpoint.clone(),
                    by: None,
                }),
                Entry::Source { name, list } => match &*list.borrow_and_update() {
                    Some(list) => all.extend(list.iter().map(|spec| found(spec.clone(), name))),
                    None => is_known = false,
                },
                #[cfg(feature = "dns")]
                Entry::Name {
                    name,
                    spec,
                    answers,
                    ..
                } => match &*answers.borrow_and_update() {
                    Some(answers) => {
                        all.extend(answers.iter().map(|answer| found(answer.of(spec), name)));
                    }
                    None => is_known = false,
                },
            }
        }
        (is_known || !all.is_empty()).then_some(all)
    }

    /// Waits until one of them says something else.
    pub(super) async fn changed(&mut self) {
        let changes = self.0.iter_mut().map(|entry| {
            async move {
                let is_gone = match entry {
                    Entry::One(_) => true,
                    Entry::Source { list, .. } => list.changed().await.is_err(),
                    #[cfg(feature = "dns")]
                    Entry::Name { answers, .. } => answers.changed().await.is_err(),
                };
                if is_gone {
                    pending::<()>().await;
                }
            }
            .boxed()
        });
        select_all(changes).await;
    }
}
