//! `outlier_detection`.

use std::time::Duration;

use super::OutlierSpec;
use super::blocks::Overlay;
use super::error::ProblemKind;
use super::fault::Fault;
use super::table::Table;
use super::units::write_duration;

/// The layer takes none that is longer.
const LONGEST_INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);

/// Off until it is there.
#[derive(Clone, Default)]
pub(super) struct Outlier {
    enabled: bool,
    /// The longest ejection is here if it was written: the library's gives way to a longer base.
    spec: OutlierSpec,
    has_longest: bool,
}

impl Overlay for Outlier {
    fn read(&self, table: &mut Table<'_>) -> Self {
        let base = &self.spec;
        let enabled = table.bool("enabled").unwrap_or(true);
        let longest = table.duration("max_ejection_time");
        let has_longest = self.has_longest || longest.is_some();
        let mut spec = OutlierSpec {
            consecutive_failures: match table.integer("consecutive_failures") {
                Some(failures) => Some(failures).filter(|failures| *failures > 0),
                None => base.consecutive_failures,
            },
            success_rate_stdev_factor: match table.number("success_rate_stdev_factor") {
                Some(factor) => Some(factor).filter(|factor| factor.get() > 0.0),
                None => base.success_rate_stdev_factor,
            },
            failure_percentage_threshold: match table.integer("failure_percentage_threshold") {
                Some(percent) => Some(percent).filter(|percent| *percent > 0),
                None => base.failure_percentage_threshold,
            },
            min_requests: table.integer("min_requests").unwrap_or(base.min_requests),
            min_hosts: table.integer("min_hosts").unwrap_or(base.min_hosts),
            interval: table.duration("interval").unwrap_or(base.interval),
            base_ejection_time: table
                .duration("base_ejection_time")
                .unwrap_or(base.base_ejection_time),
            max_ejection_time: longest.unwrap_or(base.max_ejection_time),
            max_ejection_time_jitter: table
                .duration("max_ejection_time_jitter")
                .unwrap_or(base.max_ejection_time_jitter),
            max_ejection_percent: table
                .integer("max_ejection_percent")
                .unwrap_or(base.max_ejection_percent),
            always_eject_one_host: table
                .bool("always_eject_one_host")
                .unwrap_or(base.always_eject_one_host),
        };
        if !has_longest {
            let library = OutlierSpec::default().max_ejection_time;
            spec.max_ejection_time = library.max(spec.base_ejection_time);
        }
        if spec.interval > LONGEST_INTERVAL {
            let message = format!("{} is longer than a day", write_duration(spec.interval));
            table.problem("interval", Fault::of_secret(message));
        }
        if enabled && table.is_sound() {
            check(table, &spec);
        }
        Self {
            enabled,
            spec,
            has_longest,
        }
    }

    fn off(&self) -> Option<Self> {
        Some(Self {
            enabled: false,
            ..self.clone()
        })
    }
}

fn check(table: &Table<'_>, spec: &OutlierSpec) {
    if spec.base_ejection_time > spec.max_ejection_time {
        let message = format!(
            "{} is longer than max_ejection_time, {}",
            write_duration(spec.base_ejection_time),
            write_duration(spec.max_ejection_time)
        );
        table.conflict("base_ejection_time", message);
    }
    if spec.consecutive_failures.is_none() && !by_rates(spec) {
        table.conflict(
            "consecutive_failures",
            "0 leaves nothing that ejects an endpoint: set failure_percentage_threshold, or enabled: false",
        );
    } else if !by_rates(spec) {
        for key in ["min_requests", "min_hosts"]
            .into_iter()
            .filter(|key| table.has(key))
        {
            let message = "does nothing without success_rate_stdev_factor or failure_percentage_threshold: \
                           set one of them, or remove this";
            table.problem(key, Fault::new(ProblemKind::Ineffective, message));
        }
    }
    if spec.max_ejection_percent == 0 && !spec.always_eject_one_host {
        table.conflict(
            "max_ejection_percent",
            "0 leaves no endpoint that may be ejected: set always_eject_one_host, or enabled: false",
        );
    }
}

fn by_rates(spec: &OutlierSpec) -> bool {
    spec.success_rate_stdev_factor.is_some() || spec.failure_percentage_threshold.is_some()
}

impl Outlier {
    /// What does nothing is as if nobody had said it.
    pub(super) fn armed(&self) -> Option<OutlierSpec> {
        let mut spec = self.enabled.then(|| self.spec.clone())?;
        if !by_rates(&spec) {
            let library = OutlierSpec::default();
            spec.min_requests = library.min_requests;
            spec.min_hosts = library.min_hosts;
        }
        Some(spec)
    }
}
