//! Finding, placing and declaring a volume.

use uuid::Uuid;

use super::declaration::{Declared, declare};
use super::existing_volume::{self, Existing};
use super::placement::Placement;
use super::pool_usage::{PoolUsage, pool_of};
use super::request::{NewVolume, Placed, Volume};
use super::reservations::{ReservationGuard, Reservations};
use super::settings::{ProvisioningSettings, Scope};
use super::unclear::UnclearCreations;
use crate::error::{Error, Result, Situation};
use crate::flocker::cluster::{Cluster, Snapshot};
use crate::flocker::node_identity::ThisNode;
use crate::flocker::provisioning::{Pool, ProvisionWait};
use crate::operation::{Context, Locks, Phase, Wanted};
use crate::volume::did_you_mean;
use crate::volume::{MINIMUM_SIZE, size_text};

/// How often a dataset is requested from Flocker while the outcome is unclear.
const ATTEMPTS: u32 = 3;

/// Creates volumes. Clones share their reservations, so that together they overfill no pool.
#[derive(Clone)]
pub struct Provisioner {
    pub(super) settings: ProvisioningSettings,
    pub(super) cluster: Cluster,
    pub(super) locks: Locks,
    pub(super) reservations: Reservations,
    unclear: UnclearCreations,
}

impl Provisioner {
    /// Makes one for `cluster`. `locks` serialises it with other changes of a dataset.
    pub fn new(settings: ProvisioningSettings, cluster: Cluster, locks: Locks) -> Self {
        Self {
            settings,
            cluster,
            locks,
            reservations: Reservations::default(),
            unclear: UnclearCreations::default(),
        }
    }

    /// Returns one that creates volumes on this node and only declares them: the node waits for the mount.
    #[must_use]
    pub(crate) fn on(&self, this_node: ThisNode) -> Self {
        let mut on_this_node = self.clone();
        on_this_node.settings.scope = Scope::Node(this_node);
        on_this_node.settings.provision_wait = ProvisionWait::Declared;
        on_this_node
    }

    /// Returns how volumes are created.
    pub(crate) fn settings(&self) -> &ProvisioningSettings {
        &self.settings
    }

    /// Returns the usage according to `snapshot` and the volumes that are about to be declared.
    pub(crate) fn usage(&self, snapshot: &Snapshot) -> PoolUsage {
        self.reservations.usage(snapshot, &self.settings.pools)
    }

    /// Finds or creates the volume; a new one on the node that `placement` chooses.
    ///
    /// Before the dataset is requested, an error may be final. Once it may exist, every error makes the orchestrator
    /// repeat the call: after a final error, no call would ever delete it.
    ///
    /// # Errors
    /// [`Situation::Incompatible`] naming the difference when the name is taken; [`Situation::PoolFull`],
    /// [`Situation::ImpossibleSize`], [`Situation::InvalidArgument`] for a profile that no pool has,
    /// [`Situation::NodeNotReporting`], [`Situation::FlockerUnavailable`], [`Situation::Cancelled`].
    pub(crate) async fn provision(
        &self,
        context: &Context,
        wanted: &NewVolume,
        placement: &Placement,
    ) -> Result<Volume> {
        let ended = self.find_or_declare(context, wanted, placement).await;
        ended.map_err(|error| {
            let error = error.failure_context(wanted);
            if error.situation().is_final() && self.unclear.contains(&wanted.name) {
                in_progress(error)
            } else {
                error
            }
        })
    }

