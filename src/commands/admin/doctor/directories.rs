//! The directories of the plugin.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use futures::FutureExt;
use futures::future::BoxFuture;
use host_fs::mount::holding;
use rustix::fs::{StatVfs, StatVfsMountFlags, statvfs};
use rustix::io::Errno;

use super::check::{Check, Subject};
use super::examination::{Examination, blocking};
use super::finding::Finding;
use crate::error;
use crate::host::preconditions::exposed;
use crate::host::{LocalView, state_dir};

/// Less free space than this is warned about: records are small, and there may be many.
const ENOUGH_SPACE: u64 = 4 << 20;
/// The same for free inodes.
const ENOUGH_FILES: u64 = 256;

pub(super) const CHECKS: &[Check] = &[
    Check {
        name: "state-dir",
        subject: Subject::Configuration,
        needs: &[],
        run: state_dir,
    },
    Check {
        name: "device-dir",
        subject: Subject::NodeConfiguration,
        needs: &[],
        run: device_dir,
    },
    Check {
        name: "mount-root",
        subject: Subject::NodeConfiguration,
        needs: &[],
        run: mount_root,
    },
    Check {
        name: "state-dir-writable",
        subject: Subject::Any,
        needs: &["state-dir"],
        run: state_dir_writable,
    },
    Check {
        name: "disk-space",
        subject: Subject::Any,
        needs: &["state-dir", "state-dir-writable"],
        run: disk_space,
    },
    Check {
        name: "records",
        subject: Subject::Node,
        needs: &["state-dir"],
        run: records,
    },
];

fn state_dir<'a>(examination: &'a mut Examination<'_>) -> BoxFuture<'a, Finding> {
    let config = examination.config.clone();
    let check = move || {
        let path = &config.node.state_dir;
        if let Some(misplaced) = config.misplaced_state_dir() {
            return Finding::error(misplaced);
        }
        own_directory("state_dir", path)
    };
    blocking(check).boxed()
}

fn device_dir<'a>(examination: &'a mut Examination<'_>) -> BoxFuture<'a, Finding> {
    let path = examination.config.plugin.device_dir.clone();
    let check = move || {
        let shown = path.display();
        if path.exists() && !path.is_dir() {
            return Finding::error(format!("device_dir {shown} is no directory"))
                .next("move the file, or set device_dir to a directory of its own below /dev");
        }
        let (existing, status) = match status(&path) {
            Ok(found) => found,
            Err(error) => return Finding::error(format!("device_dir {shown} cannot be examined: {error}")),
        };
        if status.f_flag.contains(StatVfsMountFlags::NODEV) {
            let mount = mount_point(&existing);
            return Finding::error(format!(
                "device_dir {shown} is on the mount {mount}, which has the option nodev: no device node works there"
            ))
            .command(
                "allow device nodes there, or set device_dir to a directory below /dev",
                format!("mount -o remount,dev {mount}"),
            );
        }
        own_directory("device_dir", &path)
    };
    blocking(check).boxed()
}

fn mount_root<'a>(examination: &'a mut Examination<'_>) -> BoxFuture<'a, Finding> {
    let path = examination.config.node.mount_root.clone();
    let check = move || {
        let shown = path.display();
        if path.is_dir() {
            Finding::ok(format!("{shown} exists"))
        } else if path.exists() {
            Finding::error(format!("the mount_root {shown} is no directory"))
                .next("set mount_root to the directory in which Flocker's agent mounts")
        } else {
            Finding::warning(format!("the mount_root {shown} does not exist: Flocker's agent has mounted nothing there")).next(
                "set mount_root to the directory in which Flocker's agent mounts (mount of its agent.yml; /flocker by default), or start \
                 the agent, which makes it",
            )
        }
    };
    blocking(check).boxed()
}

fn own_directory(setting: &'static str, path: &Path) -> Finding {
    let shown = path.display();
    if let Some(exposure) = exposed(&[(setting, path)]).pop() {
        return Finding::warning(exposure).next("give it to root alone");
    }
    if path.exists() {
        Finding::ok(format!("{shown} is a directory of root's"))
    } else {
        Finding::ok(format!("{shown} does not exist; the plugin makes it"))
    }
}

