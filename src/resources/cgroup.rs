//! Limits of the control groups that the process is in, version 2 and 1.

use std::path::{Component, Path, PathBuf};

use super::read::{number, text};

/// Groups above each other that are looked at.
const DEPTH_MAX: usize = 32;
/// Version 1 says so when there is no limit.
const UNLIMITED: u64 = 1 << 60;

/// What the process may use, and what its group uses.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Limits {
    pub(super) memory_max: Option<u64>,
    pub(super) memory_used: Option<u64>,
    /// Cores, or a part of one.
    pub(super) cores: Option<f64>,
}

/// The smallest limits of the groups of this process and those above them. `root` is `/`, but in
/// tests.
pub(super) fn limits(root: &Path) -> Limits {
    let mut limits = Limits::default();
    let groups = text(&root.join("proc/self/cgroup")).unwrap_or_default();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else {
            continue;
        };
        let mount = |name| root.join("sys/fs/cgroup").join(name);
        let has = |name| controllers.split(',').any(|controller| controller == name);
        if controllers.is_empty() {
            for dir in up(&mount(""), path) {
                limits.memory(text(&dir.join("memory.max")), &dir.join("memory.current"));
                limits.cores(text(&dir.join("cpu.max")).and_then(|text| cpu_max(&text)));
            }
        }
        if has("memory") {
            for dir in up(&mount("memory"), path) {
                let most = text(&dir.join("memory.limit_in_bytes"));
                limits.memory(most, &dir.join("memory.usage_in_bytes"));
            }
        }
        if has("cpu") {
            for dir in up(&mount("cpu"), path) {
                let of = |name| number(&dir.join(name)).map(|us| us as f64);
                let quota = of("cpu.cfs_quota_us").zip(of("cpu.cfs_period_us"));
                limits.cores(quota.map(|(quota, period)| quota / period));
            }
        }
    }
    limits
}

impl Limits {
    fn memory(&mut self, most: Option<String>, used: &Path) {
        let most = most.and_then(|most| most.trim().parse().ok());
        let Some(most) = most.filter(|most: &u64| *most < UNLIMITED) else {
            return;
        };
        if self.memory_max.is_none_or(|max| most < max) {
            self.memory_max = Some(most);
            self.memory_used = number(used);
        }
    }

    fn cores(&mut self, cores: Option<f64>) {
        let cores = cores.filter(|cores| cores.is_finite() && *cores > 0.0);
        self.cores = match (self.cores, cores) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    }
}

/// `cpu.max`: `max 100000`, or quota and period.
fn cpu_max(text: &str) -> Option<f64> {
    let mut parts = text.split_ascii_whitespace().map(str::parse::<f64>);
    Some(parts.next()?.ok()? / parts.next()?.ok()?)
}

/// The directory of a group and those above it, up to the mount. A container may see the path of
/// its group from outside, where there is no such directory: then what is above it counts.
fn up(mount: &Path, path: &str) -> Vec<PathBuf> {
    let inside = Path::new(path.trim_start_matches('/'));
    let plain = |part| matches!(part, Component::Normal(_));
    if !inside.components().all(plain) {
        return vec![mount.to_owned()];
    }
    let dirs = inside.ancestors().take(DEPTH_MAX);
    dirs.map(|dir| mount.join(dir)).collect()
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
        let temp = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = temp.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        temp
    }

    #[test]
    fn the_smallest_limit_on_the_way_up_counts() {
        let root = root(&[
            ("proc/self/cgroup", "0::/a/b\n"),
            ("sys/fs/cgroup/a/b/memory.max", "max\n"),
            ("sys/fs/cgroup/a/b/memory.current", "1\n"),
            ("sys/fs/cgroup/a/b/cpu.max", "max 100000\n"),
            ("sys/fs/cgroup/a/memory.max", "1000\n"),
            ("sys/fs/cgroup/a/memory.current", "400\n"),
            ("sys/fs/cgroup/a/cpu.max", "150000 100000\n"),
        ]);
        let expected = Limits {
            memory_max: Some(1000),
            memory_used: Some(400),
            cores: Some(1.5),
        };
        assert_eq!(limits(root.path()), expected);
    }

    #[test]
    fn version_1_is_understood() {
        let root = root(&[
            (
                "proc/self/cgroup",
                "7:cpu,cpuacct:/x\n5:memory:/x\n1:name=systemd:/y\n",
            ),
            (
                "sys/fs/cgroup/memory/x/memory.limit_in_bytes",
                "9223372036854771712\n",
            ),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "2000\n"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "50\n"),
            ("sys/fs/cgroup/cpu/x/cpu.cfs_quota_us", "50000\n"),
            ("sys/fs/cgroup/cpu/x/cpu.cfs_period_us", "100000\n"),
            ("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n"),
        ]);
        let expected = Limits {
            memory_max: Some(2000),
            memory_used: Some(50),
            cores: Some(0.5),
        };
        assert_eq!(limits(root.path()), expected);
    }

    #[test]
    fn what_is_not_there_or_absurd_is_no_limit() {
        assert_eq!(limits(Path::new("/no such root")), Limits::default());
        let absurd = root(&[
            ("proc/self/cgroup", "0::/../../etc\nx\n::\n0::\n"),
            ("sys/fs/cgroup/memory.max", "-5\n"),
            ("sys/fs/cgroup/cpu.max", "100000 0\n"),
            ("etc/memory.max", "7\n"),
        ]);
        assert_eq!(limits(absurd.path()), Limits::default());
    }
}
