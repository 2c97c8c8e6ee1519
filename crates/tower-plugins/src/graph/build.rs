//! A plan made real: only what is new is built.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::{Change, Entries, Entry, Graph, Plan};
use crate::config::{Config, PluginName, PluginSpec};
use crate::error::{Error, Kind};
use crate::node::{Inherit, Node, Services};

/// Nodes that are built and serve nobody yet.
pub(crate) type Built = BTreeMap<PluginName, Arc<Node>>;

impl Graph {
    /// The nodes that `plan` has to be built, but for those that are not `wanted` yet. They take over the parts of
    /// the ones they replace.
    ///
    /// An error leaves everything as it was: what was built is dropped.
    pub(crate) fn build(
        &self,
        plan: &Plan,
        wanted: impl Fn(&PluginName) -> bool,
        inherit: Inherit,
        services: &Arc<Services>,
    ) -> Result<Built, Error> {
        let specs = plan.changed();
        let specs = specs.filter_map(|(name, change)| Some((name, change.spec()?)));
        let specs = specs.filter(|(name, _)| wanted(name));
        specs
            .map(|(name, spec)| {
                let old = self.node(name.as_str()).map(|node| &**node);
                let node = Node::build(spec.clone(), old, inherit, services)?;
                Ok((name.clone(), Arc::new(node)))
            })
            .collect()
    }
}

/// Makes `entries` what `plan` makes of them with the nodes that were built for it.
pub(crate) fn exchange(entries: &mut Entries, plan: &Plan, built: &Built) {
    for (name, change) in plan.changed() {
        if matches!(change, Change::Remove) {
            entries.remove(name);
        } else if let Some(node) = built.get(name) {
            entries.insert(name.clone(), Entry::Node(Arc::clone(node)));
        }
    }
}

/// Whether what `plan` changes is sound: each plugin that another names is there, and no split leads back to where it began.
pub(crate) fn check_names(config: &Config, plan: &Plan) -> Result<(), Error> {
    let dangling = |spec: &PluginSpec| {
        let others = spec.policy.others().into_iter();
        let mut missing = others.filter(|(_, to)| !config.plugins.contains_key(*to));
        missing.next().map(|(key, to)| (key, to.clone()))
    };
    let changed = || plan.changed().filter_map(|(_, change)| change.spec());
    let removes = plan
        .changed()
        .any(|(_, change)| matches!(change, Change::Remove));
    let specs: Box<dyn Iterator<Item = &PluginSpec>> = if removes {
        Box::new(config.plugins.values())
    } else {
        Box::new(changed())
    };
    for spec in specs {
        if let Some((key, other)) = dangling(spec) {
            let why = format!("{key}: there is no plugin `{other}`: name one of this config");
            let name: Arc<str> = spec.name.as_str().into();
            return Err(Error::caused_by(Kind::Config, why).of_plugin(&name));
        }
    }
    // There was no loop before: one that is there now leads by what is changed.
    let begins = changed().map(|spec| &spec.name);
    if let Some(way) = split_loop(&config.plugins, begins) {
        let name = way[0].as_str().into();
        let way: Vec<_> = way.iter().map(|name| name.as_str()).collect();
        let why = format!(
            "split: {} leads back to where it began: remove one of these splits",
            way.join(" -> ")
        );
        return Err(Error::caused_by(Kind::Config, why).of_plugin(&name));
    }
    Ok(())
}

/// A way from one of `begins` by splits that comes back to where it was, if there is one.
fn split_loop<'a>(
    plugins: &'a BTreeMap<PluginName, PluginSpec>,
    begins: impl Iterator<Item = &'a PluginName>,
) -> Option<Vec<&'a PluginName>> {
    let targets = |name: &PluginName| {
        let plugin = plugins.get(name);
        let targets = plugin.map(|plugin| plugin.policy.split_to().collect::<Vec<_>>());
        targets.unwrap_or_default().into_iter()
    };
    let mut leads_out = HashSet::new();
    for name in begins {
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

    fn rebuilt(graph: &Graph, plan: &Plan, services: &Arc<Services>) -> Result<Graph, Error> {
        let built = graph.build(plan, |_| true, Inherit::Shared, services)?;
        let mut entries = graph.entries().clone();
        exchange(&mut entries, plan, &built);
        Ok(graph.next(entries))
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
                let new = rebuilt(&graph, &plan, &services).unwrap();
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
            let old = rebuilt(&old, &Plan::between(&Config::new(), &a), &services).unwrap();
            let before: Vec<_> = old.nodes().map(|(_, node)| Arc::clone(node)).collect();
            let bad = b.with(PluginSpec::in_process("9", "nobody").unwrap());
            prop_assert!(rebuilt(&old, &Plan::between(&a, &bad), &services).is_err());
            for node in &before {
                // The graph and this test: what was built is dropped.
                prop_assert_eq!(Arc::strong_count(node), 2);
            }
        }
    }
}
