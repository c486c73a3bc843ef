//! `GetCapacity`.

use std::collections::BTreeMap;

use csi_proto::v1::{GetCapacityRequest, GetCapacityResponse};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Core, bytes};
use crate::csi::capability::{Capability, Side};
use crate::error::Result;
use crate::flocker::cluster::Lists;
use crate::flocker::provisioning::Pool;
use crate::flocker::provisioning::Usage;
use crate::operation::deadline::Deadline;
use crate::volume::{MINIMUM_SIZE, Parameters};

/// What a pool has left, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Room {
    /// In all.
    total: u64,
    /// For one volume.
    largest: u64,
}

/// The last known room of each pool, by profile; the pool without one is the empty profile.
pub(super) type Rooms = BTreeMap<String, Room>;

/// Tells how much room there is for volumes of a profile.
///
/// What can never be made has no room: an unknown profile or an unsupported capability is no error, because Mesos
/// asks for every disk profile it knows. While Flocker is down the last value is told.
pub(super) async fn get_capacity(
    core: &Core,
    deadline: Deadline,
    request: GetCapacityRequest,
) -> Result<GetCapacityResponse> {
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
    let profile = pool.profile.clone().unwrap_or_default();
    let room = match current(core, deadline, pool).await {
        Ok(room) => {
            let remember = |rooms: &mut Rooms| {
                rooms.insert(profile, room);
            };
            core.last_rooms.update(remember).await;
            room
        }
        Err(error) => {
            tracing::warn!(
                "Telling the capacity: {}; the answer is the last value known",
                error.chain()
            );
            core.last_rooms
                .last()
                .await
                .and_then(|rooms| rooms.get(&profile).copied())
                .unwrap_or_default()
        }
    };
    Ok(answer(room, core.provisioner.settings().sizes.allocation_unit))
}

async fn current(core: &Core, deadline: Deadline, pool: &Pool) -> Result<Room> {
    let only = core.node_of_scope(deadline).await?;
    let snapshot = core
        .read(deadline, Lists::CONFIGURATION | Lists::STATE | Lists::NODES)
        .await?;
    let nodes: Vec<Uuid> = only.map_or_else(
        || snapshot.nodes().map(|node| node.uuid).collect(),
        |node| vec![node],
    );
    Ok(room(pool, &core.provisioner.usage(&snapshot), &nodes))
}

fn room(pool: &Pool, usage: &Usage, nodes: &[Uuid]) -> Room {
    if pool.per_node {
        let rooms = || nodes.iter().map(|node| usage.room(pool, *node));
        Room {
            total: rooms().fold(0, u64::saturating_add),
            largest: rooms().max().unwrap_or(0),
        }
    } else {
        let left = usage.room(pool, Uuid::nil());
        Room {
            total: left,
            largest: left,
        }
    }
}

fn answer(room: Room, allocation_unit: u64) -> GetCapacityResponse {
    let unit = allocation_unit.max(1);
    let smallest = MINIMUM_SIZE.next_multiple_of(unit);
    let largest = room.largest - room.largest % unit;
    GetCapacityResponse {
        available_capacity: bytes(room.total),
        // Without room for the smallest volume there is no largest one.
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
    fn a_pool_of_each_node_has_the_sum_in_all_and_the_largest_for_one_volume() {
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
        };
        let snapshot = Snapshot::of(vec![dataset], vec![], &[A, B], vec![]);
        let room_of = |pool: Pool, nodes: &[Uuid]| {
            room(&pool, &Usage::of(&snapshot, std::slice::from_ref(&pool)), nodes)
        };
        assert_eq!(
            room_of(pool(true), &[A, B]),
            Room {
                total: 16 * GIB,
                largest: 10 * GIB
            }
        );
        assert_eq!(
            room_of(pool(true), &[A]),
            Room {
                total: 6 * GIB,
                largest: 6 * GIB
            }
        );
        assert_eq!(room_of(pool(true), &[]), Room::default());
        assert_eq!(
            room_of(pool(false), &[A, B]),
            Room {
                total: 6 * GIB,
                largest: 6 * GIB
            }
        );
    }

    #[test]
    fn the_largest_volume_is_a_multiple_of_the_unit_and_unset_when_none_fits() {
        let told = |largest| {
            answer(
                Room {
                    total: largest,
                    largest,
                },
                GIB,
            )
        };
        let much = told(5 * GIB + 7);
        assert_eq!(much.available_capacity, i64::try_from(5 * GIB + 7).unwrap());
        assert_eq!(much.maximum_volume_size, Some(5 << 30));
        assert_eq!(much.minimum_volume_size, Some(1 << 30));
        assert_eq!(told(GIB - 1).maximum_volume_size, None);
        assert_eq!(
            answer(Room::default(), 1 << 20).minimum_volume_size,
            Some(64 << 20)
        );
    }
}
