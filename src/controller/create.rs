//! `CreateVolume`.

use std::fmt;
use std::sync::Arc;

use csi_proto::v1::{CapacityRange, CreateVolumeRequest, CreateVolumeResponse, Volume as ProtoVolume};
use flocker_client::NewDataset;
use uuid::Uuid;

use super::existing::{self, Existing};
use super::usage::{Claimed, pool_of};
use super::{Core, bytes, provision};
use crate::capability::Capability;
use crate::cluster::{Creation, Lists, Snapshot};
use crate::config::{Pool, ProvisionWait};
use crate::deadline::Deadline;
use crate::error::{Error, Result, Situation};
use crate::operation::{Call, Context, Phase, Wanted};
use crate::status::is_final;
use crate::volume::{Generation, MINIMUM_SIZE, Parameters, SizeRange, VolumeName, metadata, size_text};

/// How often an answer of Flocker that leaves open what it did is followed by another look.
const ATTEMPTS: u32 = 3;

/// A volume that is asked for. Requests for one name exclude each other; equal ones are one.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct CreateCall {
    pub(super) name: VolumeName,
    /// The sizes that will do, as they were asked for and as they were understood.
    pub(super) capacity_range: CapacityRange,
    pub(super) range: SizeRange,
    /// The size of a new volume, chosen within `range`.
    pub(super) size: u64,
    pub(super) parameters: Parameters,
}

/// A volume that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Volume {
    pub(super) dataset: Uuid,
    pub(super) size: u64,
}

impl Call for CreateCall {
    type Slot = VolumeName;

    fn slot(&self) -> VolumeName {
        self.name.clone()
    }
}

impl fmt::Display for CreateCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "creating volume {:?}", self.name.as_str())
    }
}

/// Makes a volume, or finds the one that an earlier equal call made.
pub(super) async fn create_volume(
    core: &Arc<Core>,
    deadline: Deadline,
    request: CreateVolumeRequest,
) -> Result<CreateVolumeResponse> {
    let call = parse(core, &request)
        .map_err(|error| error.while_doing(format_args!("creating volume {:?}", request.name)))?;
    let work = {
        let (core, call) = (Arc::clone(core), call.clone());
        |context| async move { create(&core, &context, &call).await }
    };
    let volume = core.creates.run(call, deadline, work).await?;
    // A constant, empty context: Mesos checks that it never changes. No topology: a dataset can move anywhere.
    let volume = ProtoVolume {
        volume_id: volume.dataset.to_string(),
        capacity_bytes: bytes(volume.size),
        ..Default::default()
    };
    Ok(CreateVolumeResponse { volume: Some(volume) })
}

fn parse(core: &Core, request: &CreateVolumeRequest) -> Result<CreateCall> {
    let refuse = |text: &str| Err(Error::new(Situation::InvalidArgument, text));
    let name = VolumeName::parse(&request.name)?;
    Capability::parse_all(&request.volume_capabilities)?;
    let parameters = Parameters::parse(&request.parameters)?;
    metadata(&core.settings.driver_name, &name, 0, &parameters)?;
    if request.volume_content_source.is_some() {
        return refuse(
            "volume_content_source is not supported: Flocker has neither snapshots nor clones, so leave it unset",
        );
    }
    if !request.mutable_parameters.is_empty() {
        return refuse(
            "mutable_parameters is not supported: Flocker cannot change a dataset, so leave it empty and use \
             parameters",
        );
    }
    let capacity_range = request.capacity_range.unwrap_or_default();
    let range = SizeRange::parse(capacity_range.required_bytes, capacity_range.limit_bytes)?;
    let size = core.settings.sizes.choose(range)?;
    Ok(CreateCall {
        name,
        capacity_range,
        range,
        size,
        parameters,
    })
}

/// Whether the empty pool has room for some size within the range.
fn could_ever_fit(pool: &Pool, call: &CreateCall, unit: u64) -> bool {
    let largest = pool.capacity - pool.capacity % unit.max(1);
    call.size <= pool.capacity || (largest >= MINIMUM_SIZE && call.range.contains(largest))
}