    async fn find_or_declare(
        &self,
        context: &Context,
        wanted: &NewVolume,
        placement: &Placement,
    ) -> Result<Volume> {
        self.refuse_unknown_profile(wanted)?;
        let mut last_error = None;
        let mut attempts = 0;
        // The generations before are known to be deleted, although they may not be listed.
        let mut first = 0;
        let mut last_read = None;
        loop {
            let (snapshot, nodes) = match last_read.take() {
                Some(read) => read,
                None => self
                    .read_to_place(context, placement)
                    .await
                    .map_err(in_progress)?,
            };
            let ProvisioningSettings {
                driver_name,
                namespace,
                ..
            } = &self.settings;
            let (dataset, generation) =
                match existing_volume::find(&snapshot, driver_name, namespace, wanted, first)? {
                    Existing::Same(volume) => {
                        self.unclear.settle(&wanted.name);
                        let configured = snapshot.live_dataset(volume.dataset)?;
                        let placed = configured.map(|found| Placed {
                            primary: found.primary,
                            listed: nodes.contains(&found.primary),
                            new: false,
                        });
                        return self.finish(context, (wanted, placement), volume, placed).await;
                    }
                    Existing::Free { dataset, generation } => (dataset, generation),
                };
            if attempts == ATTEMPTS {
                let text = format!(
                    "after {ATTEMPTS} attempts Flocker does not list dataset {dataset}, whose id it says is in use; see \
                     the control service's log"
                );
                return Err(last_error.unwrap_or_else(|| Error::new(Situation::FlockerUnavailable, text)));
            }
            context.about(dataset);
            let Some(reserved) = self
                .place(context, (wanted, placement), (&snapshot, &nodes), dataset)
                .await?
            else {
                continue;
            };
            context.check()?;
            attempts += 1;
            context.enter(Phase::Configured {
                what: Wanted::Dataset,
                node: reserved.primary,
            });
            let declared = declare((&self.cluster, &self.settings), wanted, &reserved, generation).await;
            let placed = Placed {
                primary: reserved.primary,
                listed: true,
                new: true,
            };
            if let Ok(Declared::IdOfDeleted { .. }) = declared {
                reserved.withdraw();
            } else {
                drop(reserved);
            }
            match declared {
                Ok(Declared::Stored(volume)) => {
                    self.unclear.settle(&wanted.name);
                    return self
                        .finish(context, (wanted, placement), volume, Some(placed))
                        .await;
                }
                // Another process created it, or the last read was too early: read again.
                Ok(Declared::IdTaken) => {}
                Ok(Declared::IdOfDeleted { next, is_last }) => {
                    attempts -= 1;
                    first = next;
                    // Nothing else is to be learned before the next request.
                    last_read = is_last.then_some((snapshot, nodes));
                }
                // Flocker has not stored what it refuses.
                Err(refused) if refused.situation().is_final() => return Err(refused),
                Err(error) => {
                    if error.is_unclear() {
                        self.unclear.record(&wanted.name);
                    }
                    last_error = Some(error);
                }
            }
        }
    }

    /// Refuses a profile that no pool has, where pools are declared and each has a profile: Flocker would store the
    /// dataset, and its backend would never create the volume.
    fn refuse_unknown_profile(&self, wanted: &NewVolume) -> Result<()> {
        let pools = &self.settings.pools;
        let Some(profile) = &wanted.parameters.profile else {
            return Ok(());
        };
        if pools.is_empty() || pool_of(pools, Some(profile)).is_some() {
            return Ok(());
        }
        let known: Vec<_> = pools.iter().filter_map(|pool| pool.profile.as_deref()).collect();
        let text = format!(
            "{wanted}: profile {profile:?} is unknown{}; the configured pools have the profiles {}",
            did_you_mean(profile, known.iter().copied()),
            known.join(", ")
        );
        Err(Error::new(Situation::InvalidArgument, text))
    }

    /// Chooses the new volume's node and reserves its space; returns nothing when the cluster has to be read again.
    async fn place(
        &self,
        context: &Context,
        (wanted, placement): (&NewVolume, &Placement),
        (snapshot, listed): (&Snapshot, &[Uuid]),
        dataset: Uuid,
    ) -> Result<Option<ReservationGuard>> {
        let only = context.unless_cancelled(self.settings.scope.node()).await??;
        if let Some(node) = only.filter(|node| !listed.contains(node)) {
            self.cluster.wait_for_node(context, node).await?;
            return Ok(None);
        }
        let pools = &self.settings.pools;
        let pool = pool_of(pools, wanted.parameters.profile.as_deref());
        let nodes = only.map_or_else(|| listed.to_vec(), |node| vec![node]);
        if nodes.is_empty() {
            let text = format!(
                "{wanted}: no node reports to Flocker, so no node can hold the volume; check that \
                 flocker-dataset-agent runs on the nodes"
            );
            return Err(Error::new(Situation::NodeNotReporting, text));
        }
        let unit = self.settings.sizes.allocation_unit;
        if let Some(pool) = pool.filter(|pool| !could_ever_fit(pool, wanted, unit)) {
            let text = format!(
                "{wanted}: a volume of {} can never fit: {} has only {} in all",
                size_text(wanted.size),
                pool_text(pool),
                size_text(pool.capacity)
            );
            return Err(Error::new(Situation::ImpossibleSize, text));
        }
        let space = (dataset, wanted.size, wanted.parameters.profile.clone());
        let reserved = self.reservations.reserve(snapshot, pools, space, |usage| {
            let free = |node: Uuid| pool.map_or(u64::MAX, |pool| usage.free(pool, node));
            let fits = |node: &Uuid| free(*node) >= wanted.size;
            let fitting: Vec<_> = nodes.iter().copied().filter(fits).collect();
            placement.choose(usage, &fitting).ok_or_else(|| {
                let most = nodes.iter().copied().map(free).max().unwrap_or(0);
                let text = format!(
                    "{wanted}: {} has {} left, the volume needs {}; delete volumes or enlarge the pool",
                    pool.map_or_else(String::new, pool_text),
                    size_text(most),
                    size_text(wanted.size)
                );
                Error::new(Situation::PoolFull, text)
            })
        })?;
        if let Some(missed) = placement.missed(reserved.primary) {
            let reason = match only {
                Some(_) => "list_scope = node creates volumes on this node only",
                None if nodes.contains(&missed) => "the pool of that node has no room for it",
                None => "that node does not report to Flocker",
            };
            tracing::info!(
                volume.id = %dataset,
                node.id = %reserved.primary,
                "Volume {:?} is created on node {}, not on node {missed} as the orchestrator asks: {reason}. It moves when it \
                 is used on another node",
                wanted.name.as_str(),
                reserved.primary
            );
        }
        Ok(Some(reserved))
    }

