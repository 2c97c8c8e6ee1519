//! The hierarchies of cgroups that are mounted, and where in them this program is.

use std::fs;
use std::path::{Component, Path, PathBuf};

use super::{NoCgroup, write};

/// One hierarchy, and the cgroup in it in which others are made.
#[derive(Debug)]
pub(super) struct Hierarchy {
    pub(super) is_v2: bool,
    pub(super) parent: PathBuf,
    controllers: Vec<String>,
}

/// Those that are mounted, that of version 2 first, with the cgroup `below` as where others are made; without it that of
/// this program.
pub(super) fn hierarchies(below: Option<&str>) -> Result<Vec<Hierarchy>, NoCgroup> {
    let read = |path: &str| {
        fs::read_to_string(path).map_err(|error| match cfg!(target_os = "linux") {
            true => NoCgroup::at(Path::new(path), error),
            false => NoCgroup::Missing("it takes Linux".to_owned()),
        })
    };
    let (mounts, own) = (read("/proc/self/mountinfo")?, read("/proc/self/cgroup")?);
    Ok(of(&mounts, &own, below))
}

fn of(mounts: &str, own: &str, below: Option<&str>) -> Vec<Hierarchy> {
    let found = mounts.lines().filter_map(|line| mounted(line, own, below));
    let mut found: Vec<_> = found.collect();
    found.sort_by_key(|hierarchy| !hierarchy.is_v2);
    found
}

/// The hierarchy that `mount`, a line of `/proc/self/mountinfo`, mounts.
fn mounted(mount: &str, own: &str, below: Option<&str>) -> Option<Hierarchy> {
    let (before, after) = mount.split_once(" - ")?;
    let mut before = before.split(' ').skip(3);
    let (root, point) = (before.next()?, before.next()?);
    let mut after = after.split(' ');
    let (kind, options) = (after.next()?, after.nth(1)?);
    let is_v2 = match kind {
        "cgroup2" => true,
        "cgroup" => false,
        _ => return None,
    };
    let options: Vec<_> = options.split(',').collect();
    // number:controllers:path
    let own = own.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        let is_this = match is_v2 {
            true => controllers.is_empty(),
            false => controllers.split(',').any(|one| options.contains(&one)),
        };
        is_this.then_some(path)
    })?;
    // What is mounted need not be the root of the hierarchy.
    let own = Path::new(own);
    let own = own
        .strip_prefix(root)
        .or_else(|_| own.strip_prefix("/"))
        .ok()?;
    let parent = Path::new(point).join(match below {
        Some(below) => within(own, below),
        None => own.to_owned(),
    });
    let controllers = match is_v2 {
        true => {
            let text = fs::read_to_string(parent.join("cgroup.controllers"));
            let text = text.unwrap_or_default();
            text.split_whitespace().map(str::to_owned).collect()
        }
        false => options.into_iter().map(str::to_owned).collect(),
    };
    Some(Hierarchy {
        is_v2,
        parent,
        controllers,
    })
}

/// Where `below` is, which is absolute or relative to `own`, without a way out of the hierarchy.
fn within(own: &Path, below: &str) -> PathBuf {
    let mut path = match below.starts_with('/') {
        true => PathBuf::new(),
        false => own.to_owned(),
    };
    for component in Path::new(below).components() {
        match component {
            Component::ParentDir => {
                path.pop();
            }
            Component::Normal(name) => path.push(name),
            _ => {}
        }
    }
    path
}

impl Hierarchy {
    pub(super) fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|one| one == controller)
    }

    /// Has the cgroups in the parent have `controllers`, which version 2 has to be told.
    pub(super) fn enable(&self, controllers: &[&str]) -> Result<(), NoCgroup> {
        if !self.is_v2 {
            return Ok(());
        }
        let path = self.parent.join("cgroup.subtree_control");
        let enabled = fs::read_to_string(&path).unwrap_or_default();
        let enabled: Vec<_> = enabled.split_whitespace().collect();
        for controller in controllers.iter().filter(|one| !enabled.contains(one)) {
            let busy = rustix::io::Errno::BUSY.raw_os_error();
            write(&path, &format!("+{controller}")).map_err(|error| match error.raw_os_error() {
                Some(code) if code == busy => NoCgroup::Missing(format!(
                    "{} has processes of its own, as this program is one, and then none below it has a controller: run this \
                     program in a cgroup of its own below (systemd: Delegate=yes and DelegateSubgroup=host), with \
                     `process.limits.cgroup: ..`",
                    self.parent.display()
                )),
                _ => NoCgroup::at(&path, error),
            })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 /docker/a /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory
41 31 0:38 / /nowhere/unified rw,relatime - cgroup2 cgroup2 rw";
    const OWN: &str = "4:memory:/docker/a/b\n1:cpuacct,cpu:/x/y\n0::/system.slice/host";

    fn parents(below: Option<&str>) -> Vec<String> {
        let found = of(MOUNTS, OWN, below).into_iter();
        let shown = found.map(|one| one.parent.display().to_string());
        shown.collect()
    }

    #[test]
    fn the_cgroup_of_this_program_is_found_in_each_hierarchy() {
        let own = [
            "/nowhere/unified/system.slice/host",
            "/sys/fs/cgroup/cpu/x/y",
            "/sys/fs/cgroup/memory/b",
        ];
        assert_eq!(parents(None), own);
        let found = of(MOUNTS, OWN, None);
        assert!(found[1].has("cpu") && found[2].has("memory") && !found[2].has("cpu"));
    }

    #[test]
    fn another_cgroup_is_absolute_or_relative_and_never_outside() {
        let above = parents(Some(".."));
        assert_eq!(above[0], "/nowhere/unified/system.slice");
        assert_eq!(parents(Some("/a/b"))[0], "/nowhere/unified/a/b");
        assert_eq!(parents(Some("../../../../etc"))[0], "/nowhere/unified/etc");
    }
}
