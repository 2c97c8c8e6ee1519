//! The blocks `split` and `shadow`.

use super::balance::key_of;
use super::fault::Fault;
use super::table::Table;
use super::{PluginName, ShadowSpec, SplitSpec};

pub(super) fn split(mut table: Table<'_>, own: Option<&PluginName>) -> Option<SplitSpec> {
    table.require("to");
    table.require("percent");
    let to = to(&mut table, own);
    let percent = table.number("percent");
    let hash_on = table.read("hash_on", |given, _| key_of(given));
    table.finish();
    Some(SplitSpec {
        to: to?,
        percent: percent?,
        hash_on,
    })
}

pub(super) fn shadow(mut table: Table<'_>, own: Option<&PluginName>) -> Option<ShadowSpec> {
    table.require("to");
    let to = to(&mut table, own);
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
fn to(table: &mut Table<'_>, own: Option<&PluginName>) -> Option<PluginName> {
    table.read("to", |given, _| {
        let name = PluginName::new(given.text()?).ok_or_else(|| {
            Fault::of_value(format!("cannot name a plugin: {}", PluginName::RULE))
        })?;
        if Some(&name) == own {
            return Err(Fault::of_value("is this plugin itself: name another"));
        }
        Ok(name)
    })
}
