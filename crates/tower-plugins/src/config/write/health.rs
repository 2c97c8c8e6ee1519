//! `health_check`.

use super::super::tree::Node;
use super::super::{HealthKind, HealthSpec};
use super::breaker::statuses;
use super::values::{duration, duration_or_off, integer, number, table, text};

pub(super) fn health(health: &HealthSpec) -> Option<Node<'static>> {
    let HealthSpec {
        kind,
        interval,
        unhealthy_interval,
        jitter,
        timeout,
        failure_limit,
        healthy_threshold,
        degraded_after,
    } = health;
    let (word, path, well, service) = match kind {
        HealthKind::Http { path, statuses } => ("http", Some(path), Some(statuses), None),
        HealthKind::Grpc { service } => ("grpc", None, None, Some(service)),
        HealthKind::GrpcWatch { service } => ("grpc-watch", None, None, Some(service)),
        HealthKind::Tcp => ("tcp", None, None, None),
        HealthKind::Process => ("process", None, None, None),
    };
    Some(table([
        ("kind", text(word)),
        ("endpoint", path.and_then(|path| text(path.as_str()))),
        ("statuses", well.map(statuses)),
        ("service", service.and_then(|service| text(service))),
        ("interval", duration(*interval)),
        ("unhealthy_interval", unhealthy_interval.and_then(duration)),
        ("jitter", number(*jitter)),
        ("timeout", duration(*timeout)),
        ("failure_limit", integer(*failure_limit)),
        ("healthy_threshold", integer(*healthy_threshold)),
        ("degraded_after", duration_or_off(*degraded_after)),
    ]))
}
