//! `NodeGetVolumeStats`: the usage of a volume, and whether it is healthy.

use std::sync::Arc;
use std::time::Duration;

use csi_proto::v1::volume_usage::Unit;
use csi_proto::v1::{NodeGetVolumeStatsRequest, NodeGetVolumeStatsResponse, VolumeCondition, VolumeUsage};
use tokio::time::{Instant, timeout_at};

use super::NodeCore;
use crate::error::{Error, Result, Situation};
use crate::host::mount::{Usage, UsageError};
use crate::host::{Host, MountedVolume, VolumeFault};

/// How long a file system may take to answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// Answers within about a second, also when the device hangs.
pub(super) async fn stats(
    core: &Arc<NodeCore>,
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
    let finding = async {
        let permit = core.paths.enter(&[volume_path.as_ref()]).await;
        host.blocking_on_paths(permit, move |host, _| host.mounted_volume(&volume, &path))
            .await
    };
    let found = timeout_at(answer_by, finding).await.unwrap_or_else(|_elapsed| {
        let text = format!(
            "volume {volume_id}: what is mounted at volume_path {volume_path:?} could not be seen within {} s; a file \
             system on the way to it may hang",
            PATIENCE.as_secs()
        );
        Err(Error::new(Situation::Busy, text))
    })?;
    let MountedVolume {
        dataset,
        mount,
        fault,
        via,
    } = found;
    let fault = fault.map(|fault| fault.to_string());
    let within = answer_by.saturating_duration_since(Instant::now());
    let used = match via {
        Some(via) => core
            .usage
            .usage(dataset, &mount.point, via, within)
            .await
            .map(usages),
        None => Ok(Vec::new()),
    };
    let (usage, fault) = match used {
        Ok(usage) => (usage, fault),
        Err(error @ UsageError::Hung { .. }) => {
            (Vec::new(), Some(VolumeFault::NotAnswering(error).to_string()))
        }
        Err(error) => (Vec::new(), fault.or_else(|| Some(crate::error::chain(&error)))),
    };
    Ok(NodeGetVolumeStatsResponse {
        usage,
        volume_condition: Some(condition(fault)),
    })
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

fn condition(fault: Option<String>) -> VolumeCondition {
    match fault {
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
