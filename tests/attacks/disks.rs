//! Disks that are full, read-only or failing under the state directory, the staging path, the target or the device
//! directory. Whatever the disk answers: unpublishing and unstaging give back mounts, lease and pin and answer OK or
//! `UNAVAILABLE`; a staging or publication that fails leaves nothing, or what unstaging removes; and once the disk takes
//! writes again, nothing is left.

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, mount_remount, unmount};
use tonic::{Code, Status};

use crate::support::csi::{Csi, Usage};
use crate::support::eventually;
use crate::support::flocker::Flocker;
use crate::support::machine::Machine;
use crate::support::mounts::Mounts;
use crate::support::namespace::in_own_namespace;
use crate::support::tcp_proxy::TcpProxy;

/// How a disk fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Full,
    ReadOnly,
    /// Every access that reaches the disk answers EIO.
    Broken,
}

/// What lies on the disk.
const DIRECTORIES: [&str; 4] = ["state", "staging", "targets", "devices"];

/// A small file system of its own under one of a machine's directories.
struct Disk {
    point: PathBuf,
}

impl Disk {
    fn under(machine: &Machine, directory: &str, fault: Fault) -> Self {
        let point = machine.path(directory);
        fs::create_dir_all(&point).unwrap();
        if fault == Fault::Broken {
            let image = machine.path(&format!("{directory}.img"));
            File::create(&image).unwrap().set_len(16 << 20).unwrap();
            run(Command::new("mkfs.ext4").arg("-q").arg(&image));
            // Attached on its own, so that only the clean-up of the machine's directory detaches it.
            let device = run(Command::new("losetup").args(["--find", "--show"]).arg(&image));
            run(Command::new("mount").arg(device.trim()).arg(&point));
        } else {
            mount(
                "disk",
                &point,
                "tmpfs",
                MountFlags::empty(),
                c"size=256k,nr_inodes=64",
            )
            .unwrap();
        }
        Self { point }
    }

    fn fail(&self, fault: Fault) {
        match fault {
            Fault::Full => {
                let fill = |name: usize| fs::write(self.point.join(format!("fill-{name}")), [0; 4096]);
                (0..1000).find(|name| fill(*name).is_err()).unwrap();
                // The last one may have got a name and no block.
                (1000..2000).find(|name| fill(*name).is_err()).unwrap();
            }
            Fault::ReadOnly if self.is_locked() => {
                mount_bind(&self.point, &self.point).unwrap();
                mount_remount(&self.point, MountFlags::BIND | MountFlags::RDONLY, "").unwrap();
            }
            Fault::ReadOnly => mount_remount(&self.point, MountFlags::RDONLY, "").unwrap(),
            Fault::Broken => shut_down(&self.point),
        }
    }

    /// Whether the plugin has a lock open there: the kernel refuses to make a file system read-only that has a file open
    /// for writing, unless the disk fails. A read-only mount over it answers as one does.
    fn is_locked(&self) -> bool {
        self.point.ends_with("state") || self.point.ends_with("devices")
    }

