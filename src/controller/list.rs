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

use super::ControllerCore;
use super::volume_list::{ListedVolume, VolumeChange, VolumeList};
use crate::csi::fields::{existing_dataset, volume_id};
use crate::error::{Error, Result, Situation};
use crate::flocker::cluster::Lists;
use crate::operation::deadline::Deadline;
use crate::volume::dataset_of;

/// The size in bytes of the entries of a page. Every gRPC client accepts a reply of 4 MiB, which includes the token.
const LARGEST_REPLY: usize = (4 << 20) - 1024;
/// How long the pages of a list come from the list that its first page was cut from.
const HOLD: Duration = Duration::from_secs(30);
/// What a list of volumes with their conditions is made of.
pub(super) const LISTS: Lists = Lists::CONFIGURATION
    .union(Lists::STATE)
    .union(Lists::NODES)
    .union(Lists::LEASES);

/// The list whose pages are being fetched, if any.
///
/// Only one list is held. A request for a first page replaces it, and requests for later pages continue on the newest,
/// because a token is only the last id returned.
#[derive(Clone, Default)]
pub(super) struct Paging {
    held: Arc<Mutex<Option<Arc<VolumeList>>>>,
}

impl Paging {
    fn held(&self) -> Option<Arc<VolumeList>> {
        self.lock().clone()
    }

