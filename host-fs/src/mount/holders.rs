//! The processes and mounts that keep a mount busy.

use std::fmt;
use std::fs::{self, DirEntry};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};

use super::entry::{Device, Mount};
use super::table::MountTable;

/// How long the search for holders may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// How many holders a message names.
const NAMED: usize = 5;

/// One process or mount that uses a mount.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum MountHolder {
    /// A process.
    Process {
        /// Its id, in our PID namespace.
        pid: u32,
        /// The name of its command.
        command: String,
        /// What it does there, such as `working directory /x`.
        uses: String,
    },
    /// A mount below.
    Mount(PathBuf),
}

impl fmt::Display for MountHolder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MountHolder::Process { pid, command, uses } => {
                write!(formatter, "process {pid} ({command}) has {uses}")
            }
            MountHolder::Mount(point) => write!(formatter, "a mount exists at {}", point.display()),
        }
    }
}

/// The processes and mounts found to use a mount, as far as this process may look and the time allows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Holders(Vec<MountHolder>);

impl Holders {
    /// Returns them, mounts first.
    pub fn as_slice(&self) -> &[MountHolder] {
        &self.0
    }
}

impl fmt::Display for Holders {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return formatter.write_str(
                "no process that uses it is visible from here; it may run in another PID namespace, \
                 or the kernel itself uses it (swap, a loop device, an NFS export)",
            );
        }
        for (index, holder) in self.0.iter().take(NAMED).enumerate() {
            write!(formatter, "{}{holder}", if index == 0 { "" } else { "; " })?;
        }
        match self.0.len().saturating_sub(NAMED) {
            0 => Ok(()),
            more => write!(formatter, "; and {more} more"),
        }
    }
}

/// Looks for the processes and mounts that use a mount of the calling thread's namespace, for two seconds at most.
pub fn find_holders(mount: &Mount) -> Holders {
    let (found, holders) = mpsc::channel();
    let mount = mount.clone();
    // A thread of its own: reading the memory map of a process that hangs may block indefinitely.
    let searching = thread::Builder::new()
        .name("holders".to_owned())
        .spawn(move || search(&mount, &found));
    let deadline = now() + PATIENCE;
    let next = || {
        holders
            .recv_timeout(deadline.saturating_duration_since(now()))
            .ok()
    };
    Holders(if searching.is_ok() {
        std::iter::from_fn(next).collect()
    } else {
        Vec::new()
    })
}

/// Reports mounts first, then processes.
///
/// In other mount namespaces a copy of the mount has another id and may be busy too, so there the device decides.
fn search(mount: &Mount, found: &mpsc::Sender<MountHolder>) {
    for below in mounts_below(mount) {
        found.send(below).ok();
    }
    let own_namespace = fs::read_link("/proc/thread-self/ns/mnt").ok();
    for entry in list("/proc") {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let process = entry.path();
        let namespace = fs::read_link(process.join("ns/mnt")).ok();
        let search = Search {
            mount,
            by_id: namespace == own_namespace,
        };
        let Some(uses) = search.use_by(&process) else {
            continue;
        };
        let command = fs::read_to_string(process.join("comm")).unwrap_or_default();
        let holder = MountHolder::Process {
            pid,
            command: command.trim_end().to_owned(),
            uses,
        };
        if found.send(holder).is_err() {
            return;
        }
    }
}

fn mounts_below(mount: &Mount) -> Vec<MountHolder> {
    let Ok(table) = MountTable::read() else {
        return Vec::new();
    };
    let children = table
        .mounts()
        .iter()
        .filter(|child| child.parent == mount.id && child.id != mount.id);
    children
        .map(|child| MountHolder::Mount(child.point.clone()))
        .collect()
}

fn list(directory: impl AsRef<Path>) -> impl Iterator<Item = DirEntry> {
    // A process may end while it is read, and some may not be read.
    fs::read_dir(directory).into_iter().flatten().flatten()
}

/// How to recognise a file of the mount.
struct Search<'a> {
    mount: &'a Mount,
    by_id: bool,
}

impl Search<'_> {
    /// Returns what a process uses of the mount, if anything.
    fn use_by(&self, process: &Path) -> Option<String> {
        for (link, what) in [
            ("root", "its root directory"),
            ("cwd", "its working directory"),
            ("exe", "its program"),
        ] {
            let link = process.join(link);
            if self.holds(&link) {
                return Some(format!("{what} there: {}", target_of(&link)));
            }
        }
        let open = list(process.join("fd"))
            .map(|entry| entry.path())
            .find(|link| self.holds(link));
        if let Some(link) = open {
            return Some(format!("{} open", target_of(&link)));
        }
        self.mapped(process)
            .map(|file| format!("{file} mapped into memory"))
    }

    /// Returns whether a link of `/proc` leads into the mount.
    fn holds(&self, link: &Path) -> bool {
        let flags = AtFlags::NO_AUTOMOUNT | AtFlags::STATX_DONT_SYNC;
        let Ok(status) = statx(CWD, link, flags, StatxFlags::BASIC_STATS | StatxFlags::MNT_ID) else {
            return false;
        };
        let device = Device {
            major: status.stx_dev_major,
            minor: status.stx_dev_minor,
        };
        let id_known = status.stx_mask & StatxFlags::MNT_ID.bits() != 0;
        device == self.mount.device && (!self.by_id || !id_known || status.stx_mnt_id == self.mount.id)
    }

    /// Returns a file of the mount that the process has mapped.
    fn mapped(&self, process: &Path) -> Option<String> {
        let maps = fs::read_to_string(process.join("maps")).ok()?;
        let device = format!("{:02x}:{:02x}", self.mount.device.major, self.mount.device.minor);
        let mut lines = maps
            .lines()
            .filter(|line| line.split(' ').nth(3) == Some(&device));
        let line = lines.find(|line| {
            let range = line.split(' ').next().unwrap_or_default();
            self.holds(&process.join("map_files").join(range))
        })?;
        Some(line.split_whitespace().skip(5).collect::<Vec<_>>().join(" "))
    }
}

