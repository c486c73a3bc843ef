//! Processes that are killed.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::support::csi::Usage;
use crate::support::flocker::Flocker;
use crate::support::machine::Machine;
use crate::support::mounts::{Mounts, only_mount_at};
use crate::support::namespace::in_own_namespace;
use crate::support::scratch::{Scratch, loop_devices_on};
use crate::support::standalone::Standalone;
use crate::support::{PATIENCE, eventually};

/// Writes a file to a volume and returns its checksum.
fn write_data(target: &Path) -> [u8; 32] {
    let data: Vec<u8> = (0..5_000_000_u32)
        .map(|number| (number % 251).to_le_bytes()[0])
        .collect();
    fs::write(target.join("file"), &data).unwrap();
    Sha256::digest(&data).into()
}

fn checksum(target: &Path) -> [u8; 32] {
    Sha256::digest(fs::read(target.join("file")).unwrap()).into()
}

#[test]
fn a_killed_plugin_continues_after_a_restart() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let machine = Machine::new(&flocker, 1);
        let plugin = machine.process(&[]).await;
        let volume = plugin.csi.create("data").await;
        let context = plugin.csi.attach(volume, machine.node()).await;
        let usage = machine.usage("data", volume, &context);
        plugin.csi.stage(&usage).await.unwrap();
        plugin.csi.publish(&usage).await.unwrap();
        let written = write_data(&usage.target);
        let published = only_mount_at(&usage.target);
        plugin.kill().await;

        let plugin = machine.process(&[]).await;
        assert_eq!(
            unmount(flocker.mount_of(1, volume), UnmountFlags::empty()),
            Err(Errno::BUSY),
            "it is pinned again before it is asked for"
        );
        for _ in 0..10 {
            plugin.csi.publish(&usage).await.unwrap();
            assert_eq!(only_mount_at(&usage.target), published);
        }
        plugin.csi.stage(&usage).await.unwrap();
        only_mount_at(&usage.alias());
        assert_eq!(checksum(&usage.target), written);
        let stats = plugin.csi.stats(&usage).await.unwrap();
        assert!(!stats.volume_condition.unwrap().abnormal);

        plugin.csi.unpublish(&usage).await.unwrap();
        plugin.csi.unstage(&usage).await.unwrap();
        assert_eq!(Mounts::read().below(&machine.path("")), []);
        assert!(machine.records().is_empty() && machine.devices().is_empty());
        plugin.kill().await;
    });
}

#[test]
fn a_plugin_that_lost_its_records_still_knows_its_mounts() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let machine = Machine::new(&flocker, 1);
        let plugin = machine.process(&[]).await;
        let volume = plugin.csi.create("data").await;
        let context = plugin.csi.attach(volume, machine.node()).await;
        let usage = machine.usage("data", volume, &context);
        plugin.csi.stage(&usage).await.unwrap();
        plugin.csi.publish(&usage).await.unwrap();
        plugin.kill().await;
        fs::remove_dir_all(&machine.config.node.state_dir).unwrap();

        let plugin = machine.process(&[]).await;
        plugin.csi.stage(&usage).await.unwrap();
        only_mount_at(&usage.alias());
        plugin.csi.publish(&usage).await.unwrap();
        only_mount_at(&usage.target);
        plugin.kill().await;
        fs::remove_dir_all(&machine.config.node.state_dir).unwrap();

        let plugin = machine.process(&[]).await;
        plugin.csi.unpublish(&usage).await.unwrap();
        plugin.csi.unstage(&usage).await.unwrap();
        assert_eq!(Mounts::read().below(&machine.path("")), []);
        plugin.kill().await;
    });
}

#[test]
fn a_standalone_plugin_that_was_killed_has_its_volumes_and_their_data() {
    in_own_namespace(|| async {
        let standalone = Standalone::start(Scratch::new()).await;
        let used = standalone.published("used").await;
        let idle = standalone.csi().create("idle").await;
        let written = write_data(&used.target);
        let (volumes, files) = (standalone.volumes().await, standalone.attached_files());
        assert_eq!((volumes.len(), files.len()), (2, 2));

        let standalone = standalone.restart().await;
        assert_eq!(standalone.volumes().await, volumes);
        for _ in 0..10 {
            standalone.csi().publish(&used).await.unwrap();
            only_mount_at(&used.target);
        }
        assert_eq!(checksum(&used.target), written);
        assert_eq!(
            unmount(standalone.flockers(&used), UnmountFlags::empty()),
            Err(Errno::BUSY)
        );
        assert_eq!(standalone.attached_files(), files, "no file is attached twice");

        standalone.csi().unpublish(&used).await.unwrap();
        standalone.csi().unstage(&used).await.unwrap();
        for volume in [used.dataset(), idle] {
            standalone.csi().delete(volume).await.unwrap();
        }
        assert!(standalone.volumes().await.is_empty());
        eventually("nothing is attached", async || {
            standalone.attached_files().is_empty().then_some(())
        })
        .await;
    });
}

