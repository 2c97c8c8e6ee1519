//! `process.rlimits` as the kernel takes them.

use rustix::process::{Resource, getrlimit};

use crate::config::Rlimits;

/// One that is above what the host has itself.
#[derive(Debug, thiserror::Error)]
#[error(
    "`process.rlimits.{name}` is {asked}, and this program itself may not have more than {own}: set it to that or less, or raise \
     this program's hard limit"
)]
pub(crate) struct AboveOwn {
    name: &'static str,
    asked: u64,
    own: u64,
}

/// What is set in the child.
pub(super) fn of(rlimits: &Rlimits) -> Result<Vec<(Resource, u64)>, AboveOwn> {
    let asked = [
        ("nofile", Resource::Nofile, rlimits.nofile.map(u64::from)),
        ("address_space", Resource::As, rlimits.address_space),
        ("core", Resource::Core, rlimits.core),
        ("fsize", Resource::Fsize, rlimits.fsize),
        ("cpu", Resource::Cpu, rlimits.cpu.map(u64::from)),
        ("nproc", Resource::Nproc, rlimits.nproc.map(u64::from)),
    ];
    let asked = asked
        .into_iter()
        .filter_map(|(name, resource, asked)| Some((name, resource, asked?)));
    let checked = asked.map(
        |(name, resource, asked)| match getrlimit(resource).maximum {
            Some(own) if own < asked => Err(AboveOwn { name, asked, own }),
            _ => Ok((resource, asked)),
        },
    );
    checked.collect()
}
