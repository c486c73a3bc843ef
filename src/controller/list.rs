//! `ListVolumes` and `ControllerGetVolume`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use csi_proto::v1::{
    ControllerGetVolumeRequest, ControllerGetVolumeResponse, ListVolumesRequest, ListVolumesResponse, Volume,
    controller_get_volume_response, list_volumes_response,
};
use list_volumes_response::{Entry, VolumeStatus};
use prost::Message;
use uuid::Uuid;

use super::Core;
use super::listing::Change;
use super::listing::{Listed, Listing};
use crate::csi::fields::{existing_dataset, required};
use crate::error::{Error, Result, Situation};
use crate::flocker::cluster::Lists;
use crate::operation::deadline::Deadline;
use crate::volume::dataset_of;

/// The largest reply that every gRPC client takes is 4 MiB; the token and some slack come on top of the entries.
const LARGEST_REPLY: usize = (4 << 20) - 1024;
/// For so long the pages of a list are cut from what its first page saw.
const HOLD: Duration = Duration::from_secs(30);

/// The list whose pages are being fetched, if any.
///
/// Only one is held: whoever asks for a first page replaces it, and whoever fetches later pages continues on the
/// newest, because a token is nothing but the last id returned.
#[derive(Clone, Default)]
pub(super) struct Paging {
    held: Arc<Mutex<Option<Arc<Listing>>>>,
}

impl Paging {
    fn held(&self) -> Option<Arc<Listing>> {
        self.lock().clone()
    }

