//! Staging that waits, and the events that end it.

use std::cell::Cell;
use std::fs::{self, File};
use std::path::PathBuf;
use std::time::Duration;

use rustix::io::Errno;
use tonic::{Code, Status};
use uuid::Uuid;

use super::{Fixture, agent_unmounts, assert_refused, unknown_id, wait_until_agent_unmounts};
use crate::support::csi::{Csi, Usage, within};
use crate::support::eventually;
use crate::support::flocker::Flocker;
use crate::support::machine::Machine;
use crate::support::mounts::{Mounts, only_mount_at};
use crate::support::namespace::in_own_namespace;
use crate::support::tcp_proxy::TcpProxy;

/// A volume that must move to the first node, while an open file on the second one keeps its agent from unmounting.
struct HeldBack {
    fixture: Fixture,
    usage: Usage,
    proxy: TcpProxy,
    holder: Cell<Option<File>>,
}

impl HeldBack {
    async fn start() -> Self {
        let flocker = Flocker::start(2).await;
        let proxy = TcpProxy::to(flocker.embedded().address()).await;
        let fixture = Fixture::on(Machine::through(proxy.address(), &flocker, 1), flocker).await;
        let (client, csi) = (fixture.flocker.client().await, fixture.csi());
        let (first, second) = (fixture.flocker.node(1), fixture.flocker.node(2));
        let volume = csi.create("data").await;
        let context = csi.attach(volume, second).await;
        fixture.flocker.reports(2, volume).await;
        let holder = File::open(fixture.flocker.mount_of(2, volume)).unwrap();
        csi.detach(volume, second).await;
        client.acquire_lease(volume, first, None).await.unwrap();
        client.move_dataset(volume, first).await.unwrap();
        let usage = fixture.machine.usage("data", volume, &context);
        Self {
            fixture,
            usage,
            proxy,
            holder: Cell::new(Some(holder)),
        }
    }

    /// Ends the use on the second node, so that the volume can move.
    fn let_go(&self) {
        drop(self.holder.take());
    }

    fn csi(&self) -> &Csi {
        self.fixture.csi()
    }

    fn flockers(&self) -> PathBuf {
        self.fixture.flocker.mount_of(1, self.usage.dataset())
    }

    /// Waits until the operation at the staging path reports that it waits for these words.
    ///
    /// Another volume cannot be staged there at the same time, and the refusal says why. Where that one is the first at the path,
    /// its own wait is reported, which is not meant.
    async fn wait_until_staging(&self, words: &str) {
        let other = Usage {
            volume_id: unknown_id().to_string(),
            ..self.usage.clone()
        };
        eventually(&format!("staging waits for {words:?}"), async || {
            let refused = stage_within(self.csi(), &other, 200).await.unwrap_err();
            let parts = [words, &self.usage.volume_id];
            parts
                .iter()
                .all(|part| refused.message().contains(part))
                .then_some(())
        })
        .await;
    }

    fn assert_no_mount_of_the_plugin(&self) {
        assert_eq!(Mounts::read().below(&self.fixture.machine.path("")), []);
        assert_eq!(fs::read_dir(&self.usage.staging).unwrap().count(), 0);
    }
}

async fn stage_within(csi: &Csi, usage: &Usage, milliseconds: u64) -> Result<(), Status> {
    let request = within(Duration::from_millis(milliseconds), usage.to_stage());
    csi.node().node_stage_volume(request).await.map(drop)
}

#[test]
fn a_caller_learns_what_staging_waits_for_and_the_next_one_gets_the_volume() {
    in_own_namespace(|| async {
        let held = HeldBack::start().await;
        let path = held.flockers();
        assert_refused(
            stage_within(held.csi(), &held.usage, 1000).await,
            Code::DeadlineExceeded,
            &[
                &held.usage.volume_id,
                "mounted here",
                path.to_str().unwrap(),
                "Flocker last answered",
            ],
        );
        held.assert_no_mount_of_the_plugin();
        let (staged, ()) = tokio::join!(held.csi().stage(&held.usage), async { held.let_go() });
        staged.unwrap();
        only_mount_at(&held.usage.alias());
    });
}

