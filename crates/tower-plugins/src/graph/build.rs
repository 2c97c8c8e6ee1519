//! A plan made real: only what is new is built.

use std::collections::HashSet;
use std::sync::Arc;

use tokio::task::JoinSet;

use super::{Change, Graph, Nodes, Plan};
use crate::config::PluginName;
use crate::error::{Error, Kind};
use crate::node::{Node, Services};

impl Graph {
    /// The graph that `plan` makes of this one. Nodes that stay are the same objects, and new nodes
    /// take over the parts of the ones they replace.
    ///
    /// An error leaves everything as it was: what was built is dropped.
    pub(crate) fn rebuild(&self, plan: &Plan, services: &Arc<Services>) -> Result<Self, Error> {
        let mut nodes = self.nodes.clone();
        for (name, change) in plan.changes() {
            match change {
                Change::Keep => {}
                Change::Remove => {
                    nodes.remove(name);
                }
                Change::Restack { spec, .. }
                | Change::Replace { spec, .. }
                | Change::Add { spec } => {
                    let old = self.nodes.get(name).map(|node| node.parts());
                    let node = Node::build((**spec).clone(), old, services)?;
                    nodes.insert(name.clone(), Arc::new(node));
                }
            }
        }
        for (name, node) in &nodes {
            let others = node.spec().policy.others();
            if let Some((key, other)) = others.into_iter().find(|(_, to)| !nodes.contains_key(*to))
            {
                let why = format!("{key}: there is no plugin `{other}`: name one of this config");
                let name: Arc<str> = name.as_str().into();
                return Err(Error::caused_by(Kind::Config, why).of_plugin(&name));
            }
        }
        if let Some(way) = split_loop(&nodes) {
            let name = way[0].as_str().into();
            let way: Vec<_> = way.iter().map(|name| name.as_str()).collect();
            let why = format!(
                "split: {} leads back to where it began: remove one of these splits",
                way.join(" -> ")
            );
            return Err(Error::caused_by(Kind::Config, why).of_plugin(&name));
        }
        Ok(Self {
            generation: self.generation.next(),
            nodes,
            shutdown: false,
        })
    }

    /// Waits until those of its nodes are ready that `plan` has made, and that are to be ready before they serve. A
    /// plugin that is only restacked serves already.
    pub(crate) async fn ready(&self, plan: &Plan) -> Result<(), Error> {
        let mut waiting = JoinSet::new();
        for (name, change) in plan.changes() {
            let is_made = matches!(change, Change::Replace { .. } | Change::Add { .. });
            if let Some(node) = self.nodes.get(name).filter(|_| is_made)
                && node.spec().policy.ready_within.is_some()
            {
                let node = Arc::clone(node);
                waiting.spawn(async move { node.ready().await });
            }
        }
        while let Some(ready) = waiting.join_next().await {
            // A panic, which none of it does, would be of no use to anybody.
            ready.unwrap_or(Ok(()))?;
        }
        Ok(())
    }
}

/// The way from a plugin by splits back to itself, if there is one.
fn split_loop(nodes: &Nodes) -> Option<Vec<&PluginName>> {
    let targets = |name: &PluginName| {
        let node = nodes.get(name);
        let targets = node.map(|node| node.spec().policy.split_to().collect::<Vec<_>>());
        targets.unwrap_or_default().into_iter()
    };
    let mut names: Vec<_> = nodes.keys().collect();
    names.sort_unstable();
    let mut leads_out = HashSet::new();
    for name in names {
        let mut way = vec![(name, targets(name))];
        while let Some((last, rest)) = way.last_mut() {
            let Some(next) = rest.next() else {
                leads_out.insert(*last);
                way.pop();
                continue;
            };
            if leads_out.contains(next) {
                continue;
            }
            if let Some(begin) = way.iter().position(|(name, _)| *name == next) {
                let way = way[begin..].iter().map(|(name, _)| *name);
                return Some(way.chain([next]).collect());
            }
            way.push((next, targets(next)));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::time::Duration;

    use http::{Request, Response};
    use proptest::prelude::*;

    use super::*;
    use crate::Body;
    use crate::config::{Config, PluginSpec};
    use crate::transport::InProcess;

    /// Plugins `0` to `3`, each absent or of one of three policies over one of two upstreams.
    fn any_config() -> impl Strategy<Value = Config> {
        let spec = proptest::option::of((0..3_u64, prop::sample::select(vec!["x", "y"])));
        proptest::collection::vec(spec, 4).prop_map(|specs| {
            let mut config = Config::new();
            for (name, spec) in specs.into_iter().enumerate() {
                let Some((drain, service)) = spec else {
                    continue;
                };
                let mut spec = PluginSpec::in_process(&name.to_string(), service).unwrap();
                spec.policy.drain_timeout = Duration::from_secs(drain);
                config.insert(spec);
            }
            config
        })
    }

    fn services() -> Arc<Services> {
        let mut services = Services::default();
        for name in ["x", "y"] {
            let service = tower::service_fn(|_: Request<Body>| async {
                Ok::<_, Infallible>(Response::new(Body::empty()))
            });
            services.insert(InProcess::new(name, service));
        }
        Arc::new(services)
    }

    proptest! {
        #[test]
        fn what_is_equal_is_the_same_object_and_what_is_not_is_another(
            configs in proptest::collection::vec(any_config(), 2..6),
        ) {
            let services = services();
            let (mut config, mut graph) = (Config::new(), Graph::default());
            for next in configs {
                let plan = Plan::between(&config, &next);
                let new = graph.rebuild(&plan, &services).unwrap();
                prop_assert_eq!(new.nodes().count(), next.plugins.len());
                prop_assert_eq!(new.generation(), graph.generation().next());
                for (name, node) in new.nodes() {
                    prop_assert_eq!(node.spec(), &next.plugins[name]);
                    let old = graph.node(name.as_str());
                    let same = old.is_some_and(|old| Arc::ptr_eq(old, node));
                    prop_assert_eq!(same, plan.changes()[name] == Change::Keep);
                }
                (config, graph) = (next, new);
            }
        }

        #[test]
        fn a_build_that_fails_changes_nothing(a in any_config(), b in any_config()) {
            let services = services();
            let old = Graph::default();
            let old = old.rebuild(&Plan::between(&Config::new(), &a), &services).unwrap();
            let before: Vec<_> = old.nodes().map(|(_, node)| Arc::clone(node)).collect();
            let bad = b.with(PluginSpec::in_process("9", "nobody").unwrap());
            prop_assert!(old.rebuild(&Plan::between(&a, &bad), &services).is_err());
            for node in &before {
                // The graph and this test: what was built is dropped.
                prop_assert_eq!(Arc::strong_count(node), 2);
            }
        }
    }
}