fn state_dir_writable<'a>(examination: &'a mut Examination<'_>) -> BoxFuture<'a, Finding> {
    let path = examination.config.node.state_dir.clone();
    let check = move || {
        let existing = existing(&path);
        let shown = existing.display();
        let written = tempfile::tempfile_in(&existing).and_then(|mut file| {
            // As much as a record has; a file system may notice only when it writes it to the disk that it is full.
            file.write_all(&[0; 4096])?;
            file.sync_all()
        });
        let error = match written {
            Ok(()) => return Finding::ok(format!("a file of 4 KiB can be written in {shown}")),
            Err(error) => error,
        };
        let finding = Finding::error(format!(
            "no file can be written in the state_dir {shown}: {error}"
        ));
        let mount = mount_point(&existing);
        match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::NOSPC | Errno::DQUOT) => finding.command(
                format!("remove what is not needed on {mount}; this lists the largest directories and files"),
                format!("du -axk {mount} | sort -n | tail"),
            ),
            Some(Errno::ROFS) => finding.command(
                format!(
                    "find out in the kernel's log (dmesg) why {mount} is read-only, and make it writable"
                ),
                format!("mount -o remount,rw {mount}"),
            ),
            Some(Errno::ACCESS | Errno::PERM) => {
                finding.next("run this command as the plugin's user, which is root")
            }
            _ => finding.next(format!("repair the file system at {mount}")),
        }
    };
    blocking(check).boxed()
}

fn disk_space<'a>(examination: &'a mut Examination<'_>) -> BoxFuture<'a, Finding> {
    let path = examination.config.node.state_dir.clone();
    let check = move || {
        let (existing, status) = match status(&path) {
            Ok(found) => found,
            Err(error) => return Finding::error(format!("{} cannot be examined: {error}", path.display())),
        };
        let free = status.f_bfree.saturating_mul(status.f_frsize);
        let mount = mount_point(&existing);
        let seen = format!("{} KiB are free for state_dir, on {mount}", free >> 10);
        // A file system without a limit on inodes reports 0.
        if free < ENOUGH_SPACE || status.f_files > 0 && status.f_ffree < ENOUGH_FILES {
            let seen = format!("{seen}, and {} inodes", status.f_ffree);
            Finding::warning(seen).command(
                "make room before the plugin can write no record; this lists the largest directories and files",
                format!("du -axk {mount} | sort -n | tail"),
            )
        } else {
            Finding::ok(seen)
        }
    };
    blocking(check).boxed()
}

fn records<'a>(examination: &'a mut Examination<'_>) -> BoxFuture<'a, Finding> {
    let directories = examination.directories();
    let stages = state_dir::stages(&directories.state_dir);
    let check = move || match LocalView::read(directories) {
        Err(error) => Finding::error(error.chain()).next("run this command as root where the plugin runs"),
        Ok(view) => match view.unreadable_records() {
            [] => Finding::ok(format!(
                "{} volumes have a record or a mount here, and every record can be read",
                view.datasets().len()
            )),
            unreadable => {
                let seen: Vec<_> = unreadable.iter().map(|error| error::chain(error)).collect();
                Finding::error(seen.join("; ")).command(
                    "a record that cannot be read releases nothing: see which volume it names, end its use, and move the file away",
                    format!("ls -l {}", stages.display()),
                )
            }
        },
    };
    blocking(check).boxed()
}

/// Returns the nearest directory above that exists, or the directory itself.
fn existing(path: &Path) -> PathBuf {
    let found = path.ancestors().find(|above| above.is_dir());
    found.unwrap_or(Path::new("/")).to_owned()
}

fn status(path: &Path) -> rustix::io::Result<(PathBuf, StatVfs)> {
    let existing = existing(path);
    let status = statvfs(&existing)?;
    Ok((existing, status))
}

/// Returns where the file system of a directory is mounted.
pub(super) fn mount_point(directory: &Path) -> String {
    let directory = directory.canonicalize().unwrap_or_else(|_| directory.to_owned());
    match holding(&directory) {
        Ok(Some(mount)) => mount.point.display().to_string(),
        _ => directory.display().to_string(),
    }
}
