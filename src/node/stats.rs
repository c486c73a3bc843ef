//! `NodeGetVolumeStats`: how full a volume is, and whether it is well.

use std::borrow::Borrow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use csi_proto::v1::volume_usage::Unit;
use csi_proto::v1::{NodeGetVolumeStatsRequest, NodeGetVolumeStatsResponse, VolumeCondition, VolumeUsage};
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use super::Core;
use crate::error::{Error, Result, Situation};
use crate::host::Host;
use crate::host::mount::{ProbeVia, Usage, UsageError, alias_path};
use crate::host::mount_table;
use host_fs::mount::{Mount, TargetPath, layers_at};

/// How long a file system may take to answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// A volume that was found mounted at the path that was asked about.
struct Found {
    dataset: Uuid,
    mount: Mount,
    ailment: Option<String>,
    /// How to ask for its usage, unless that would ask another file system.
    through: Option<ProbeVia>,
}

/// Answers within about a second, whatever the device does.
pub(super) async fn stats(
    core: &Arc<Core>,
    host: &Arc<Host>,
    request: NodeGetVolumeStatsRequest,
) -> Result<NodeGetVolumeStatsResponse> {
    let NodeGetVolumeStatsRequest {
        volume_id,
        volume_path,
        ..
    } = request;
    let answer_by = Instant::now() + PATIENCE;
    let (volume, path) = (volume_id.clone(), volume_path.clone());
    let finding = timeout_at(answer_by, host.blocking(move |host| find(host, &volume, &path)));
    let found = finding.await.unwrap_or_else(|_elapsed| {
        let text = format!(
            "volume {volume_id}: what is mounted at volume_path {volume_path:?} could not be seen within {} s; a file \
             system on the way there may hang",
            PATIENCE.as_secs()
        );
        Err(Error::new(Situation::Busy, text))
    })?;
    let Found {
        dataset,
        mount,
        ailment,
        through,
    } = found;
    let within = answer_by.saturating_duration_since(Instant::now());
    let used = match through {
        Some(through) => core
            .usage
            .usage(dataset, &mount.point, through, within)
            .await
            .map(usages),
        None => Ok(Vec::new()),
    };
    let (usage, ailment) = match used {
        Ok(usage) => (usage, ailment),
        Err(error @ UsageError::Hung { .. }) => (Vec::new(), Some(error.to_string())),
        Err(error) => (Vec::new(), ailment.or_else(|| Some(crate::error::chain(&error)))),
    };
    Ok(NodeGetVolumeStatsResponse {
        usage,
        volume_condition: Some(condition(ailment)),
    })
}

/// Finds the volume's mount at a path: published there, or staged there.
fn find(host: &Host, volume_id: &str, volume_path: &str) -> Result<Found> {
    let not_there = |instead: Option<&Mount>| {
        let instead = instead.map_or_else(String::new, |mount| {
            format!(": {mount} is there instead, which is not ours")
        });
        let text = format!("volume {volume_id} is not mounted at volume_path {volume_path:?}{instead}");
        Error::new(Situation::NotMountedThere, text)
    };
    let resolved = TargetPath::parse(volume_path).and_then(|path| path.resolve());
    let resolved = resolved.map_err(|_| not_there(None))?;
    let dataset = host.dataset_at(resolved.path(), volume_id)?;
    let layers = |path: &Path| layers_at(path).unwrap_or_default();
    let (at_path, dataset) = match (layers(resolved.path()), dataset) {
        (at_path, Some(dataset)) => (at_path, dataset),
        (at_path, None) => return Err(not_there(at_path.last())),
    };
    let alias = alias_path(resolved.path(), dataset);
    let published = find_in(host, dataset, &at_path);
    let found = match published {
        None if at_path.is_empty() => find_in(host, dataset, &layers(&alias)),
        // What is mounted at the path may hang, and then so would whoever looks into it.
        None => find_in(host, dataset, &mount_table()?.layers_at(&alias)),
        found => found,
    };
    let (mount, over) = found.ok_or_else(|| not_there(at_path.last()))?;
    let through = host.way_to(dataset, &mount);
    let leads_there = over.is_none() || matches!(through, ProbeVia::Root(_));
    let hidden = over.map(|over| {
        format!("the volume at {volume_path:?} is hidden under {over}, which is not ours; unmount that")
    });
    Ok(Found {
        dataset,
        ailment: hidden.or_else(|| host.ailment(dataset, &mount)),
        through: leads_there.then_some(through),
        mount,
    })
}

/// Finds the volume's mount among those at one path, and somebody else's that hides it.
fn find_in(host: &Host, dataset: Uuid, layers: &[impl Borrow<Mount>]) -> Option<(Mount, Option<Mount>)> {
    let mut layers = layers.iter().map(Borrow::borrow);
    let top = layers.clone().next_back();
    let ours = layers.rfind(|mount| host.owns(dataset, mount))?;
    Some((ours.clone(), top.filter(|top| top.id != ours.id).cloned()))
}

fn usages(usage: Usage) -> Vec<VolumeUsage> {
    let count = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    vec![
        VolumeUsage {
            available: count(usage.available_bytes),
            total: count(usage.total_bytes),
            used: count(usage.used_bytes),
            unit: Unit::Bytes.into(),
        },
        VolumeUsage {
            available: count(usage.free_inodes),
            total: count(usage.total_inodes),
            used: count(usage.used_inodes),
            unit: Unit::Inodes.into(),
        },
    ]
}

fn condition(ailment: Option<String>) -> VolumeCondition {
    match ailment {
        Some(message) => VolumeCondition {
            abnormal: true,
            message,
        },
        None => VolumeCondition {
            abnormal: false,
            message: "mounted, and held on this node".to_owned(),
        },
    }
}
