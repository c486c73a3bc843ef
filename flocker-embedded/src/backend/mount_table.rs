//! The kernel's mount table, read as Flocker's agent reads it: by device name.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// The table of the calling thread's mount namespace. `/proc/self` would be that of the main thread.
pub(crate) const MOUNT_TABLE: &str = "/proc/thread-self/mountinfo";

/// One line: a mount.
#[derive(Clone, Debug, PartialEq)]
struct Line {
    /// The device's number, as `7:3`.
    number: String,
    mount_point: PathBuf,
    /// The device's name as passed to mount(2).
    source: PathBuf,
}

/// All mounts, oldest first.
#[derive(Debug)]
pub(super) struct MountTable(Vec<Line>);

impl MountTable {
    pub(super) fn read() -> io::Result<Self> {
        Ok(Self::parse(&fs::read(MOUNT_TABLE)?))
    }

    fn parse(text: &[u8]) -> Self {
        Self(text.split(|byte| *byte == b'\n').filter_map(parse_line).collect())
    }

    /// Returns where each device is mounted, by its name. The last of several lines of one name counts.
    pub(super) fn by_device(&self) -> HashMap<&Path, &Path> {
        self.0
            .iter()
            .map(|line| (line.source.as_path(), line.mount_point.as_path()))
            .collect()
    }

    /// Returns where a device is mounted, as [`by_device`](Self::by_device) does for all.
    pub(super) fn mount_point(&self, device: &Path) -> Option<&Path> {
        self.0
            .iter()
            .rfind(|line| line.source == device)
            .map(|line| line.mount_point.as_path())
    }

    /// Returns the number of mounts on top of each other at a mount point.
    pub(super) fn count_at(&self, mount_point: &Path) -> usize {
        self.0
            .iter()
            .filter(|line| line.mount_point == mount_point)
            .count()
    }

    /// Returns the mount points of the devices that are mounted more than once, under any name.
    pub(super) fn of_shared_devices(&self) -> HashSet<&Path> {
        let mut mounts: HashMap<&str, usize> = HashMap::new();
        for line in &self.0 {
            *mounts.entry(&line.number).or_default() += 1;
        }
        let shared = self
            .0
            .iter()
            .filter(|line| mounts.get(line.number.as_str()) > Some(&1));
        shared.map(|line| line.mount_point.as_path()).collect()
    }
}

/// Reads one line: `36 35 98:0 /root /mount/point rw,noatime shared:1 - ext4 /dev/name rw`.
fn parse_line(text: &[u8]) -> Option<Line> {
    let mut fields = text.split(|byte| *byte == b' ');
    let number = String::from_utf8(fields.nth(2)?.to_vec()).ok()?;
    let mount_point = unescape(fields.nth(1)?);
    // Any number of optional fields ends with a lone dash; the file system type follows.
    fields.find(|field| *field == b"-")?;
    let source = unescape(fields.nth(1)?);
    Some(Line {
        number,
        mount_point,
        source,
    })
}

/// Undoes the kernel's escapes: a backslash and three octal digits for blank, tab, line break and backslash.
fn unescape(field: &[u8]) -> PathBuf {
    if !field.contains(&b'\\') {
        return PathBuf::from(OsString::from_vec(field.to_vec()));
    }
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        let escaped = match tail {
            [high @ b'0'..=b'3', middle @ b'0'..=b'7', low @ b'0'..=b'7', ..] if *first == b'\\' => {
                Some(((high - b'0') << 6) | ((middle - b'0') << 3) | (low - b'0'))
            }
            _ => None,
        };
        plain.push(escaped.unwrap_or(*first));
        rest = tail
            .get(if escaped.is_some() { 3 } else { 0 }..)
            .unwrap_or_default();
    }
    PathBuf::from(OsString::from_vec(plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"\
        22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard\n\
        90 22 7:3 / /data/flocker/node-1/one rw,relatime shared:5 master:2 - ext4 /dev/loop3 rw\n\
        91 22 7:4 / /data/with\\040blank\\134 rw - ext4 /dev/loop4 rw\n\
        92 22 7:3 / /pods/one rw,relatime - ext4 /dev/flocker-csi/one rw\n\
        93 22 7:4 /dir /pods/two rw,relatime - ext4 /dev/loop4 rw\n";

    #[test]
    fn the_last_line_of_a_device_name_says_where_it_is_mounted() {
        let table = MountTable::parse(TABLE);
        assert_eq!(
            table.mount_point(Path::new("/dev/loop3")),
            Some(Path::new("/data/flocker/node-1/one")),
            "a mount of the same device under another name does not count"
        );
        assert_eq!(
            table.mount_point(Path::new("/dev/loop4")),
            Some(Path::new("/pods/two"))
        );
        assert_eq!(
            table.by_device().get(Path::new("/dev/loop4")),
            Some(&Path::new("/pods/two"))
        );
        assert_eq!(table.mount_point(Path::new("/dev/loop5")), None);
        assert_eq!(table.count_at(Path::new("/pods/two")), 1);
        assert_eq!(table.count_at(Path::new("/pods")), 0);
    }

    #[test]
    fn a_second_mount_is_found_by_the_number_of_the_device() {
        let table = MountTable::parse(TABLE);
        let shared = table.of_shared_devices();
        assert!(shared.contains(Path::new("/data/flocker/node-1/one")));
        assert!(shared.contains(Path::new("/data/with blank\\")));
        assert!(!shared.contains(Path::new("/")));
    }
}
