//! Plugins that are processes, beside HashiCorp's go-plugin in Go at either end.

mod go;
mod ours;

use std::fmt::Write;
use std::path::PathBuf;

use tower_plugins_interop::{Version, go as build};

use self::go::GoHost;
use self::ours::OurHost;
use super::Group;
use crate::harness::{Calls, Run, Sample, Variant};
use crate::report::Row;
use crate::{Result, plugin};

pub(super) const GROUP: Group = Group {
    name: "subprocess",
    about: "Wall time, with go-plugin 1.8.0 in Go as host (`go-`) and plugin (`-go`), and ours and our SDK's. `spawn`: from nothing to the first answer; `call`: a unary call after another, the median of 1 000 a round; `flight`: a call with 16 under way. `tls` is with AutoMTLS. Nothing is pinned: both processes have the whole machine.",
    variants,
    prepare: None,
    summary: Some(summary),
};

/// What is measured, and how many of it are a round.
#[derive(Clone, Copy)]
enum What {
    Spawn,
    Call,
    Flight,
}

impl What {
    const ALL: [Self; 3] = [Self::Spawn, Self::Call, Self::Flight];

    const fn word(self) -> &'static str {
        match self {
            Self::Spawn => "spawn",
            Self::Call => "call",
            Self::Flight => "flight",
        }
    }

    const fn round(self) -> u64 {
        match self {
            Self::Spawn => 5,
            Self::Call => 1000,
            Self::Flight => 10_000,
        }
    }

    /// At most so much of the time that Go takes at both ends.
    const fn target(self) -> f64 {
        match self {
            Self::Spawn => 1.0,
            Self::Call => 0.7,
            // Half as many calls more a second.
            Self::Flight => 1.0 / 1.5,
        }
    }
}

/// A host: how long so many take together.
trait Measures {
    fn measure(&mut self, what: What, count: u64) -> Result<Sample>;
}

/// The program and arguments of a plugin.
#[derive(Clone)]
struct Program(PathBuf, &'static str);

fn variants() -> Vec<Variant> {
    let Some(go) = build(Version::V1_8_0) else {
        return Vec::new();
    };
    let floors = [
        ["spawn-go-go", "spawn-tls-go-go"],
        ["call-go-go", "call-tls-go-go"],
        ["flight-go-go", "flight-tls-go-go"],
    ];
    let mut variants = Vec::new();
    for (what, floors) in What::ALL.into_iter().zip(floors) {
        for (floor, auto_mtls) in floors.into_iter().zip([false, true]) {
            let kind = floor.trim_end_matches("-go-go");
            let host = go.clone();
            let plugin = Program(go.clone(), "plugin");
            variants.push(variant(floor.to_owned(), floor, what, move || {
                Ok(Box::new(GoHost::start(&host, &plugin, auto_mtls)?))
            }));
            let plugin = Program(go.clone(), "plugin");
            let name = format!("{kind}-ours-go");
            variants.push(variant(name, floor, what, move || {
                Ok(Box::new(OurHost::start(&plugin, auto_mtls)?))
            }));
            variants.push(variant(
                format!("{kind}-ours-ours"),
                floor,
                what,
                move || {
                    let plugin = Program(std::env::current_exe()?, plugin::COMMAND);
                    Ok(Box::new(OurHost::start(&plugin, auto_mtls)?))
                },
            ));
        }
    }
    variants
}

fn variant(
    name: String,
    floor: &'static str,
    what: What,
    start: impl Fn() -> Result<Box<dyn Measures>> + 'static,
) -> Variant {
    Variant::new(name, floor, Calls::Few(what.round()), move || {
        let mut host = start()?;
        let run: Run = Box::new(move |count| Ok(Some(host.measure(what, count)?)));
        Ok(run)
    })
}

/// Whether each target was met, of the pairs that have one.
fn summary(rows: &[Row]) -> String {
    let mut text = "| target | ratio | most | |\n| --- | ---: | ---: | --- |\n".to_owned();
    for what in What::ALL {
        let of_kind = |row: &&Row| row.variant.starts_with(what.word());
        for row in rows.iter().filter(of_kind) {
            let most = match row.variant.rsplit_once("-ours-") {
                Some((_, "ours")) => what.target(),
                Some(_) => 1.0,
                None => continue,
            };
            let Some(ratio) = row.ratio else { continue };
            let met = if ratio <= most { "met" } else { "**missed**" };
            let name = &row.variant;
            // Writing to a string does not fail.
            let _ = writeln!(text, "| {name} | {ratio:.2} | {most:.2} | {met} |");
        }
    }
    text
}
