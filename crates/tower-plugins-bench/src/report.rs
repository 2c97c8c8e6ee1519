//! The figures as JSON lines and as a Markdown table.

use std::fmt::Write;

use serde::Serialize;

use crate::Result;
use crate::groups::Group;

/// The figures of one variant; `None` is what was not measured.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) group: &'static str,
    pub(crate) variant: String,
    pub(crate) floor: Option<&'static str>,
    /// Nanoseconds a call.
    pub(crate) median_ns: Option<f64>,
    pub(crate) min_ns: Option<f64>,
    /// The median over the floor's.
    pub(crate) ratio: Option<f64>,
    /// User-space instructions a call.
    pub(crate) instructions: Option<f64>,
    pub(crate) ratio_instructions: Option<f64>,
    /// Allocations a call.
    pub(crate) allocations: Option<f64>,
    pub(crate) rounds: usize,
}

/// Sets each row's ratios to those of its floor.
pub(crate) fn compare(rows: &mut [Row]) {
    let floors: Vec<_> = rows
        .iter()
        .map(|row| {
            let floor = rows
                .iter()
                .find(|floor| Some(floor.variant.as_str()) == row.floor);
            floor.map(|floor| (floor.median_ns, floor.instructions))
        })
        .collect();
    let ratio = |value: Option<f64>, floor: Option<f64>| Some(value? / floor?);
    for (row, floor) in rows.iter_mut().zip(floors) {
        if let Some((median_ns, instructions)) = floor {
            row.ratio = ratio(row.median_ns, median_ns);
            row.ratio_instructions = ratio(row.instructions, instructions);
        }
    }
}

pub(crate) fn json(rows: &[Row]) -> Result<String> {
    let mut text = String::new();
    for row in rows {
        text.push_str(&serde_json::to_string(row)?);
        text.push('\n');
    }
    Ok(text)
}

pub(crate) fn markdown(group: &Group, rows: &[Row]) -> String {
    let mut text = format!("### {}\n\n{}\n\n", group.name, group.about);
    text.push_str(
        "| variant | floor | median | min | x floor | instructions | x floor | allocations | rounds |\n\
         | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for row in rows {
        let cell = |value: Option<f64>, digits| {
            value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
        };
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            row.variant,
            row.floor.unwrap_or("-"),
            time(row.median_ns),
            time(row.min_ns),
            cell(row.ratio, 2),
            cell(row.instructions, 0),
            cell(row.ratio_instructions, 2),
            cell(row.allocations, 2),
            row.rounds,
        );
    }
    if let Some(summary) = group.summary {
        text.push('\n');
        text.push_str(&summary(rows));
    }
    text
}

fn time(nanos: Option<f64>) -> String {
    match nanos {
        None => "-".to_owned(),
        Some(nanos) if nanos < 1e4 => format!("{nanos:.0} ns"),
        Some(nanos) if nanos < 1e6 => format!("{:.1} us", nanos / 1e3),
        Some(nanos) => format!("{:.2} ms", nanos / 1e6),
    }
}
