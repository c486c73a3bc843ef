//! Volumes that a task calls by a name: mesos-module-flocker's `FLOCKER_ID`, and names of CSI and Docker volumes.

mod first_use;
mod interrupted;
mod lookup;
mod recorded;

use std::collections::{BTreeMap, HashMap};
use std::fs;

use flocker_client::{Dataset, NewDataset};
use tonic::Status;
use uuid::Uuid;

use crate::node::Fixture;
use crate::support::csi::{Csi, Usage};
use crate::support::flocker::Flocker;
use crate::support::machine::Machine;

const MIB: u64 = 1 << 20;
const DATASETS: &str = "/v1/configuration/datasets";

/// Makes a dataset with this metadata on a node, as an older client of Flocker's did.
pub(crate) async fn declare(flocker: &Flocker, number: usize, metadata: &[(&str, &str)]) -> Uuid {
    let new = NewDataset {
        dataset_id: None,
        primary: flocker.node(number),
        maximum_size: Some(64 * MIB),
        metadata: metadata
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
    };
    let made = flocker.client().await.create_dataset(&new).await.unwrap();
    made.dataset_id
}

/// Returns the datasets that are not deleted.
async fn live(flocker: &Flocker) -> Vec<Dataset> {
    let listed = flocker.datasets().await.into_iter();
    listed.filter(|dataset| !dataset.deleted).collect()
}

fn context(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    let pairs = pairs.iter();
    pairs
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

/// Plans to use a volume by its name, as a task does whose framework calls only nodes.
fn by_name(machine: &Machine, name: &str, volume_context: &[(&str, &str)]) -> Usage {
    Usage {
        volume_id: name.to_owned(),
        volume_context: context(volume_context),
        ..machine.usage(&name.replace(' ', "-"), Uuid::nil(), &HashMap::new())
    }
}

/// Uses a volume like a container that starts.
async fn begin(csi: &Csi, usage: &Usage) -> Result<(), Status> {
    csi.stage(usage).await?;
    csi.publish(usage).await
}

/// Stops using a volume like a container that ends.
async fn end(csi: &Csi, usage: &Usage) {
    csi.unpublish(usage).await.unwrap();
    assert!(!usage.target.exists());
    csi.unstage(usage).await.unwrap();
    assert_eq!(fs::read_dir(&usage.staging).unwrap().count(), 0);
}

/// A fixture whose plugin makes volumes on first use.
async fn making(nodes: usize) -> Fixture {
    let flocker = Flocker::start(nodes).await;
    let mut machine = Machine::new(&flocker, 1);
    machine.config.plugin.create_on_first_use = true;
    Fixture::on(machine, flocker).await
}

/// The metadata of a volume that is created on first use.
fn keys(metadata: &BTreeMap<String, String>, keys: &[&str]) -> Vec<Option<String>> {
    keys.iter().map(|key| metadata.get(*key).cloned()).collect()
}
