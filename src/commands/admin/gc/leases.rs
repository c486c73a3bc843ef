//! Leases that look forgotten. They are listed, and never released here.

use std::sync::Arc;
use std::time::SystemTime;

use serde::Serialize;
use uuid::Uuid;

use super::look::Look;
use crate::commands::admin::leases::Presence;
use crate::commands::admin::survey::NodeRef;
use crate::commands::admin::table::Table;
use crate::commands::failure::Failure;
use crate::telemetry::spawn_blocking;

/// A lease that looks forgotten.
#[derive(Serialize)]
pub(super) struct ForgottenLease {
    volume: Uuid,
    name: Option<String>,
    holder: NodeRef,
    reason: String,
    /// Releases it.
    command: String,
}

impl ForgottenLease {
    /// Whether it is the same lease at another time.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        (self.volume, self.holder.uuid) == (other.volume, other.holder.uuid)
    }

    pub(super) fn table(leases: &[Self]) -> Table {
        let mut table = Table::new(&["VOLUME", "REASON", "COMMAND"]);
        for lease in leases {
            table.add(vec![
                lease.name.clone().unwrap_or(lease.volume.to_string()).into(),
                lease.reason.clone().into(),
                lease.command.clone().into(),
            ]);
        }
        table
    }
}

/// Returns the leases that look forgotten, ordered by volume: of a node that is missing, or of this machine's node without a
/// use here.
///
/// # Errors
/// The examination of this machine failed.
pub(super) async fn forgotten(look: &Look) -> Result<Vec<ForgottenLease>, Failure> {
    let Ok(survey) = &look.survey else {
        return Ok(Vec::new());
    };
    let mut forgotten = Vec::new();
    for lease in survey.snapshot.leases() {
        let (volume, node) = (lease.dataset_id, lease.node_uuid);
        let reason = if survey.is_this_node(node) {
            if is_recent(look, volume, node) {
                continue;
            }
            let local = Arc::clone(&look.local);
            let used = spawn_blocking(move || local.use_of(volume)).await;
            if used
                .map_err(|error| Failure::context("search for uses on this machine", &error))?
                .is_some()
            {
                continue;
            }
            "this machine's node holds it, and nothing on this machine uses the volume".to_owned()
        } else if Presence::of(&survey.snapshot, node) == Presence::Missing {
            format!("node {} holds it", survey.named(node))
        } else {
            continue;
        };
        forgotten.push(ForgottenLease {
            volume,
            name: survey.name_of(volume),
            holder: survey.node(node),
            reason,
            command: format!("flocker-csi leases release {volume} --node {node}"),
        });
    }
    forgotten.sort_by_key(|lease| lease.volume);
    Ok(forgotten)
}

/// Whether a record says that the lease is younger than the grace period, or was to be released that recently.
fn is_recent(look: &Look, volume: Uuid, node: Uuid) -> bool {
    let now = SystemTime::now();
    let stagings = look.local.of(volume).stagings;
    stagings
        .iter()
        .filter(|staging| staging.node == Some(node))
        .any(|staging| {
            let age = staging
                .since
                .map(|since| now.duration_since(since).unwrap_or_default());
            age.is_some_and(|age| age < look.takeover_grace)
        })
}
