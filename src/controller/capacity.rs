//! `GetCapacity`.

use std::collections::BTreeMap;

use csi_proto::v1::{GetCapacityRequest, GetCapacityResponse, Topology};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{ControllerCore, bytes};
use crate::csi::capability::{Capability, Side};
use crate::error::Result;
use crate::flocker::cluster::Lists;
use crate::flocker::provisioning::{Pool, PoolUsage};
use crate::operation::deadline::Deadline;
use crate::volume::{MINIMUM_SIZE, Parameters};

/// The free space of a pool, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FreeSpace {
    /// The sum.
    total: u64,
    /// The largest volume that fits.
    largest: u64,
}

/// The free space of each pool, by profile. The pool without a profile has the empty one. Where it was asked for on one
/// node, the node's UUID follows, after a line feed.
pub(super) type FreeSpaceByProfile = BTreeMap<String, FreeSpace>;

/// Returns the free space for volumes of a profile; with topology, that of one node where the request names it and each
/// node has a pool of its own.
///
/// An unknown profile or an unsupported capability has none and is no error, because Mesos asks for every disk profile
/// that it knows. While Flocker is down the last known value is returned.
pub(super) async fn get_capacity(
    core: &ControllerCore,
    deadline: Deadline,
    request: GetCapacityRequest,
) -> Result<GetCapacityResponse> {
    let on = node_of(core, request.accessible_topology.as_ref())?;
    let supported = |capability| Capability::parse(Some(capability), Side::Controller).is_ok();
    let pool = match Parameters::parse(&request.parameters) {
        Ok(parameters) if request.volume_capabilities.iter().all(supported) => core
            .provisioner
            .settings()
            .pools
            .iter()
            .find(|pool| pool.profile == parameters.profile),
        Ok(_) | Err(_) => None,
    };
    let Some(pool) = pool else {
        return Ok(GetCapacityResponse::default());
    };
    let on = on.filter(|_| pool.per_node);
    let profile = pool.profile.clone().unwrap_or_default();
    let of = on.map_or(profile.clone(), |node| format!("{profile}\n{node}"));
    let free = match read_free_space(core, deadline, pool, on).await {
        Ok(free) => {
            let store = |by_profile: &mut FreeSpaceByProfile| {
                by_profile.insert(of, free);
            };
            core.last_free_space.update(store).await;
            free
        }
        Err(error) => {
            tracing::warn!(
                "Reading the capacity: {}; the answer is the last known value",
                error.chain()
            );
            core.last_free_space
                .get()
                .await
                .and_then(|by_profile| by_profile.get(&of).copied())
                .unwrap_or_default()
        }
    };
    Ok(answer(free, core.provisioner.settings().sizes.allocation_unit))
}

/// Returns the node that the request asks about. A plugin that creates volumes on one node only answers for that node,
/// whatever it is asked.
fn node_of(core: &ControllerCore, topology: Option<&Topology>) -> Result<Option<Uuid>> {
    let settings = core.provisioner.settings();
    let (Some(key), Some(topology), true) = (&settings.topology, topology, settings.scope.is_cluster())
    else {
        return Ok(None);
    };
    key.node(&topology.segments)
        .map_err(|error| error.context("reading the capacity: accessible_topology"))
}

async fn read_free_space(
    core: &ControllerCore,
    deadline: Deadline,
    pool: &Pool,
    on: Option<Uuid>,
) -> Result<FreeSpace> {
    let only = core.node_of_scope(deadline).await?;
    let snapshot = core
        .read(deadline, Lists::CONFIGURATION | Lists::STATE | Lists::NODES)
        .await?;
    let nodes: Vec<Uuid> = match (only, on) {
        (Some(node), _) => vec![node],
        // No volume can be created on a node that does not report.
        (None, Some(node)) => Some(node)
            .filter(|node| snapshot.lists_node(*node))
            .into_iter()
            .collect(),
        (None, None) => snapshot.nodes().map(|node| node.uuid).collect(),
    };
    Ok(free_space(pool, &core.provisioner.usage(&snapshot), &nodes))
}

fn free_space(pool: &Pool, usage: &PoolUsage, nodes: &[Uuid]) -> FreeSpace {
    if pool.per_node {
        let by_node = || nodes.iter().map(|node| usage.free(pool, *node));
        FreeSpace {
            total: by_node().fold(0, u64::saturating_add),
            largest: by_node().max().unwrap_or(0),
        }
    } else {
        let left = usage.free(pool, Uuid::nil());
        FreeSpace {
            total: left,
            largest: left,
        }
    }
}

fn answer(free: FreeSpace, allocation_unit: u64) -> GetCapacityResponse {
    let unit = allocation_unit.max(1);
    let smallest = MINIMUM_SIZE.next_multiple_of(unit);
    let largest = free.largest - free.largest % unit;
    GetCapacityResponse {
        available_capacity: bytes(free.total),
        // If not even the smallest volume fits, there is no largest one.
        maximum_volume_size: (largest >= smallest).then(|| bytes(largest)),
        minimum_volume_size: Some(bytes(smallest)),
    }
}

#[cfg(test)]
mod tests {
    use flocker_client::Dataset;

    use super::*;
    use crate::flocker::cluster::Snapshot;

    const GIB: u64 = 1 << 30;
    const A: Uuid = Uuid::from_u128(0xa);
    const B: Uuid = Uuid::from_u128(0xb);

    #[test]
    fn a_pool_of_each_node_has_the_sum_of_all_nodes_and_the_largest_for_one_volume() {
        let pool = |per_node| Pool {
            profile: None,
            capacity: 10 * GIB,
            per_node,
        };
        let dataset = Dataset {
            dataset_id: Uuid::from_u128(1),
            primary: A,
            deleted: false,
            maximum_size: Some(4 * GIB),
            metadata: BTreeMap::new(),
            unreadable: flocker_client::UnreadableParts::default(),
        };
        let snapshot = Snapshot::of(vec![dataset], vec![], &[A, B], vec![]);
        let free_space_of = |pool: Pool, nodes: &[Uuid]| {
            free_space(
                &pool,
                &PoolUsage::of(&snapshot, std::slice::from_ref(&pool)),
                nodes,
            )
        };
        assert_eq!(
            free_space_of(pool(true), &[A, B]),
            FreeSpace {
                total: 16 * GIB,
                largest: 10 * GIB
            }
        );
        assert_eq!(
            free_space_of(pool(true), &[A]),
            FreeSpace {
                total: 6 * GIB,
                largest: 6 * GIB
            }
        );
        assert_eq!(free_space_of(pool(true), &[]), FreeSpace::default());
        assert_eq!(
            free_space_of(pool(false), &[A, B]),
            FreeSpace {
                total: 6 * GIB,
                largest: 6 * GIB
            }
        );
    }

    #[test]
    fn the_largest_volume_is_a_multiple_of_the_unit_and_unset_when_none_fits() {
        let answered = |largest| {
            answer(
                FreeSpace {
                    total: largest,
                    largest,
                },
                GIB,
            )
        };
        let much = answered(5 * GIB + 7);
        assert_eq!(much.available_capacity, i64::try_from(5 * GIB + 7).unwrap());
        assert_eq!(much.maximum_volume_size, Some(5 << 30));
        assert_eq!(much.minimum_volume_size, Some(1 << 30));
        assert_eq!(answered(GIB - 1).maximum_volume_size, None);
        assert_eq!(
            answer(FreeSpace::default(), 1 << 20).minimum_volume_size,
            Some(64 << 20)
        );
    }
}
