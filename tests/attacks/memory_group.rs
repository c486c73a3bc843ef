//! A control group that limits the memory of a process, as a container or a unit with `MemoryMax=` does.

use std::fs;
use std::path::{Path, PathBuf};

use host_fs::mount::MountTable;
use uuid::Uuid;

/// A control group with a limit, without processes at first. It is removed at the end, when its processes have ended.
pub(crate) struct MemoryGroup {
    path: PathBuf,
}

/// The names of the files of one version of control groups.
struct Version {
    limit: &'static str,
    events: &'static str,
}

const VERSION_1: Version = Version {
    limit: "memory.limit_in_bytes",
    events: "memory.oom_control",
};
const VERSION_2: Version = Version {
    limit: "memory.max",
    events: "memory.events",
};

impl MemoryGroup {
    /// Creates one that may have that many MiB.
    pub(crate) fn of_mib(limit: u64) -> Self {
        let parent = parent();
        let path = parent.join(format!("flocker-csi-test-{}", Uuid::new_v4()));
        fs::create_dir(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let group = Self { path };
        let file = group.path.join(group.version().limit);
        let set = fs::write(&file, (limit << 20).to_string());
        set.unwrap_or_else(|error| {
            panic!(
                "{}: {error}; these tests need a control group that limits memory",
                file.display()
            )
        });
        group
    }

    /// Limits a process: what it takes from now on.
    pub(crate) fn add(&self, process: u32) {
        fs::write(self.path.join("cgroup.procs"), process.to_string()).unwrap();
    }

    /// Asserts that the kernel has ended no process of the group for want of memory.
    pub(crate) fn assert_none_killed(&self) {
        let events = fs::read_to_string(self.path.join(self.version().events)).unwrap();
        let killed = events.lines().find_map(|line| line.strip_prefix("oom_kill "));
        assert_eq!(killed, Some("0"), "{events}");
    }

    fn version(&self) -> Version {
        if self.path.join(VERSION_2.limit).exists() {
            VERSION_2
        } else {
            VERSION_1
        }
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        fs::remove_dir(&self.path).ok();
    }
}

/// Returns the group of this process in the hierarchy that limits memory.
fn parent() -> PathBuf {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap();
    let of = |prefix: &dyn Fn(&str) -> bool| {
        own.lines().find_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            prefix(controllers).then(|| path.trim_start_matches('/').to_owned())
        })
    };
    let table = MountTable::read().unwrap();
    let mounted = |fs_type: &str, holds: &dyn Fn(&Path) -> bool| {
        let mut mounts = table.mounts().iter();
        let found = mounts.find(|mount| mount.fs_type == fs_type && holds(&mount.point));
        found.map(|mount| mount.point.clone())
    };
    let first = mounted("cgroup", &|point| point.join(VERSION_1.limit).exists());
    let second = mounted("cgroup2", &|_| true);
    let group = match (first, second) {
        (Some(point), _) => of(&|controllers| controllers.split(',').any(|name| name == "memory"))
            .map(|path| below(&point, &path)),
        (None, Some(point)) => of(&str::is_empty).map(|path| below(&point, &path)),
        (None, None) => None,
    };
    group.expect("control groups that limit memory are mounted")
}

/// In a container the path may be one outside of what is mounted.
fn below(point: &Path, path: &str) -> PathBuf {
    let group = point.join(path);
    if group.is_dir() { group } else { point.to_owned() }
}