fn pool_text(pool: &Pool) -> String {
    let place = if pool.per_node { " of each node" } else { "" };
    pool.profile.as_deref().map_or_else(
        || format!("the pool{place}"),
        |profile| format!("the pool{place} for profile {profile:?}"),
    )
}

/// Finds or makes the volume.
///
/// Until the dataset is asked for, an error may be final. From then on it may exist, and every error is one that
/// makes the orchestrator call again: after a final one nobody would ever delete it.
async fn create(core: &Core, context: &Context, call: &CreateCall) -> Result<Volume> {
    let mut unclear = None;
    let mut attempts = 0;
    loop {
        let lists = Lists::CONFIGURATION | Lists::STATE | Lists::NODES;
        let looked = core.cluster.fresh_for(context, lists).await;
        let snapshot = looked.map_err(|error| in_progress(error).told_by(call))?;
        let settings = &core.settings;
        let (dataset, generation) =
            match existing::find(&snapshot, &settings.driver_name, &settings.namespace, call)? {
                Existing::Same(volume) => return finish(core, context, call, volume).await,
                Existing::Free { dataset, generation } => (dataset, generation),
            };
        if attempts == ATTEMPTS {
            let text = format!(
                "{call}: after {ATTEMPTS} attempts Flocker does not have dataset {dataset}; see the control \
                 service's log"
            );
            return Err(unclear.unwrap_or_else(|| Error::new(Situation::FlockerUnavailable, text)));
        }
        context.about(dataset);
        let Some(claimed) = place(core, context, call, &snapshot, dataset).await? else {
            continue;
        };
        context.check()?;
        attempts += 1;
        context.enter(Phase::Configured {
            what: Wanted::Dataset,
            node: claimed.primary,
        });
        let declared = declare(core, call, &claimed, generation).await;
        drop(claimed);
        match declared {
            Ok(Some(volume)) => return finish(core, context, call, volume).await,
            // Somebody else made it, or the last look was too early: look again.
            Ok(None) => {}
            // What Flocker refuses it has not stored; but an earlier attempt may have come through.
            Err(refused) if is_final(refused.situation()) && unclear.is_none() => {
                return Err(refused.told_by(call));
            }
            Err(error) => unclear = Some(in_progress(error).told_by(call)),
        }
    }
}

/// Chooses the new volume's node and claims its room; returns nothing when the cluster has to be looked at again.
async fn place(
    core: &Core,
    context: &Context,
    call: &CreateCall,
    snapshot: &Snapshot,
    dataset: Uuid,
) -> Result<Option<Claimed>> {
    let this_node = context.unless_cancelled(core.settings.scope.node()).await?;
    let only = this_node.map_err(|error| error.told_by(call))?;
    if let Some(node) = only.filter(|node| !snapshot.lists_node(*node)) {
        core.cluster.wait_for_node(context, node).await?;
        return Ok(None);
    }
    let pools = &core.settings.pools;
    let pool = pool_of(pools, call.parameters.profile.as_deref());
    let nodes: Vec<Uuid> = only.map_or_else(
        || snapshot.nodes().map(|node| node.uuid).collect(),
        |node| vec![node],
    );
    if nodes.is_empty() {
        let text = format!(
            "{call}: no node reports to Flocker, so none can hold the volume; check that flocker-dataset-agent runs \
             on the nodes"
        );
        return Err(Error::new(Situation::NodeNotReporting, text));
    }
    if let Some(pool) = pool.filter(|pool| !could_ever_fit(pool, call, core.settings.sizes.allocation_unit)) {
        let text = format!(
            "{call}: a volume of {} can never fit: {} has only {} in all",
            size_text(call.size),
            pool_text(pool),
            size_text(pool.capacity)
        );
        return Err(Error::new(Situation::ImpossibleSize, text));
    }
    let wanted = (dataset, call.size, call.parameters.profile.clone());
    let claimed = core.ledger.claim(snapshot, pools, wanted, |usage| {
        let room = |node: Uuid| pool.map_or(u64::MAX, |pool| usage.room(pool, node));
        let roomy = nodes.iter().copied().filter(|node| room(*node) >= call.size);
        usage.least_loaded(roomy).ok_or_else(|| {
            let most = nodes.iter().copied().map(room).max().unwrap_or(0);
            let text = format!(
                "{call}: {} has {} left, the volume needs {}; delete volumes or enlarge the pool",
                pool.map_or_else(String::new, pool_text),
                size_text(most),
                size_text(call.size)
            );
            Error::new(Situation::PoolFull, text)
        })
    })?;
    Ok(Some(claimed))
}