    /// Ends a fault that can end.
    fn recover(&self, fault: Fault) {
        match fault {
            Fault::Full => {
                for entry in fs::read_dir(&self.point).unwrap() {
                    let path = entry.unwrap().path();
                    if path.file_name().unwrap().to_string_lossy().starts_with("fill-") {
                        fs::remove_file(path).unwrap();
                    }
                }
            }
            Fault::ReadOnly if self.is_locked() => unmount(&self.point, UnmountFlags::DETACH).unwrap(),
            Fault::ReadOnly => mount_remount(&self.point, MountFlags::empty(), "").unwrap(),
            Fault::Broken => unreachable!("what was shut down stays so"),
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        unmount(&self.point, UnmountFlags::DETACH).ok();
    }
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Ends all writing to an ext4, and all reading of what is not in memory.
#[allow(unsafe_code, reason = "an ioctl without a wrapper")]
fn shut_down(point: &Path) {
    use std::os::fd::AsRawFd;
    // EXT4_IOC_SHUTDOWN, which is _IOR('X', 125, __u32), with EXT4_GOING_FLAGS_NOLOGFLUSH.
    const SHUTDOWN: libc::Ioctl = 0x8004_587d;
    let (file, how) = (File::open(point).unwrap(), 2_u32);
    // SAFETY: the ioctl reads one u32.
    let answer = unsafe { libc::ioctl(file.as_raw_fd(), SHUTDOWN, &raw const how) };
    assert_eq!(answer, 0, "{}", std::io::Error::last_os_error());
}

/// A node that attaches for itself, with one directory on a disk that can fail.
struct Attacked {
    flocker: Flocker,
    machine: Machine,
    disk: Disk,
    fault: Fault,
}

impl Attacked {
    async fn prepare(directory: &str, fault: Fault) -> Self {
        let flocker = Flocker::start(1).await;
        let machine = Machine::new(&flocker, 1);
        let disk = Disk::under(&machine, directory, fault);
        Self {
            flocker,
            machine,
            disk,
            fault,
        }
    }

    async fn usage(&self, csi: &Csi) -> Usage {
        let volume = csi.create("data").await;
        self.machine.usage("data", volume, &HashMap::new())
    }

    /// Checks that the node has neither mount, lease nor pin of the volume.
    async fn assert_given_back(&self, usage: &Usage, what: &str) {
        for directory in ["staging", "targets"] {
            let mut mounts = Mounts::read().below(&self.machine.path(directory));
            mounts.retain(|mount| mount.source.ends_with(&usage.volume_id));
            assert_eq!(mounts, [], "{what}");
        }
        assert_eq!(self.flocker.leaseholder(usage.dataset()).await, None, "{what}");
        let flockers = self.flocker.mount_of(1, usage.dataset());
        // A process that reads open files keeps it busy for a moment.
        eventually("the agent may unmount the volume", async || {
            let gone = Mounts::read().at(&flockers).is_empty();
            (gone || unmount(&flockers, UnmountFlags::empty()).is_ok()).then_some(())
        })
        .await;
    }

    /// Waits until nothing of the volume is left on disks that work.
    async fn nothing_is_left(&self, usage: &Usage, what: &str) {
        if self.fault == Fault::Broken {
            return;
        }
        self.disk.recover(self.fault);
        let notes = self.machine.config.node.state_dir.join("leftovers");
        eventually(&format!("nothing is left: {what}"), async || {
            let clean = !usage.target.exists()
                && !usage.alias().exists()
                && self.machine.records().is_empty()
                && self.machine.devices().is_empty()
                && fs::read_dir(&notes).map_or(0, Iterator::count) == 0;
            clean.then_some(())
        })
        .await;
    }
}

/// Calls until the answer is OK, and checks that every answer before was one that orchestrators repeat.
async fn until_ok(what: &str, mut call: impl AsyncFnMut() -> Result<(), Status>) {
    for _ in 0..3 {
        match call().await {
            Ok(()) => return,
            Err(status) => assert_eq!(status.code(), Code::Unavailable, "{what}: {}", status.message()),
        }
    }
    panic!("{what} is not OK");
}

const KUBELET_ENDS_ON: [Code; 4] = [
    Code::InvalidArgument,
    Code::FailedPrecondition,
    Code::Internal,
    Code::NotFound,
];

/// All disks with all faults, each in a namespace of its own.
fn on_every_disk<F: Future<Output = ()>>(
    directories: &[&'static str],
    attack: impl Fn(Attacked, String) -> F + Copy + Send + 'static,
) {
    for &directory in directories {
        for fault in [Fault::Full, Fault::ReadOnly, Fault::Broken] {
            if directory == "devices" && fault == Fault::Broken {
                // Nothing but files in memory is ever there.
                continue;
            }
            in_own_namespace(move || async move {
                let what = format!("{directory} {fault:?}");
                attack(Attacked::prepare(directory, fault).await, what).await;
            });
        }
    }
}

#[test]
fn unpublishing_and_unstaging_on_a_bad_disk_give_everything_back() {
    on_every_disk(&DIRECTORIES, |attacked, what| async move {
        let plugin = attacked.machine.plugin().await;
        let csi = &plugin.csi;
        let usage = attacked.usage(csi).await;
        csi.stage(&usage).await.unwrap();
        csi.publish(&usage).await.unwrap();
        attacked.disk.fail(attacked.fault);
        until_ok(&what, async || csi.unpublish(&usage).await).await;
        until_ok(&what, async || csi.unstage(&usage).await).await;
        attacked.assert_given_back(&usage, &what).await;
        // Repeated calls are as good as the first.
        until_ok(&what, async || csi.unpublish(&usage).await).await;
        until_ok(&what, async || csi.unstage(&usage).await).await;
        attacked.nothing_is_left(&usage, &what).await;
        plugin.stop().await;
    });
}

#[test]
fn what_one_process_could_not_remove_is_removed_by_the_next() {
    on_every_disk(&["staging", "targets", "devices"], |attacked, what| async move {
        let plugin = attacked.machine.process(&[]).await;
        let usage = attacked.usage(&plugin.csi).await;
        plugin.csi.stage(&usage).await.unwrap();
        plugin.csi.publish(&usage).await.unwrap();
        attacked.disk.fail(attacked.fault);
        until_ok(&what, async || plugin.csi.unpublish(&usage).await).await;
        until_ok(&what, async || plugin.csi.unstage(&usage).await).await;
        plugin.kill().await;
        let plugin = attacked.machine.process(&[]).await;
        attacked.assert_given_back(&usage, &what).await;
        attacked.nothing_is_left(&usage, &what).await;
        plugin.kill().await;
    });
}

#[test]
fn a_staging_that_fails_on_a_bad_disk_leaves_nothing() {
    on_every_disk(&DIRECTORIES, |attacked, what| async move {
        let plugin = attacked.machine.plugin().await;
        let csi = &plugin.csi;
        let usage = attacked.usage(csi).await;
        attacked.disk.fail(attacked.fault);
        match csi.stage(&usage).await {
            // After these the kubelet never unstages.
            Err(status) if KUBELET_ENDS_ON.contains(&status.code()) => {}
            // A full disk may have room for a directory.
            Ok(()) => until_ok(&what, async || csi.unstage(&usage).await).await,
            Err(status) => {
                assert_eq!(status.code(), Code::Unavailable, "{what}: {}", status.message());
                until_ok(&what, async || csi.unstage(&usage).await).await;
            }
        }
        attacked.assert_given_back(&usage, &what).await;
        attacked.nothing_is_left(&usage, &what).await;
        plugin.stop().await;
    });
}

#[test]
fn a_publication_that_fails_on_a_bad_disk_leaves_nothing() {
    on_every_disk(&["targets"], |attacked, what| async move {
        let plugin = attacked.machine.plugin().await;
        let csi = &plugin.csi;
        let usage = attacked.usage(csi).await;
        csi.stage(&usage).await.unwrap();
        attacked.disk.fail(attacked.fault);
        csi.publish(&usage).await.ok();
        until_ok(&what, async || csi.unpublish(&usage).await).await;
        until_ok(&what, async || csi.unstage(&usage).await).await;
        attacked.assert_given_back(&usage, &what).await;
        attacked.nothing_is_left(&usage, &what).await;
        plugin.stop().await;
    });
}

#[test]
fn a_staging_at_a_read_only_path_is_refused_for_good_and_names_it() {
    in_own_namespace(|| async {
        let attacked = Attacked::prepare("staging", Fault::ReadOnly).await;
        let plugin = attacked.machine.plugin().await;
        let usage = attacked.usage(&plugin.csi).await;
        attacked.disk.fail(Fault::ReadOnly);
        let refused = plugin.csi.stage(&usage).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition, "{}", refused.message());
        for part in [
            "Read-only file system",
            usage.staging.to_str().unwrap(),
            "writable",
        ] {
            assert!(
                refused.message().contains(part),
                "{part} in {}",
                refused.message()
            );
        }
        assert!(attacked.machine.records().is_empty() && attacked.machine.devices().is_empty());
        attacked.assert_given_back(&usage, "a read-only path").await;
        plugin.stop().await;
    });
}

#[test]
fn a_plugin_that_starts_on_a_bad_disk_serves_and_gives_everything_back() {
    for (fault, reboot) in [
        (Fault::Full, false),
        (Fault::Full, true),
        (Fault::ReadOnly, false),
        (Fault::ReadOnly, true),
    ] {
        in_own_namespace(move || async move {
            let what = format!("{fault:?}, reboot: {reboot}");
            let attacked = Attacked::prepare("state", fault).await;
            let plugin = attacked.machine.process(&[]).await;
            let usage = attacked.usage(&plugin.csi).await;
            plugin.csi.stage(&usage).await.unwrap();
            plugin.kill().await;
            if reboot {
                // The next call about a volume does not come after a reboot.
                host_fs::mount::testing::unmount(usage.alias());
                attacked.machine.age_records();
            }
            attacked.disk.fail(fault);
            let plugin = attacked.machine.process(&[]).await;
            if reboot {
                eventually(&format!("the lease is released: {what}"), async || {
                    let holder = attacked.flocker.leaseholder(usage.dataset()).await;
                    holder.is_none().then_some(())
                })
                .await;
            } else {
                until_ok(&what, async || plugin.csi.unstage(&usage).await).await;
            }
            attacked.assert_given_back(&usage, &what).await;
            attacked.nothing_is_left(&usage, &what).await;
            plugin.kill().await;
        });
    }
}

#[test]
fn a_lease_that_a_full_disk_and_a_silent_flocker_leave_is_released_by_the_next_process() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let proxy = TcpProxy::to(flocker.embedded().address()).await;
        let machine = Machine::through(proxy.address(), &flocker, 1);
        let disk = Disk::under(&machine, "state", Fault::Full);
        let plugin = machine.process(&[]).await;
        let volume = plugin.csi.create("data").await;
        let usage = machine.usage("data", volume, &HashMap::new());
        plugin.csi.stage(&usage).await.unwrap();
        disk.fail(Fault::Full);
        proxy.close();
        plugin.csi.unstage(&usage).await.unwrap();
        assert!(flocker.leaseholder(volume).await.is_some());
        plugin.kill().await;
        proxy.open();
        let plugin = machine.process(&[]).await;
        eventually("the lease is released", async || {
            (flocker.leaseholder(volume).await.is_none() && machine.records().is_empty()).then_some(())
        })
        .await;
        plugin.kill().await;
    });
}