    /// Waits for the backing volume, if the settings request it.
    async fn finish(
        &self,
        context: &Context,
        (wanted, placement): (&NewVolume, &Placement),
        volume: Volume,
        placed: Option<Placed>,
    ) -> Result<Volume> {
        context.about(volume.dataset);
        match (self.settings.provision_wait, placed) {
            (ProvisionWait::Declared, _) | (_, None) => Ok(volume),
            (ProvisionWait::Backed, Some(placed)) => {
                let backed = self
                    .wait_until_backed(context, volume.dataset, placed, placement)
                    .await;
                backed
                    .map_err(|error| in_progress(error).failure_context(wanted))
                    .map(|()| volume)
            }
        }
    }
}

/// Whether the empty pool has space for a size within the range.
fn could_ever_fit(pool: &Pool, wanted: &NewVolume, unit: u64) -> bool {
    let largest = pool.capacity - pool.capacity % unit.max(1);
    wanted.size <= pool.capacity || (largest >= MINIMUM_SIZE && wanted.range.contains(largest))
}

fn pool_text(pool: &Pool) -> String {
    let place = if pool.per_node { " of each node" } else { "" };
    pool.profile.as_deref().map_or_else(
        || format!("the pool{place}"),
        |profile| format!("the pool{place} for profile {profile:?}"),
    )
}

/// Turns the error of a volume that may exist into one after which the orchestrator repeats the call.
fn in_progress(error: Error) -> Error {
    if error.situation().is_final() {
        Error::new(
            Situation::FlockerUnavailable,
            "the volume may exist, so the call has to be repeated",
        )
        .with_source(error)
    } else {
        error
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::{Parameters, SizeRange, VolumeName};

    #[test]
    fn only_a_range_above_the_whole_pool_can_never_fit() {
        const MIB: u64 = 1 << 20;
        let fits = |capacity: u64, required: i64, size: u64| {
            let wanted = NewVolume {
                name: VolumeName::parse("pvc-1").unwrap(),
                range: SizeRange::parse(required, 0).unwrap(),
                size,
                parameters: Parameters::default(),
            };
            let pool = Pool {
                profile: None,
                capacity,
                per_node: false,
            };
            could_ever_fit(&pool, &wanted, MIB)
        };
        assert!(fits(1000 * MIB, 500 << 20, 500 * MIB));
        assert!(!fits(1000 * MIB, 1001 << 20, 1001 * MIB));
        assert!(
            fits(1000 * MIB, 0, 10_240 * MIB),
            "a smaller size is within the range"
        );
        assert!(
            !fits(1000 * MIB + 5, (1000 << 20) + 5, 1001 * MIB),
            "no multiple of the unit fits"
        );
        assert!(!fits(MIB, 0, 10_240 * MIB), "below the minimum size");
    }

    #[test]
    fn a_volume_that_may_exist_is_never_abandoned() {
        let error = in_progress(Error::new(Situation::Internal, "Flocker said 403"));
        assert!(!error.situation().is_final());
        assert!(error.chain().contains("Flocker said 403"));
        assert_eq!(
            in_progress(Error::new(Situation::Cancelled, "")).situation(),
            Situation::Cancelled
        );
    }
}