    /// Holds `list` for a limited time, so that an idle plugin keeps no list in memory.
    fn hold(&self, list: &Arc<VolumeList>) {
        if self
            .lock()
            .replace(Arc::clone(list))
            .is_some_and(|held| Arc::ptr_eq(&held, list))
        {
            return;
        }
        let (paging, list) = (self.clone(), Arc::downgrade(list));
        tokio::spawn(async move {
            tokio::time::sleep(HOLD).await;
            paging
                .lock()
                .take_if(|held| std::ptr::eq(Arc::as_ptr(held), list.as_ptr()));
        });
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<VolumeList>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lists the volumes of the scope, a page at a time.
pub(super) async fn list_volumes(
    core: &ControllerCore,
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
    let after = Some(request.starting_token.as_str())
        .filter(|token| !token.is_empty())
        .map(token)
        .transpose()?;
    let held = after.and_then(|_| core.paging.held());
    let list = match held {
        Some(list) => list,
        None => Arc::new(
            read_list(core, deadline)
                .await
                .map_err(|error| error.failure_context("listing volumes"))?,
        ),
    };
    let page = cut(list.after(after), entries);
    if !page.next_token.is_empty() {
        core.paging.hold(&list);
        if entries == 0 {
            tracing::error!(
                "A list of {} volumes does not fit into one reply; the client, which set no max_entries, has to request \
                 the rest with the token",
                list.volumes.len()
            );
        }
    }
    Ok(page)
}

fn token(token: &str) -> Result<Uuid> {
    dataset_of(token).ok_or_else(|| {
        let text = "listing volumes: the starting_token is not one that this plugin returned; start again without a token".to_owned();
        Error::new(Situation::BadToken, text)
    })
}

/// Reads the list from Flocker.
///
/// A plugin of one node answers with the last known list while Flocker is down, because Mesos drops the plugin otherwise.
/// A plugin of the cluster does not: Kubernetes would assume that no volume is attached.
async fn read_list(core: &ControllerCore, deadline: Deadline) -> Result<VolumeList> {
    let node = core.node_of_scope(deadline).await;
    let read = match &node {
        Ok(node) => core
            .read(deadline, LISTS)
            .await
            .map(|snapshot| (snapshot.began(), VolumeList::of(&snapshot, *node))),
        Err(error) => Err(error.clone()),
    };
    if let Ok((_, list)) = &read {
        core.conditions.listed(list);
    }
    if core.provisioner.settings().scope.is_cluster() {
        return read.map(|(_, list)| list);
    }
    match read {
        Ok((began, list)) => {
            core.last_list.set(|| {
                let mut stored = list.without_conditions();
                core.changes.apply_since(&mut stored, began);
                stored
            });
            Ok(list)
        }
        Err(error) => {
            let last = core.last_list.get().await;
            // A file that came with the image of another machine lists the volumes of that one.
            let last = last.filter(|last| node.is_err() || node.is_ok_and(|node| last.node == node));
            tracing::warn!(
                "Listing volumes: {}; the answer is {} list",
                error.chain(),
                if last.is_some() {
                    "the last known"
                } else {
                    "an empty"
                }
            );
            Ok(last.unwrap_or_default())
        }
    }
}

/// Adds a new volume to the last known list: Mesos lists after each operation, and Flocker may be down by then.
pub(super) async fn record_created(core: &ControllerCore, deadline: Deadline, volume: &Volume) {
    let size = u64::try_from(volume.capacity_bytes);
    let (Some(dataset), Ok(size)) = (dataset_of(&volume.volume_id), size) else {
        return;
    };
    // Without a list of this node, a new list starts with this volume.
    if let Ok(Some(node)) = core.node_of_scope(deadline).await {
        let change = VolumeChange::Created { dataset, size };
        core.changes.record(change);
        let add = |list: &mut VolumeList| {
            if list.node != Some(node) {
                *list = VolumeList::empty(node);
            }
            list.apply(change);
        };
        core.last_list.update(add).await;
    }
}

/// Removes a deleted volume from the last known list, as [`record_created`] adds one.
pub(super) async fn record_deleted(core: &ControllerCore, volume_id: &str) {
    if let (false, Some(dataset)) = (
        core.provisioner.settings().scope.is_cluster(),
        dataset_of(volume_id),
    ) {
        let change = VolumeChange::Deleted(dataset);
        core.changes.record(change);
        core.last_list.update_existing(|list| list.apply(change)).await;
    }
}

/// Cuts a page of at most `entries` volumes (0: as many as fit) from the front of `volumes`.
fn cut(volumes: &[ListedVolume], entries: usize) -> ListVolumesResponse {
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

fn entry(volume: &ListedVolume) -> Entry {
    let status = VolumeStatus {
        published_node_ids: volume.published_node_ids(),
        volume_condition: Some(volume.condition()),
    };
    Entry {
        volume: Some(volume.volume()),
        status: Some(status),
    }
}

/// Describes one volume of the cluster.
pub(super) async fn controller_get_volume(
    core: &ControllerCore,
    deadline: Deadline,
    request: ControllerGetVolumeRequest,
) -> Result<ControllerGetVolumeResponse> {
    let volume_id = volume_id(&request.volume_id)?;
    let dataset = existing_dataset(volume_id)?;
    let doing = format_args!("describing volume {dataset}").to_string();
    let lists = Lists::CONFIGURATION | Lists::STATE | Lists::NODES | Lists::LEASES;
    let snapshot = core
        .read(deadline, lists)
        .await
        .map_err(|error| error.failure_context(doing))?;
    let configured = snapshot
        .live_dataset(dataset)?
        .ok_or_else(|| Error::unknown_volume(dataset))?;
    let listed = ListedVolume::of(&snapshot, configured);
    core.conditions.found(dataset, listed.found());
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

    fn list_of(count: u128) -> VolumeList {
        let primary = Uuid::from_u128(1);
        let datasets = (0..count).map(|id| Dataset {
            dataset_id: Uuid::from_u128(id),
            primary,
            deleted: false,
            maximum_size: Some(1 << 30),
            metadata: BTreeMap::new(),
            unreadable: flocker_client::UnreadableParts::default(),
        });
        VolumeList::of(
            &Snapshot::of(datasets.collect(), vec![], &[primary], vec![]),
            None,
        )
    }

    /// Fetches every page and returns their sizes.
    fn pages(list: &VolumeList, entries: usize) -> Vec<usize> {
        let mut sizes = Vec::new();
        let mut after = None;
        loop {
            let page = cut(list.after(after), entries);
            sizes.push(page.entries.len());
            assert!(page.encoded_len() <= 4 << 20);
            if page.next_token.is_empty() {
                return sizes;
            }
            assert_eq!(
                page.next_token,
                page.entries.last().unwrap().volume.as_ref().unwrap().volume_id
            );
            after = Some(token(&page.next_token).unwrap());
        }
    }

    #[test]
    fn pages_have_the_requested_size_and_the_last_one_has_no_token() {
        assert_eq!(pages(&list_of(5), 2), [2, 2, 1]);
        assert_eq!(pages(&list_of(4), 2), [2, 2]);
        assert_eq!(pages(&list_of(4), 9), [4]);
        assert_eq!(pages(&list_of(0), 0), [0]);
        assert_eq!(pages(&list_of(10_000), 0).iter().sum::<usize>(), 10_000);
    }

    #[test]
    fn a_list_too_large_for_one_reply_is_cut() {
        let sizes = pages(&list_of(50_000), 0);
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
    async fn a_list_is_held_for_its_pages_and_no_longer() {
        let paging = Paging::default();
        let (first, second) = (Arc::new(list_of(1)), Arc::new(list_of(2)));
        paging.hold(&first);
        tokio::time::sleep(HOLD / 2).await;
        paging.hold(&second);
        tokio::time::sleep(HOLD * 3 / 4).await;
        assert!(
            Arc::ptr_eq(&paging.held().unwrap(), &second),
            "the end of the first does not end the second"
        );
        tokio::time::sleep(HOLD).await;
        assert!(paging.held().is_none());
    }
}