#[test]
fn unstaging_ends_a_staging_that_waits_and_nothing_is_mounted_afterwards() {
    in_own_namespace(|| async {
        let held = HeldBack::start().await;
        let (csi, usage) = (held.csi().clone(), held.usage.clone());
        let staging = tokio::spawn(async move { csi.stage(&usage).await });
        held.wait_until_staging("mounted here").await;
        held.csi().unstage(&held.usage).await.unwrap();
        assert_refused(
            staging.await.unwrap(),
            Code::Cancelled,
            &[&held.usage.volume_id, "inverse call"],
        );
        assert!(held.fixture.machine.records().is_empty());
        fs::remove_dir(&held.usage.staging).unwrap();

        // The orchestrator has removed its directory; the volume arrives, but the plugin does not mount it there.
        held.let_go();
        held.fixture.flocker.reports(1, held.usage.dataset()).await;
        assert_eq!(Mounts::read().below(&held.fixture.machine.path("")), []);
        assert!(!held.usage.staging.exists());
    });
}

#[test]
fn an_abandoned_staging_mounts_nothing_until_the_next_call() {
    in_own_namespace(|| async {
        let held = HeldBack::start().await;
        // Long enough for the staging to outlive its caller by far.
        let (csi, usage) = (held.csi().clone(), held.usage.clone());
        let staging = tokio::spawn(async move { csi.stage(&usage).await });
        held.wait_until_staging("mounted here").await;
        staging.abort();
        held.let_go();
        held.fixture.flocker.reports(1, held.usage.dataset()).await;
        held.wait_until_staging("waiting for a caller").await;
        held.assert_no_mount_of_the_plugin();

        held.csi().stage(&held.usage).await.unwrap();
        only_mount_at(&held.usage.alias());
        held.csi().publish(&held.usage).await.unwrap();
        held.csi().unpublish(&held.usage).await.unwrap();
        held.csi().unstage(&held.usage).await.unwrap();
        held.assert_no_mount_of_the_plugin();
    });
}

#[test]
fn unstaging_after_an_abandoned_staging_leaves_nothing() {
    in_own_namespace(|| async {
        let held = HeldBack::start().await;
        let (csi, usage) = (held.csi().clone(), held.usage.clone());
        let staging = tokio::spawn(async move { csi.stage(&usage).await });
        held.wait_until_staging("mounted here").await;
        staging.abort();
        held.let_go();
        held.wait_until_staging("waiting for a caller").await;
        held.csi().unstage(&held.usage).await.unwrap();
        held.assert_no_mount_of_the_plugin();
        assert!(held.fixture.machine.records().is_empty());
        let path = held.flockers();
        wait_until_agent_unmounts(&path).await;
    });
}

#[test]
fn unstaging_ends_a_staging_that_fetches_the_volume_and_gives_the_lease_back() {
    in_own_namespace(|| async {
        let held = HeldBack::start().await;
        let dataset: Uuid = held.usage.dataset();
        let driven = Usage {
            publish_context: [].into(),
            ..held.usage.clone()
        };
        let (csi, usage) = (held.csi().clone(), driven.clone());
        let staging = tokio::spawn(async move { csi.stage(&usage).await });
        held.wait_until_staging("released by the other node").await;
        held.csi().unstage(&driven).await.unwrap();
        assert_refused(staging.await.unwrap(), Code::Cancelled, &[&driven.volume_id]);
        assert_eq!(held.fixture.flocker.leaseholder(dataset).await, None);
        assert!(held.fixture.machine.records().is_empty());
        held.assert_no_mount_of_the_plugin();
    });
}

#[test]
fn unstaging_ends_a_staging_whose_last_read_of_flocker_is_not_answered() {
    in_own_namespace(|| async {
        let held = HeldBack::start().await;
        let (csi, usage) = (held.csi().clone(), held.usage.clone());
        let staging = tokio::spawn(async move { csi.stage(&usage).await });
        held.wait_until_staging("mounted here").await;
        held.proxy.stall();
        held.let_go();
        let path = held.flockers();
        eventually("staging has pinned the volume", async || {
            (agent_unmounts(&path) == Err(Errno::BUSY)).then_some(())
        })
        .await;
        let request = within(Duration::from_secs(10), held.usage.to_unstage());
        held.csi().node().node_unstage_volume(request).await.unwrap();
        assert_refused(staging.await.unwrap(), Code::Cancelled, &[&held.usage.volume_id]);
        held.assert_no_mount_of_the_plugin();
        assert!(held.fixture.machine.records().is_empty());
        wait_until_agent_unmounts(&path).await;
    });
}
