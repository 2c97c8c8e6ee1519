//! What each layer costs alone, ours and others'.

mod calls;
mod ours;
mod theirs;

use std::fmt::Write;
use std::time::Duration;

use tower_service::Service;

use self::calls::{Null, Refusing, answered, by_reference, refused, request};
use super::Group;
use crate::Result;
use crate::groups::full;
use crate::harness::{Calls, Run, Variant, in_turn, runtime};
use crate::report::Row;

pub(super) const GROUP: Group = Group {
    name: "layers",
    about: "One layer around a service that answers at once: thread CPU time of making the request, `ready`, the call and reading the body. `.ours` and `.ours-ref` are our layers by value and by reference, `.resilience` is tower-resilience's without its observability, `.tower` is tower's.",
    variants,
    prepare: None,
    summary: Some(summary),
};

const FLOOR: &str = "nothing";
/// The floor of calls by reference.
const FLOOR_BY_REFERENCE: &str = "nothing-ref";
/// The floor of calls that are refused: their request is made and dropped.
const FLOOR_REFUSED: &str = "nothing-refused";

const OURS: &str = "ours";
const BY_REFERENCE: &str = "ours-ref";
const RESILIENCE: &str = "resilience";
const TOWER: &str = "tower";

/// A time that no call takes.
const SOON: Duration = Duration::from_secs(5);
/// A time that no measurement takes.
const LONG: Duration = Duration::from_secs(3600);
/// More calls a second than there can be.
const MANY: u32 = 100_000_000;

/// Calls in the window of a breaker that counts by time.
const WINDOWS: [u64; 3] = [1000, 10_000, 100_000];

/// Calls in the window of a breaker that counts by calls.
const WINDOW_CALLS: u32 = 100;

/// Endpoints to pick among.
const ENDPOINTS: [usize; 2] = [10, 1000];

fn variants() -> Vec<Variant> {
    let floor = |name, make: fn() -> Result<Run>| counted(2000, name, name.to_owned(), make);
    let mut variants = vec![
        floor(FLOOR, || answered(|| Ok(Null))),
        floor(FLOOR_BY_REFERENCE, || by_reference!(Null)),
        floor(FLOOR_REFUSED, || refused(0, async || Ok(Refusing))),
    ];
    variants.extend(ours::variants());
    variants.extend(theirs::variants());
    variants
}

fn variant(layer: &str, whose: &str, make: impl Fn() -> Result<Run> + 'static) -> Variant {
    counted(
        2000,
        floor_of(layer, whose),
        format!("{layer}.{whose}"),
        make,
    )
}

/// A breaker with so many calls in its window. Few are counted, so that there are no more of them.
fn window_variant(calls: u64, whose: &str, make: impl Fn() -> Result<Run> + 'static) -> Variant {
    let name = format!("breaker-window-{}k.{whose}", calls / 1000);
    let calls = (calls / 5).min(2000).min(2_000_000 / calls);
    counted(calls, FLOOR, name, make)
}

fn counted(
    calls: u64,
    floor: &'static str,
    name: String,
    make: impl Fn() -> Result<Run> + 'static,
) -> Variant {
    Variant::new(name, floor, Calls::Counted(calls), make)
}

fn floor_of(layer: &str, whose: &str) -> &'static str {
    match layer {
        "breaker-open" | "rate_limit-refused" => FLOOR_REFUSED,
        _ if whose == BY_REFERENCE => FLOOR_BY_REFERENCE,
        _ => FLOOR,
    }
}

/// What each layer adds to the floor, and ours as a share of others'.
fn summary(rows: &[Row]) -> String {
    let mut text = String::from(
        "What a layer adds to its floor: time (of the fastest rounds), instructions, allocations; and ours, by value, as a share of theirs in time and instructions.\n\n\
         | layer | ours | ours by reference | tower-resilience | ours / theirs | tower | ours / theirs |\n\
         | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    let mut layers: Vec<&str> = Vec::new();
    for row in rows {
        if let Some((layer, _)) = row.variant.split_once('.')
            && !layers.contains(&layer)
        {
            layers.push(layer);
        }
    }
    for layer in layers {
        let cost = |whose: &str| {
            let name = format!("{layer}.{whose}");
            let row = rows.iter().find(|row| row.variant == name)?;
            let floor = rows
                .iter()
                .find(|floor| Some(&*floor.variant) == row.floor)?;
            Some(Cost::of(row).over(Cost::of(floor)))
        };
        let [ours, by_reference, resilience, tower] =
            [OURS, BY_REFERENCE, RESILIENCE, TOWER].map(cost);
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "| {layer} | {} | {} | {} | {} | {} | {} |",
            written(ours),
            written(by_reference),
            written(resilience),
            share(ours, resilience),
            written(tower),
            share(ours, tower),
        );
    }
    text
}

/// Nanoseconds, instructions and allocations a call.
#[derive(Clone, Copy)]
struct Cost([Option<f64>; 3]);

impl Cost {
    const fn of(row: &Row) -> Self {
        Self([row.min_ns, row.instructions, row.allocations])
    }

    fn over(self, floor: Self) -> Self {
        Self(std::array::from_fn(|i| Some(self.0[i]? - floor.0[i]?)))
    }
}

fn written(cost: Option<Cost>) -> String {
    let Some(Cost([nanos, instructions, allocations])) = cost else {
        return "-".to_owned();
    };
    let cell = |value: Option<f64>, unit: &str| {
        value.map_or_else(|| "-".to_owned(), |value| format!("{value:.0}{unit}"))
    };
    let (nanos, instructions) = (cell(nanos, " ns"), cell(instructions, ""));
    format!("{nanos}, {instructions}, {}", cell(allocations, ""))
}

fn share(ours: Option<Cost>, theirs: Option<Cost>) -> String {
    let share = |what: usize| {
        let share = ours?.0[what]? / theirs?.0[what]?;
        Some(format!("{share:.2}"))
    };
    match (share(0), share(1)) {
        (None, None) => "-".to_owned(),
        (time, instructions) => {
            let [time, instructions] =
                [time, instructions].map(|share| share.unwrap_or_else(|| "-".to_owned()));
            format!("{time}, {instructions}")
        }
    }
}