#[test]
fn a_file_whose_loop_device_waits_for_its_last_mount_is_not_attached_again() {
    in_own_namespace(|| async {
        let standalone = Standalone::start(Scratch::new()).await;
        let usage = standalone.published("data").await;
        let written = write_data(&usage.target);
        let files = standalone.attached_files();
        let (flockers, scratch) = (standalone.flockers(&usage), standalone.scratch);
        // Without the pin the agent can unmount, and the device must be detached with the last mount.
        standalone.process.kill().await;
        host_fs::mount::testing::unmount(&flockers);
        for device in loop_devices_on(scratch.path()) {
            let detached = std::process::Command::new("losetup")
                .arg("--detach")
                .arg(device)
                .status();
            assert!(detached.unwrap().success());
        }

        let standalone = Standalone::start(scratch).await;
        assert_eq!(standalone.attached_files(), files);
        assert_eq!(checksum(&usage.target), written);
        standalone.csi().stage(&usage).await.unwrap();
        standalone.csi().publish(&usage).await.unwrap();
        only_mount_at(&usage.alias());
        only_mount_at(&usage.target);
        assert_eq!(standalone.attached_files(), files, "the file is attached once");
        assert_eq!(checksum(&usage.target), written);
    });
}

#[test]
fn a_staging_that_was_killed_while_it_waited_is_undone_by_unstaging() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(2).await;
        let machine = Machine::new(&flocker, 1);
        let plugin = machine.process(&[]).await;
        let (volume, second) = (plugin.csi.create("data").await, flocker.node(2));
        plugin.csi.attach(volume, second).await;
        flocker.reports(2, volume).await;
        plugin.csi.detach(volume, second).await;
        let holder = fs::File::open(flocker.mount_of(2, volume)).unwrap();
        let usage = machine.usage("data", volume, &HashMap::new());
        let (csi, staged) = (plugin.csi.clone(), usage.clone());
        let staging = tokio::spawn(async move { csi.stage(&staged).await });
        eventually("the node has the lease", async || {
            (flocker.leaseholder(volume).await == Some(machine.node())).then_some(())
        })
        .await;
        plugin.kill().await;
        staging.await.unwrap().unwrap_err();

        let plugin = machine.process(&[]).await;
        assert_eq!(flocker.leaseholder(volume).await, Some(machine.node()));
        plugin.csi.unstage(&usage).await.unwrap();
        assert_eq!(flocker.leaseholder(volume).await, None);
        assert!(machine.records().is_empty());
        drop(holder);
        plugin.csi.stage(&usage).await.unwrap();
        only_mount_at(&usage.alias());
        plugin.kill().await;
    });
}

/// The state of the machine at some moment between no volume and a published one.
#[derive(Clone, Copy, Debug)]
enum Trace {
    Record,
    Device,
    Alias,
    Directory,
    Target,
}

impl Trace {
    fn is_there(self, machine: &Machine, usage: &Usage) -> bool {
        match self {
            Self::Record => !machine.records().is_empty(),
            Self::Device => !machine.devices().is_empty(),
            Self::Alias => !Mounts::read().at(&usage.alias()).is_empty(),
            Self::Directory => usage.target.exists(),
            Self::Target => !Mounts::read().at(&usage.target).is_empty(),
        }
    }
}

/// Waits for a moment that may pass at once, so it polls without a pause.
async fn at_once(what: &str, is_there: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_there() {
        assert!(Instant::now() < deadline, "{what} never came");
        tokio::task::yield_now().await;
    }
}

#[test]
fn a_plugin_that_is_killed_at_any_step_is_finished_by_the_next_one() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let machine = Machine::new(&flocker, 1);
        let mut plugin = machine.process(&[]).await;
        let volume = plugin.csi.create("data").await;
        let usage = machine.usage("data", volume, &HashMap::new());
        for trace in [
            Trace::Record,
            Trace::Device,
            Trace::Alias,
            Trace::Directory,
            Trace::Target,
        ] {
            let (csi, forth) = (plugin.csi.clone(), usage.clone());
            let way = tokio::spawn(async move {
                csi.stage(&forth).await?;
                csi.publish(&forth).await
            });
            at_once(&format!("{trace:?}"), || trace.is_there(&machine, &usage)).await;
            plugin.kill().await;
            way.abort();
            plugin = machine.process(&[]).await;
            plugin.csi.stage(&usage).await.unwrap();
            plugin.csi.publish(&usage).await.unwrap();
            only_mount_at(&usage.alias());
            only_mount_at(&usage.target);
            fs::write(usage.target.join("file"), "writable").unwrap();

            let (csi, back) = (plugin.csi.clone(), usage.clone());
            let way = tokio::spawn(async move {
                csi.unpublish(&back).await?;
                csi.unstage(&back).await
            });
            at_once(&format!("the end of {trace:?}"), || {
                !trace.is_there(&machine, &usage)
            })
            .await;
            plugin.kill().await;
            way.abort();
            plugin = machine.process(&[]).await;
            plugin.csi.unpublish(&usage).await.unwrap();
            plugin.csi.unstage(&usage).await.unwrap();
            assert_eq!(Mounts::read().below(&machine.path("")), []);
            assert!(!usage.target.exists() && machine.devices().is_empty());
            eventually("the lease and the record are removed", async || {
                let leased = flocker.leaseholder(volume).await.is_some();
                (!leased && machine.records().is_empty()).then_some(())
            })
            .await;
        }
        plugin.kill().await;
    });
}
