//! The mount table, as the tests and other processes read it.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

/// One line of the mount table of this thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    pub(crate) id: u64,
    /// The device's numbers, as `7:3`.
    pub(crate) device: String,
    /// The directory of the file system that is mounted.
    root: PathBuf,
    pub(crate) point: PathBuf,
    /// The options of the mount, not those of the file system.
    pub(crate) options: Vec<String>,
    /// The device's name, as it was passed to mount(2).
    pub(crate) source: String,
}

/// All mounts, oldest first.
pub(crate) struct Mounts(Vec<Mount>);

impl Mounts {
    pub(crate) fn read() -> Self {
        let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        Self(table.lines().map(parse).collect())
    }

    /// Returns the mounts at a path, the visible one last.
    pub(crate) fn at(&self, point: &Path) -> Vec<Mount> {
        self.select(|mount| mount.point == point)
    }

    /// Returns the mounts at a directory and below it.
    pub(crate) fn below(&self, directory: &Path) -> Vec<Mount> {
        self.select(|mount| mount.point.starts_with(directory))
    }

    /// Returns where each device is mounted from the point of view of Flocker's agent: by its name, and the last one of
    /// several lines with one name.
    pub(crate) fn seen_by_the_agent(&self) -> HashMap<&str, &Path> {
        let lines = self.0.iter();
        lines
            .map(|mount| (mount.source.as_str(), mount.point.as_path()))
            .collect()
    }

    /// Returns the mounts that the kubelet considers other uses of a directory before it calls `NodeUnstageVolume`: other
    /// mounts of the directory's device whose root is the directory's own path in that file system.
    pub(crate) fn seen_by_kubelet(&self, directory: &Path) -> Vec<Mount> {
        let holder = self.0.iter().rfind(|mount| directory.starts_with(&mount.point));
        let holder = holder.expect("something holds every directory");
        let place = match directory.strip_prefix(&holder.point).unwrap() {
            inside if inside == Path::new("") => holder.root.clone(),
            inside => holder.root.join(inside),
        };
        self.select(|mount| mount.id != holder.id && mount.device == holder.device && mount.root == place)
    }

    fn select(&self, test: impl Fn(&Mount) -> bool) -> Vec<Mount> {
        self.0.iter().filter(|mount| test(mount)).cloned().collect()
    }
}

/// Parses one line: `36 35 98:0 /root /mount/point rw,noatime shared:1 - ext4 /dev/name rw`.
fn parse(line: &str) -> Mount {
    let fields: Vec<_> = line.split(' ').collect();
    let separator = fields.iter().position(|field| *field == "-").unwrap();
    Mount {
        id: fields[0].parse().unwrap(),
        device: fields[2].to_owned(),
        root: PathBuf::from(fields[3]),
        point: PathBuf::from(fields[4]),
        options: fields[5].split(',').map(str::to_owned).collect(),
        source: fields[separator + 2].to_owned(),
    }
}

/// Returns the one mount at a path.
pub(crate) fn only_mount_at(point: &Path) -> Mount {
    let mut mounts = Mounts::read().at(point);
    assert_eq!(mounts.len(), 1, "one line at {}: {mounts:?}", point.display());
    mounts.remove(0)
}
