//! `NodeGetVolumeStats`: how full a volume is, and whether it is well.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use csi_proto::v1::volume_usage::Unit;
use csi_proto::v1::{NodeGetVolumeStatsRequest, NodeGetVolumeStatsResponse, VolumeCondition, VolumeUsage};
use uuid::Uuid;

use super::Core;
use super::host::{Host, visible};
use super::mount::{Mount, TargetPath, Usage, UsageError, alias_path};
use crate::error::{Error, Result, Situation};

/// How long a file system may take to answer.
const PATIENCE: Duration = Duration::from_secs(1);

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
    let not_there = || {
        let text = format!("volume {volume_id} is not mounted at volume_path {volume_path:?}");
        Error::new(Situation::NotMountedThere, text)
    };
    let path = TargetPath::parse(&volume_path).map_err(|_| not_there())?;
    let lookup = volume_id.clone();
    let found = host.blocking(move |host| Ok(find(host, &lookup, &path))).await?;
    let (dataset, mount) = found.ok_or_else(not_there)?;
    let used = core.usage.usage(dataset, &mount.point, PATIENCE).await;
    let well = {
        let mount = mount.clone();
        host.blocking(move |host| Ok(host.ailment(dataset, &mount)))
            .await?
    };
    let (usage, condition) = match used {
        Ok(usage) => (usages(usage), condition(well)),
        Err(error @ UsageError::Hung { .. }) => (Vec::new(), condition(Some(error.to_string()))),
        Err(error) => (Vec::new(), condition(Some(crate::error::chain(&error)))),
    };
    Ok(NodeGetVolumeStatsResponse {
        usage,
        volume_condition: Some(condition),
    })
}

/// Finds the volume's mount at a path: published there, or staged there.
fn find(host: &Host, volume_id: &str, path: &TargetPath) -> Option<(Uuid, Mount)> {
    let dataset = host
        .dataset_of_volume(volume_id)
        .or_else(|| crate::volume::dataset_of(volume_id))?;
    let resolved = path.resolve().ok()?;
    let origins = host.origins_of(dataset);
    let mounted = |path: &Path| {
        let top = visible(path).ok().flatten();
        top.filter(|mount| origins.iter().any(|origin| origin.owns(mount)))
    };
    let found = mounted(resolved.path()).or_else(|| mounted(&alias_path(resolved.path(), dataset)));
    found.map(|mount| (dataset, mount))
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
