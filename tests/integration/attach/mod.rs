//! Attaching and detaching with concurrent callers, while Flocker fails, and while nodes die.

mod created;
mod dead;
mod deleted;
mod flicker;
mod handover;
mod late;
mod lost;
mod races;
mod releases;
mod takeover;
mod unclear;

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use csi_proto::v1::volume_capability::access_mode::Mode;
use csi_proto::v1::{ControllerPublishVolumeRequest, ControllerUnpublishVolumeRequest, DeleteVolumeRequest};
use flocker_client::Dataset;
use flocker_embedded::faults::{Effect, Faults, RequestFault};
use tonic::Status;
use uuid::Uuid;

use crate::support::csi::{Csi, Usage, capability, within};
use crate::support::eventually;
use crate::support::flocker::Flocker;
use crate::support::machine::{Machine, Running};

const DATASETS: &str = "/v1/configuration/datasets";
const DATASET: &str = "/v1/configuration/datasets/{dataset_id}";
const LEASES: &str = "/v1/configuration/leases";
const LEASE: &str = "/v1/configuration/leases/{dataset_id}";
const NODES: &str = "/v1/state/nodes";

/// Long enough for everything that must happen.
const LONG: Duration = Duration::from_secs(55);

/// A Flocker of two nodes, with a plugin on each: two controllers that know nothing of each other.
struct Pair {
    flocker: Flocker,
    first: Machine,
    second: Machine,
    one: Running,
    two: Running,
}

impl Pair {
    async fn start() -> Self {
        Self::on(Flocker::start(2).await, |_| {}).await
    }

    /// Starts the plugins of a Flocker's two nodes, the second one with changed settings.
    async fn on(flocker: Flocker, change: impl FnOnce(&mut Machine)) -> Self {
        let (first, mut second) = (Machine::new(&flocker, 1), Machine::new(&flocker, 2));
        change(&mut second);
        let (one, two) = (first.plugin().await, second.plugin().await);
        Self {
            flocker,
            first,
            second,
            one,
            two,
        }
    }

    fn faults(&self) -> &Faults {
        self.flocker.embedded().faults()
    }

    /// Creates a volume on the first node, attached to none.
    async fn volume(&self, name: &str) -> Uuid {
        let volume = self.one.csi.create(name).await;
        self.one.csi.attach(volume, self.first.node()).await;
        self.one.csi.detach(volume, self.first.node()).await;
        self.flocker.reports(1, volume).await;
        volume
    }

    async fn configured(&self, volume: Uuid) -> Dataset {
        let datasets = self.flocker.datasets().await;
        let mut datasets = datasets.into_iter();
        datasets.find(|dataset| dataset.dataset_id == volume).unwrap()
    }

    fn asked(&self, method: &str, route: &str) -> u64 {
        self.flocker.embedded().counters().asked(method, route)
    }
}

/// Attaches a volume and returns the publish context, or why it failed.
async fn attach(
    csi: &Csi,
    volume: Uuid,
    node: Uuid,
    time: Duration,
) -> Result<HashMap<String, String>, Status> {
    let request = ControllerPublishVolumeRequest {
        volume_id: volume.to_string(),
        node_id: node.to_string(),
        volume_capability: Some(capability(Mode::SingleNodeWriter)),
        ..Default::default()
    };
    let attached = csi
        .controller()
        .controller_publish_volume(within(time, request))
        .await?;
    Ok(attached.into_inner().publish_context)
}

/// Detaches a volume from a node, or from every node for the empty id.
async fn detach(csi: &Csi, volume: Uuid, node_id: &str) -> Result<(), Status> {
    let request = ControllerUnpublishVolumeRequest {
        volume_id: volume.to_string(),
        node_id: node_id.to_owned(),
        ..Default::default()
    };
    let detached = csi
        .controller()
        .controller_unpublish_volume(within(LONG, request))
        .await;
    detached.map(drop)
}

async fn delete(csi: &Csi, volume: Uuid, time: Duration) -> Result<(), Status> {
    let request = DeleteVolumeRequest {
        volume_id: volume.to_string(),
        ..Default::default()
    };
    csi.controller()
        .delete_volume(within(time, request))
        .await
        .map(drop)
}

async fn stage(csi: &Csi, usage: &Usage, time: Duration) -> Result<(), Status> {
    csi.node()
        .node_stage_volume(within(time, usage.to_stage()))
        .await
        .map(drop)
}

/// A rule that keeps the first request of its kind from being carried out until it is removed.
fn hold(name: &str, method: &str, route: &str) -> RequestFault {
    RequestFault::new(name, Effect::HoldRequest)
        .on(method, route)
        .once()
}

/// Waits until staging says that it waits for these words.
async fn wait_until_staging(csi: &Csi, usage: &Usage, words: &str) {
    wait_until_staging_at(csi, &usage.staging, words).await;
}

/// As [`wait_until_staging`], for any volume that is being staged at a path.
///
/// Another volume cannot be staged at that path at the same time, and the refusal says why.
pub(crate) async fn wait_until_staging_at(csi: &Csi, staging: &Path, words: &str) {
    let other = Usage {
        volume_id: Uuid::new_v4().to_string(),
        publish_context: HashMap::new(),
        volume_context: HashMap::new(),
        staging: staging.to_owned(),
        target: staging.with_file_name("target"),
        capability: capability(Mode::SingleNodeWriter),
        readonly: false,
    };
    eventually(&format!("staging waits for {words:?}"), async || {
        let refused = stage(csi, &other, Duration::from_millis(200)).await.unwrap_err();
        refused.message().contains(words).then_some(())
    })
    .await;
}