fn target_of(link: &Path) -> String {
    fs::read_link(link).map_or_else(|_| "a file".to_owned(), |path| path.display().to_string())
}

#[allow(
    clippy::disallowed_types,
    reason = "blocking code has no clock that a test could pause"
)]
fn now() -> std::time::Instant {
    std::time::Instant::now()
}

#[cfg(test)]
mod tests {
    use super::super::lookup::layers_at;
    use super::super::testing::{in_own_namespace, tmpfs};
    use super::*;
    use std::process::{Child, Command, Stdio};

    /// A process that is ended with the test.
    struct Running(Child);

    impl Drop for Running {
        fn drop(&mut self) {
            let _ended = self.0.kill().and_then(|()| self.0.wait());
        }
    }

    fn holders_of(point: &Path) -> Holders {
        find_holders(&layers_at(point).unwrap().pop().unwrap())
    }

    fn describes(holders: &Holders, pid: u32, words: &str) -> bool {
        let by = |holder: &&MountHolder| matches!(holder, MountHolder::Process { pid: found, .. } if *found == pid);
        holders
            .as_slice()
            .iter()
            .find(by)
            .is_some_and(|holder| holder.to_string().contains(words))
    }

    #[test]
    fn a_process_is_named_with_what_it_does_there() {
        in_own_namespace(|scratch| {
            let (point, file) = (scratch.join("a"), scratch.join("a/file"));
            tmpfs(&point);
            std::fs::write(&file, "text").unwrap();
            let sleep = || {
                let mut command = Command::new("sleep");
                command.arg("600");
                command
            };
            let inside = Running(sleep().current_dir(&point).spawn().unwrap());
            let reader = Running(
                sleep()
                    .stdin(Stdio::from(fs::File::open(&file).unwrap()))
                    .spawn()
                    .unwrap(),
            );
            let holders = holders_of(&point);
            assert!(
                describes(&holders, inside.0.id(), "its working directory"),
                "{holders}"
            );
            assert!(describes(&holders, reader.0.id(), "(sleep) has /"), "{holders}");
            assert!(describes(&holders, reader.0.id(), "a/file open"), "{holders}");
            assert_eq!(holders.as_slice().len(), 2, "{holders}");
        });
    }

    #[test]
    fn a_program_that_runs_from_there_is_found() {
        in_own_namespace(|scratch| {
            let point = scratch.join("a");
            tmpfs(&point);
            // By another process: a file that this one has open for writing would be inherited by a
            // process that another test starts at this moment, and keep this program from being started.
            let copy = Command::new("cp")
                .arg("/bin/sleep")
                .arg(point.join("program"))
                .status();
            assert!(copy.unwrap().success());
            let program = Running(Command::new(point.join("program")).arg("600").spawn().unwrap());
            let holders = holders_of(&point);
            assert!(describes(&holders, program.0.id(), "its program"), "{holders}");
        });
    }

    #[test]
    fn the_same_file_system_in_use_at_another_place_of_this_namespace_is_no_reason() {
        in_own_namespace(|scratch| {
            let (one, two) = (scratch.join("one"), scratch.join("two"));
            tmpfs(&one);
            super::super::testing::bind(&one, &two);
            let _inside = Running(
                Command::new("sleep")
                    .arg("600")
                    .current_dir(&two)
                    .spawn()
                    .unwrap(),
            );
            assert_eq!(holders_of(&one), Holders::default());
            assert_eq!(holders_of(&two).as_slice().len(), 1);
        });
    }

    #[test]
    fn a_mount_below_is_named() {
        in_own_namespace(|scratch| {
            let (outer, inner) = (scratch.join("a"), scratch.join("a/b"));
            tmpfs(&outer);
            tmpfs(&inner);
            assert_eq!(holders_of(&outer).as_slice(), [MountHolder::Mount(inner)]);
        });
    }

    #[test]
    fn a_long_list_is_cut_and_an_empty_one_explained() {
        let many = (0..7)
            .map(|number| MountHolder::Mount(PathBuf::from(format!("/{number}"))))
            .collect();
        assert!(Holders(many).to_string().ends_with("at /4; and 2 more"));
        assert!(Holders::default().to_string().contains("another PID namespace"));
    }
}