    /// Holds `listing` until its time is over, so that an idle plugin keeps no list in memory.
    fn hold(&self, listing: &Arc<Listing>) {
        if self
            .lock()
            .replace(Arc::clone(listing))
            .is_some_and(|held| Arc::ptr_eq(&held, listing))
        {
            return;
        }
        let (paging, listing) = (self.clone(), Arc::downgrade(listing));
        tokio::spawn(async move {
            tokio::time::sleep(HOLD).await;
            paging
                .lock()
                .take_if(|held| std::ptr::eq(Arc::as_ptr(held), listing.as_ptr()));
        });
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<Listing>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lists the volumes of the scope, a page at a time.
pub(super) async fn list_volumes(
    core: &Core,
    deadline: Deadline,
    request: ListVolumesRequest,
) -> Result<ListVolumesResponse> {
    let entries = usize::try_from(request.max_entries).map_err(|_| {
        let text = format!(
            "listing volumes: max_entries is {}: it cannot be negative",
            request.max_entries
        );
        Error::new(Situation::InvalidArgument, text)
    })?;
    let last = Some(request.starting_token.as_str())
        .filter(|token| !token.is_empty())
        .map(token)
        .transpose()?;
    let held = last.and_then(|_| core.paging.held());
    let listing = match held {
        Some(listing) => listing,
        None => Arc::new(
            current(core, deadline)
                .await
                .map_err(|error| error.failure_context("listing volumes"))?,
        ),
    };
    let page = cut(listing.after(last), entries);
    if !page.next_token.is_empty() {
        core.paging.hold(&listing);
        if entries == 0 {
            tracing::error!(
                "A list of {} volumes does not fit into one reply; whoever asked for all at once has to ask for the \
                 rest with the token",
                listing.volumes.len()
            );
        }
    }
    Ok(page)
}

fn token(token: &str) -> Result<Uuid> {
    dataset_of(token).ok_or_else(|| {
        let text = format!("listing volumes: starting_token {token:?} is not one that this plugin gave out");
        Error::new(Situation::BadToken, text)
    })
}

/// Reads the list from Flocker.
///
/// A plugin of one node answers with the last list while Flocker is down, because Mesos gives up on it otherwise.
/// A plugin of the cluster does not: Kubernetes would believe that nothing is attached.
async fn current(core: &Core, deadline: Deadline) -> Result<Listing> {
    let lists = Lists::CONFIGURATION | Lists::STATE | Lists::NODES | Lists::LEASES;
    let node = core.node_of_scope(deadline).await;
    let read = match &node {
        Ok(node) => core
            .read(deadline, lists)
            .await
            .map(|snapshot| (snapshot.began(), Listing::of(&snapshot, *node))),
        Err(error) => Err(error.clone()),
    };
    if core.provisioner.settings().scope.is_cluster() {
        return read.map(|(_, listing)| listing);
    }
    match read {
        Ok((began, listing)) => {
            core.last_listing.put(|| {
                let mut kept = listing.to_keep();
                core.changes.catch_up(&mut kept, began);
                kept
            });
            Ok(listing)
        }
        Err(error) => {
            let last = core.last_listing.last().await;
            // A file that came with the image of another machine lists volumes that are not here.
            let last = last.filter(|last| node.is_err() || node.is_ok_and(|node| last.node == node));
            tracing::warn!(
                "Listing volumes: {}; the answer is {} list",
                error.chain(),
                if last.is_some() { "the last" } else { "an empty" }
            );
            Ok(last.unwrap_or_default())
        }
    }
}

/// Takes up in the last list what was made since: Mesos asks after each operation, and Flocker may be down by then.
pub(super) async fn made(core: &Core, deadline: Deadline, volume: &Volume) {
    let size = u64::try_from(volume.capacity_bytes);
    let (Some(dataset), Ok(size)) = (dataset_of(&volume.volume_id), size) else {
        return;
    };
    // Without a list of this node, it is one of what is known to be there.
    if let Ok(Some(node)) = core.node_of_scope(deadline).await {
        let change = Change::Made { dataset, size };
        core.changes.note(change);
        let take_up = |listing: &mut Listing| {
            if listing.node != Some(node) {
                *listing = Listing::empty(node);
            }
            listing.apply(change);
        };
        core.last_listing.update(take_up).await;
    }
}

/// Leaves out of the last list what was deleted since, as [`made`] takes up.
pub(super) async fn deleted(core: &Core, volume_id: &str) {
    if let (false, Some(dataset)) = (
        core.provisioner.settings().scope.is_cluster(),
        dataset_of(volume_id),
    ) {
        let change = Change::Deleted(dataset);
        core.changes.note(change);
        core.last_listing.amend(|listing| listing.apply(change)).await;
    }
}

/// Cuts a page of at most `entries` volumes (0: as many as fit) from the front of `volumes`.
fn cut(volumes: &[Listed], entries: usize) -> ListVolumesResponse {
    let most = if entries == 0 {
        volumes.len()
    } else {
        entries.min(volumes.len())
    };
    let mut page = Vec::with_capacity(most);
    let mut size = 0;
    for volume in &volumes[..most] {
        let entry = entry(volume);
        let encoded = entry.encoded_len();
        size += 1 + prost::length_delimiter_len(encoded) + encoded;
        if size > LARGEST_REPLY {
            break;
        }
        page.push(entry);
    }
    let last = page.len().checked_sub(1).filter(|_| page.len() < volumes.len());
    let next_token = last
        .map(|last| volumes[last].dataset.to_string())
        .unwrap_or_default();
    ListVolumesResponse {
        entries: page,
        next_token,
    }
}

fn entry(volume: &Listed) -> Entry {
    let status = VolumeStatus {
        published_node_ids: volume.published_node_ids(),
        volume_condition: Some(volume.condition()),
    };
    Entry {
        volume: Some(volume.volume()),
        status: Some(status),
    }
}

/// Tells about one volume of the cluster.
pub(super) async fn controller_get_volume(
    core: &Core,
    deadline: Deadline,
    request: ControllerGetVolumeRequest,
) -> Result<ControllerGetVolumeResponse> {
    let volume_id = required("volume_id", &request.volume_id)?;
    let dataset = existing_dataset(volume_id)?;
    let doing = format_args!("describing volume {dataset}").to_string();
    let lists = Lists::CONFIGURATION | Lists::STATE | Lists::NODES | Lists::LEASES;
    let snapshot = core
        .read(deadline, lists)
        .await
        .map_err(|error| error.failure_context(doing))?;
    let configured = snapshot
        .live_dataset(dataset)
        .ok_or_else(|| Error::unknown_volume(dataset))?;
    let listed = Listed::of(&snapshot, configured);
    let status = controller_get_volume_response::VolumeStatus {
        published_node_ids: listed.published_node_ids(),
        volume_condition: Some(listed.condition()),
    };
    Ok(ControllerGetVolumeResponse {
        volume: Some(listed.volume()),
        status: Some(status),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use flocker_client::Dataset;

    use super::*;
    use crate::flocker::cluster::Snapshot;

    fn listing(count: u128) -> Listing {
        let primary = Uuid::from_u128(1);
        let datasets = (0..count).map(|id| Dataset {
            dataset_id: Uuid::from_u128(id),
            primary,
            deleted: false,
            maximum_size: Some(1 << 30),
            metadata: BTreeMap::new(),
        });
        Listing::of(
            &Snapshot::of(datasets.collect(), vec![], &[primary], vec![]),
            None,
        )
    }

    /// Fetches every page and returns their sizes.
    fn pages(listing: &Listing, entries: usize) -> Vec<usize> {
        let mut sizes = Vec::new();
        let mut last = None;
        loop {
            let page = cut(listing.after(last), entries);
            sizes.push(page.entries.len());
            assert!(page.encoded_len() <= 4 << 20);
            if page.next_token.is_empty() {
                return sizes;
            }
            assert_eq!(
                page.next_token,
                page.entries.last().unwrap().volume.as_ref().unwrap().volume_id
            );
            last = Some(token(&page.next_token).unwrap());
        }
    }

    #[test]
    fn pages_have_the_size_that_was_asked_for_and_the_last_one_has_no_token() {
        assert_eq!(pages(&listing(5), 2), [2, 2, 1]);
        assert_eq!(pages(&listing(4), 2), [2, 2]);
        assert_eq!(pages(&listing(4), 9), [4]);
        assert_eq!(pages(&listing(0), 0), [0]);
        assert_eq!(pages(&listing(10_000), 0).iter().sum::<usize>(), 10_000);
    }

    #[test]
    fn a_list_that_no_client_could_receive_is_cut() {
        let sizes = pages(&listing(50_000), 0);
        assert!(sizes.len() > 1, "{sizes:?}");
        assert_eq!(sizes.iter().sum::<usize>(), 50_000);
    }

    #[test]
    fn only_ids_are_tokens() {
        for bad in ["invalid-token", "1", "0FBBD6E1-F558-4EA3-B2FE-B0268D12322A"] {
            assert_eq!(token(bad).unwrap_err().situation(), Situation::BadToken);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_list_is_held_for_its_pages_and_not_for_ever() {
        let paging = Paging::default();
        let (first, second) = (Arc::new(listing(1)), Arc::new(listing(2)));
        paging.hold(&first);
        tokio::time::sleep(HOLD / 2).await;
        paging.hold(&second);
        tokio::time::sleep(HOLD * 3 / 4).await;
        assert!(
            Arc::ptr_eq(&paging.held().unwrap(), &second),
            "the first one's end is not the second one's"
        );
        tokio::time::sleep(HOLD).await;
        assert!(paging.held().is_none());
    }
}
