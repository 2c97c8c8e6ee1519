//! The blocks `split` and `shadow`.

use super::balance::key_of;
use super::fault::Fault;
use super::keys::{MOST_TARGETS, TARGET};
use super::table::Table;
use super::{PluginName, ShadowSpec, SplitSpec, SplitTarget};

pub(super) fn split(mut table: Table<'_>, own: Option<&PluginName>) -> Option<SplitSpec> {
    let targets = match table.has("targets") {
        true => {
            for key in ["to", "percent"] {
                table.refuse(key, "says one plugin, and targets says several: keep one");
            }
            targets(&mut table, own)
        }
        false => {
            table.pass(&["targets"]);
            table.require("to");
            table.require("percent");
            let plugin = other("to", &mut table, own);
            let percent = table.number("percent");
            let target = plugin.zip(percent);
            target.map(|(plugin, percent)| vec![SplitTarget { plugin, percent }])
        }
    };
    let hash_on = table.read("hash_on", |given, _| key_of(given));
    table.finish();
    Some(SplitSpec {
        targets: targets?,
        hash_on,
    })
}

/// `None` if anything is wrong with one of them.
fn targets(split: &mut Table<'_>, own: Option<&PluginName>) -> Option<Vec<SplitTarget>> {
    let (report, doc) = (split.report(), split.doc());
    let items = split.list("targets")?;
    if items.is_empty() {
        split.problem(
            "targets",
            Fault::of_secret("is empty: name a plugin, or remove split"),
        );
        return None;
    }
    if items.len() > MOST_TARGETS {
        let message = format!("has {} targets, at most {MOST_TARGETS}", items.len());
        split.problem("targets", Fault::of_secret(message));
        return None;
    }
    let mut targets = Vec::<SplitTarget>::with_capacity(items.len());
    let mut is_sound = true;
    for item in items {
        let (at, node) = (item.given.node.at, item.given.node);
        let Some(mut table) = report.table(doc, &TARGET, item.path, at, node) else {
            is_sound = false;
            continue;
        };
        table.require("plugin");
        table.require("percent");
        let plugin = other("plugin", &mut table, own);
        let percent = table.number("percent");
        if let Some(plugin) = &plugin
            && targets.iter().any(|target| target.plugin == *plugin)
        {
            table.conflict(
                "plugin",
                format!("`{plugin}` has a part already: name it once"),
            );
            is_sound = false;
        }
        table.finish();
        match plugin.zip(percent) {
            Some((plugin, percent)) => targets.push(SplitTarget { plugin, percent }),
            None => is_sound = false,
        }
    }
    let sum: f64 = targets.iter().map(|target| target.percent.get()).sum();
    // As far as decimal fractions can be added up.
    if is_sound && sum > 100.0 + 1e-9 {
        let message = format!("are {sum} of 100 calls together: make them fewer");
        split.conflict("targets", message);
        is_sound = false;
    }
    is_sound.then_some(targets)
}

pub(super) fn shadow(mut table: Table<'_>, own: Option<&PluginName>) -> Option<ShadowSpec> {
    table.require("to");
    let to = other("to", &mut table, own);
    let percent = table.number("percent");
    let idempotent_only = table.bool("idempotent_only");
    let max_concurrent = table.integer("max_concurrent");
    let timeout = table.duration("timeout");
    table.finish();
    let usual = ShadowSpec::new(to?);
    Some(ShadowSpec {
        percent: percent.unwrap_or(usual.percent),
        idempotent_only: idempotent_only.unwrap_or(usual.idempotent_only),
        max_concurrent: max_concurrent.unwrap_or(usual.max_concurrent),
        timeout: timeout.unwrap_or(usual.timeout),
        ..usual
    })
}

/// The name of another plugin. Whether there is one is found when the graph is built.
fn other(key: &'static str, table: &mut Table<'_>, own: Option<&PluginName>) -> Option<PluginName> {
    table.read(key, |given, _| {
        let name = PluginName::new(given.text()?).ok_or_else(|| {
            Fault::of_value(format!("cannot name a plugin: {}", PluginName::RULE))
        })?;
        if Some(&name) == own {
            return Err(Fault::of_value("is this plugin itself: name another"));
        }
        Ok(name)
    })
}