/// Asks Flocker for the dataset; returns nothing when its id is taken.
async fn declare(
    core: &Core,
    call: &CreateCall,
    claimed: &Claimed,
    generation: Generation,
) -> Result<Option<Volume>> {
    let new = NewDataset {
        dataset_id: Some(claimed.dataset),
        primary: claimed.primary,
        maximum_size: Some(call.size),
        metadata: metadata(
            &core.settings.driver_name,
            &call.name,
            generation,
            &call.parameters,
        )?,
    };
    match core.cluster.create_dataset(&new).await? {
        Creation::Made(dataset) => {
            tracing::info!(
                dataset.id = %claimed.dataset,
                node.id = %claimed.primary,
                "Dataset {} was declared for volume {:?} on node {}",
                claimed.dataset,
                call.name.as_str(),
                claimed.primary
            );
            Ok(Some(Volume {
                dataset: claimed.dataset,
                size: dataset.maximum_size.unwrap_or(call.size),
            }))
        }
        Creation::IdTaken => Ok(None),
    }
}

/// Waits for the backing volume, as far as that is wanted.
async fn finish(core: &Core, context: &Context, call: &CreateCall, volume: Volume) -> Result<Volume> {
    context.about(volume.dataset);
    match core.settings.provision_wait {
        ProvisionWait::Declared => Ok(volume),
        ProvisionWait::Backed => {
            let backed = provision::wait_until_backed(core, context, volume.dataset).await;
            backed
                .map_err(|error| in_progress(error).told_by(call))
                .map(|()| volume)
        }
    }
}

/// Makes an error of a volume that may exist one that the orchestrator does not take as the end.
fn in_progress(error: Error) -> Error {
    if is_final(error.situation()) {
        Error::new(
            Situation::FlockerUnavailable,
            "the volume may exist, so this has to be repeated",
        )
        .because(error)
    } else {
        error
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_range_above_the_whole_pool_can_never_fit() {
        const MIB: u64 = 1 << 20;
        let fits = |capacity: u64, required: i64, size: u64| {
            let call = CreateCall {
                name: VolumeName::parse("pvc-1").unwrap(),
                capacity_range: CapacityRange::default(),
                range: SizeRange::parse(required, 0).unwrap(),
                size,
                parameters: Parameters::default(),
            };
            let pool = Pool {
                profile: None,
                capacity,
                per_node: false,
            };
            could_ever_fit(&pool, &call, MIB)
        };
        assert!(fits(1000 * MIB, 500 << 20, 500 * MIB));
        assert!(!fits(1000 * MIB, 1001 << 20, 1001 * MIB));
        assert!(fits(1000 * MIB, 0, 10_240 * MIB), "a smaller one would do");
        assert!(
            !fits(1000 * MIB + 5, (1000 << 20) + 5, 1001 * MIB),
            "but none that is a multiple of the unit"
        );
        assert!(!fits(MIB, 0, 10_240 * MIB), "there is no volume that small");
    }

    #[test]
    fn what_may_exist_is_never_given_up() {
        let error = in_progress(Error::new(Situation::Internal, "Flocker said 403"));
        assert!(!is_final(error.situation()));
        assert!(error.chain().contains("Flocker said 403"));
        assert_eq!(
            in_progress(Error::new(Situation::Cancelled, "")).situation(),
            Situation::Cancelled
        );
    }
}
