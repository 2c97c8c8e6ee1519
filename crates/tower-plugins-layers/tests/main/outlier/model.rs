//! The rules, written down a second time and as plainly as can be, against the detector.

use proptest::prelude::*;
use tokio::time::advance;
use tower_plugins_layers::outlier::{OutlierDetector, OutlierPolicy};

use super::{call, endpoints, out};
use crate::support::secs;

#[derive(Clone, Default)]
struct Endpoint {
    calls: u32,
    failures: u32,
    row: u32,
    times: u64,
    until: Option<u64>,
    back: u64,
}

/// Times are in seconds.
struct Model {
    consecutive: Option<u32>,
    stdev: Option<f64>,
    percentage: Option<u8>,
    most: usize,
    now: u64,
    swept: u64,
    endpoints: Vec<Endpoint>,
}

impl Model {
    const INTERVAL: u64 = 10;
    const BASE: u64 = 15;
    const LONGEST: u64 = 50;
    const MIN_REQUESTS: u32 = 4;
    const MIN_HOSTS: usize = 2;

    fn call(&mut self, i: usize, failed: bool) {
        self.look();
        let endpoint = &mut self.endpoints[i];
        endpoint.calls += 1;
        endpoint.row = if failed { endpoint.row + 1 } else { 0 };
        if failed {
            endpoint.failures += 1;
            if self.consecutive.is_some_and(|n| endpoint.row >= n) {
                endpoint.row = 0;
                self.eject(i);
            }
        }
    }

    fn look(&mut self) {
        for endpoint in &mut self.endpoints {
            if let Some(until) = endpoint.until.filter(|until| *until <= self.now) {
                *endpoint = Endpoint {
                    times: endpoint.times,
                    back: until,
                    ..Endpoint::default()
                };
            }
        }
        if self.now < self.swept + Self::INTERVAL {
            return;
        }
        for i in self.outliers() {
            self.eject(i);
        }
        for endpoint in &mut self.endpoints {
            if endpoint.until.is_none() {
                (endpoint.calls, endpoint.failures) = (0, 0);
                let healthy = self.now - self.swept.max(endpoint.back);
                endpoint.times = endpoint.times.saturating_sub(healthy / Self::INTERVAL);
            }
        }
        self.swept = self.now;
    }

    fn outliers(&self) -> Vec<usize> {
        let mut rates = Vec::new();
        for (i, endpoint) in self.endpoints.iter().enumerate() {
            if endpoint.until.is_none() && endpoint.calls >= Self::MIN_REQUESTS {
                let good = f64::from(endpoint.calls - endpoint.failures);
                rates.push((good / f64::from(endpoint.calls), i));
            }
        }
        if rates.len() < Self::MIN_HOSTS {
            return Vec::new();
        }
        let n = rates.len() as f64;
        let mean = rates.iter().map(|(rate, _)| rate / n).sum::<f64>();
        let stdev = rates
            .iter()
            .map(|(rate, _)| (rate - mean) * (rate - mean) / n)
            .sum::<f64>()
            .sqrt();
        rates.retain(|(rate, i)| {
            let endpoint = &self.endpoints[*i];
            self.stdev.is_some_and(|f| rate + 1e-9 < mean - f * stdev)
                || self.percentage.is_some_and(|percent| {
                    endpoint.failures * 100 >= u32::from(percent) * endpoint.calls
                })
        });
        rates.sort_by(|one, other| one.0.total_cmp(&other.0));
        rates.into_iter().map(|(_, i)| i).collect()
    }

    fn eject(&mut self, i: usize) {
        let out = self.endpoints.iter().filter(|e| e.until.is_some()).count();
        let endpoint = &mut self.endpoints[i];
        if out < self.most && endpoint.until.is_none() {
            endpoint.times += 1;
            let time = (Self::BASE * endpoint.times).min(Self::LONGEST);
            endpoint.until = Some(self.now + time);
        }
    }

    fn out(&self) -> Vec<usize> {
        let is_out = |i: &usize| {
            self.endpoints[*i]
                .until
                .is_some_and(|until| until > self.now)
        };
        (0..self.endpoints.len()).filter(is_out).collect()
    }
}

#[derive(Clone, Debug)]
enum Event {
    Calls { endpoint: usize, good: u8, bad: u8 },
    Advance(u64),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (0_usize..8, 0_u8..8, 0_u8..8)
            .prop_map(|(endpoint, good, bad)| Event::Calls { endpoint, good, bad }),
        1 => (0_u64..25).prop_map(Event::Advance),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn it_follows_the_rules_whatever_happens(
        consecutive in proptest::option::of(1_u32..8),
        stdev in proptest::option::of(0.5_f64..2.0),
        percentage in proptest::option::of(20_u8..=100),
        percent in 0_u8..=100,
        events in proptest::collection::vec(event(), 0..120),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let detector = OutlierDetector::new(
                OutlierPolicy::new()
                    .consecutive_failures(consecutive)
                    .success_rate_stdev(stdev)
                    .failure_percentage(percentage)
                    .max_ejection_percent(percent)
                    .min_requests(Model::MIN_REQUESTS)
                    .min_hosts(Model::MIN_HOSTS)
                    .base_ejection(secs(Model::BASE))
                    .max_ejection(secs(Model::LONGEST)),
            );
            let layers = endpoints(&detector, 8);
            let mut model = Model {
                consecutive,
                stdev,
                percentage,
                most: (8 * usize::from(percent) / 100).max(1),
                now: 0,
                swept: 0,
                endpoints: vec![Endpoint::default(); 8],
            };
            for event in events {
                match event {
                    Event::Calls { endpoint, good, bad } => {
                        let outcomes = [(good, 200), (bad, 500)];
                        for status in outcomes
                            .into_iter()
                            .flat_map(|(n, status)| std::iter::repeat_n(status, n.into()))
                        {
                            call(&layers[endpoint], status).await;
                            model.call(endpoint, status == 500);
                        }
                    }
                    Event::Advance(time) => {
                        advance(secs(time)).await;
                        model.now += time;
                    }
                }
                prop_assert_eq!(out(&layers), model.out());
            }
            Ok(())
        })?;
    }
}
