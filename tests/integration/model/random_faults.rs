//! Faults of disks and of Flocker that the soak draws at random.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::time::Duration;

use flocker_embedded::faults::{Effect, RequestFault};
use rand::Rng;
use rand::rngs::StdRng;
use rustix::fs::{FallocateFlags, fallocate, statvfs};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount, mount_bind, mount_remount};

use super::fixture::Fixture;
use crate::support::machine::Machine;

/// The size of the disk of the staging records.
const DISK: &str = "size=1m";

/// The requests that fail, by method and route.
const REQUESTS: [(&str, &str); 9] = [
    ("GET", "/v1/configuration/datasets"),
    ("GET", "/v1/configuration/leases"),
    ("GET", "/v1/state/datasets"),
    ("GET", "/v1/state/nodes"),
    ("POST", "/v1/configuration/datasets"),
    ("POST", "/v1/configuration/datasets/{dataset_id}"),
    ("DELETE", "/v1/configuration/datasets/{dataset_id}"),
    ("POST", "/v1/configuration/leases"),
    ("DELETE", "/v1/configuration/leases/{dataset_id}"),
];

/// A fault that lasts until it is undone.
#[derive(Debug)]
pub(super) enum RandomFault {
    /// No room on the disk of the staging records of a node.
    FullDisk {
        /// The file that takes the room.
        ballast: PathBuf,
    },
    /// The file system of the targets of a node is read-only.
    ReadOnlyTargets { targets: PathBuf },
    /// One request to Flocker fails.
    Request { name: String },
}

/// Mounts the staging records of a node on a small disk of their own, and its targets on themselves.
pub(super) fn prepare(machine: &Machine) {
    for point in disks(machine) {
        fs::create_dir_all(&point).unwrap();
    }
    let [records, targets] = disks(machine);
    let options = std::ffi::CString::new(DISK).unwrap();
    mount("disk", &records, "tmpfs", MountFlags::empty(), options.as_c_str()).unwrap();
    mount_bind(&targets, &targets).unwrap();
}

/// Returns the mounts of a node that [`prepare`] makes.
pub(super) fn disks(machine: &Machine) -> [PathBuf; 2] {
    [machine.config.node.state_dir.clone(), machine.path("targets")]
}

impl RandomFault {
    /// Draws a fault and lets it happen; `number` makes its name unique.
    pub(super) fn inject(random: &mut StdRng, fixture: &Fixture, number: u32) -> Self {
        let machine = &fixture.machines[random.random_range(0..fixture.machines.len())];
        let [records, targets] = disks(machine);
        match random.random_range(0..4) {
            0 => {
                let ballast = records.join("ballast");
                fill(&ballast);
                Self::FullDisk { ballast }
            }
            1 => {
                read_only(&targets, true);
                Self::ReadOnlyTargets { targets }
            }
            _ => {
                let name = format!("random-{number}");
                let (method, route) = REQUESTS[random.random_range(0..REQUESTS.len())];
                let effect = match random.random_range(0..4) {
                    0 => Effect::Delay(Duration::from_millis(300)),
                    1 => Effect::LoseRequest,
                    2 => Effect::LoseReply,
                    _ => Effect::Answer {
                        status: 503,
                        body: "\"busy\"".to_owned(),
                    },
                };
                let fault = RequestFault::new(name.clone(), effect).on(method, route);
                fixture.flocker.embedded().faults().add(fault.once());
                Self::Request { name }
            }
        }
    }

    /// Ends the fault.
    pub(super) fn end(self, fixture: &Fixture) {
        match self {
            Self::FullDisk { ballast } => fs::remove_file(ballast).unwrap(),
            Self::ReadOnlyTargets { targets } => read_only(&targets, false),
            Self::Request { name } => fixture.flocker.embedded().faults().remove(&name),
        }
    }
}

/// Takes all the room on a disk.
fn fill(ballast: &Path) {
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(ballast)
        .unwrap();
    loop {
        let disk = statvfs(ballast).unwrap();
        let (room, taken) = (disk.f_bavail * disk.f_frsize, file.metadata().unwrap().len());
        if room == 0 {
            return;
        }
        match fallocate(&file, FallocateFlags::empty(), taken, room) {
            // The plugin was quicker with some of it.
            Ok(()) | Err(Errno::NOSPC) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

fn read_only(mounted: &Path, read_only: bool) {
    let flags = if read_only {
        MountFlags::BIND | MountFlags::RDONLY
    } else {
        MountFlags::BIND
    };
    loop {
        match mount_remount(mounted, flags, "") {
            Ok(()) => return,
            // The plugin is making or removing a directory.
            Err(Errno::BUSY) => std::thread::yield_now(),
            Err(error) => panic!("{}: {error}", mounted.display()),
        }
    }
}
