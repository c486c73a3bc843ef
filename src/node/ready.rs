//! Waiting for Flocker's agent to mount a dataset on this node.

use std::fmt::Display;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::NodeCore;
use crate::error::{Error, Result, Situation};
use crate::flocker::cluster::{Lists, Snapshot};
use crate::host::PathGate;
use crate::host::mount::{NotFlockers, check_flockers_mount, is_named_after};
use crate::operation::{Context, Phase};
use crate::telemetry::spawn_blocking;
use host_fs::mount::{Mount, MountTable};

/// How long a mount may take before Flocker is asked whether the dataset is still this node's. Right before, the controller or
/// this node has acquired its lease.
const CHECK_FIRST: Duration = Duration::from_secs(5);
/// How often that is asked again.
const CHECK_AGAIN: Duration = Duration::from_secs(10);
/// The first and the longest pause between two looks at a fresh file system, each half as long again as the one before; the
/// removal of a directory entry wakes no waiter. The agent usually takes less than a millisecond.
const LOOK_AGAIN: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(20));
/// How long the agent may take to remove `lost+found`; an agent that died in between never does.
const TIDYING: Duration = Duration::from_secs(10);
/// How long the agent may take from there to set the root's mode.
const OPENING: Duration = Duration::from_secs(1);

/// What a wait for a mount asks Flocker, and when.
struct Asked {
    /// Where Flocker has reported the dataset as mounted on this node.
    path: Option<PathBuf>,
    /// When it is asked whether the dataset is this node's.
    check_at: Instant,
    has_checked: bool,
    /// When the path is asked for, while a mount exists that may be the dataset's, and the waits until later polls.
    poll_at: Option<Instant>,
    polls: Option<Box<dyn Iterator<Item = Duration> + Send + Sync>>,
    /// Whether Flocker was asked because of a mount that is not the dataset's.
    refused_before: bool,
}

impl Asked {
    fn new(now: Instant) -> Self {
        Self {
            path: None,
            check_at: now + CHECK_FIRST,
            has_checked: false,
            poll_at: None,
            polls: None,
            refused_before: false,
        }
    }

    async fn poll_is_due(&self) {
        match self.poll_at {
            Some(when) => tokio::time::sleep_until(when).await,
            None => std::future::pending().await,
        }
    }
}

/// Returns the path at which a node reports a dataset as mounted.
fn path_in(snapshot: &Snapshot, dataset: Uuid, node: Uuid) -> Option<PathBuf> {
    let states = snapshot.states(dataset).iter();
    let here = states.into_iter().find(|state| state.primary == Some(node));
    here.and_then(|state| state.path.clone())
}

impl NodeCore {
    /// Waits until Flocker's agent has mounted `dataset` on `node`, which is this one, and has finished with it.
    ///
    /// Only a mount counts: the agent never removes the directory it once mounted at. The kernel reports it; Flocker is asked
    /// where a mount could be of this dataset and is not at the usual path, and when none appears.
    pub(super) async fn mounted_here(&self, context: &Context, dataset: Uuid, node: Uuid) -> Result<Mount> {
        let internal = |error| Error::internal(format!("wait for the mount of dataset {dataset}"), error);
        let usual = self.settings.host.mount_root.join(dataset.to_string());
        let mut changes = self.mounts.subscribe().map_err(internal)?;
        let mut table = changes.next().await.map_err(internal)?;
        let mut asked = Asked::new(Instant::now());
        let mut waiting = self.mount_phase(&table, node, &usual, None).await;
        loop {
            match self.find_mount(&table, asked.path.as_deref(), &usual, dataset) {
                Ok(Some(mount)) => {
                    let path = mount.point.clone();
                    context.enter(Phase::FinishedHere { node, path });
                    context
                        .unless_cancelled(settled(&self.paths, mount.point.clone()))
                        .await?;
                    return Ok(mount.clone());
                }
                Ok(None) if self.is_mounted_elsewhere(&table, &usual, dataset) => {
                    let polls = asked
                        .polls
                        .get_or_insert_with(|| Box::new(self.cluster.poll_waits()));
                    let wait = polls.next().unwrap_or_default();
                    asked.poll_at.get_or_insert(Instant::now() + wait);
                }
                Ok(None) => (asked.polls, asked.poll_at) = (None, None),
                Err(refused) if asked.refused_before => return Err(refused),
                Err(_) => {
                    // Flocker may have mounted it elsewhere.
                    asked.refused_before = true;
                    asked.check_at = Instant::now();
                }
            }
            context.enter(waiting.clone());
            let checks = tokio::select! {
                seen = context.unless_cancelled(changes.next()) => {
                    table = seen?.map_err(internal)?;
                    continue;
                }
                () = tokio::time::sleep_until(asked.check_at) => true,
                // For the answer that the callers are about to get.
                () = context.out_of_time(), if !asked.has_checked => true,
                () = asked.poll_is_due() => false,
            };
            let answered = if checks {
                asked.has_checked = true;
                asked.check_at = Instant::now() + CHECK_AGAIN;
                self.checked_path(context, dataset, node).await
            } else {
                asked.poll_at = None;
                self.reported_path(context, dataset, node).await
            };
            match answered {
                // The mount may appear while Flocker does not answer.
                Err(error) if error.situation() == Situation::FlockerUnavailable => {}
                path => asked.path = path?,
            }
            waiting = self
                .mount_phase(&table, node, &usual, asked.path.as_deref())
                .await;
        }
    }

    /// Whether the table has a mount that an agent of Flocker may have made for the dataset, at another path than the usual one.
    fn is_mounted_elsewhere(&self, table: &MountTable, usual: &Path, dataset: Uuid) -> bool {
        let name = dataset.to_string();
        let types = &self.settings.host.agent_file_systems;
        table.mounts().iter().any(|mount| {
            mount.point.file_name().is_some_and(|last| last == name.as_str())
                && mount.point != usual
                && check_flockers_mount(table, mount, dataset, types).is_ok()
        })
    }

    /// Returns what a wait for Flocker's mount waits for. Where Flocker reports one, and the mounts of the host do not reach
    /// this process, it never appears.
    async fn mount_phase(
        &self,
        table: &MountTable,
        node: Uuid,
        usual: &Path,
        reported: Option<&Path>,
    ) -> Phase {
        let Some(path) = reported else {
            let path = usual.to_owned();
            return Phase::MountedHere { node, path };
        };
        let (settings, holder) = (self.settings.host.clone(), table.holding(path).cloned());
        let receives = move || holder.is_none_or(|holder| settings.visibility().receives(&holder));
        let path = path.to_owned();
        if spawn_blocking(receives).await.unwrap_or(true) {
            Phase::MountedHere { node, path }
        } else {
            Phase::NotReceivedHere { node, path }
        }
    }

    /// Returns where Flocker reports the dataset as mounted on this node, if it does.
    async fn reported_path(&self, context: &Context, dataset: Uuid, node: Uuid) -> Result<Option<PathBuf>> {
        let read = self.cluster.later(Lists::STATE, Duration::ZERO);
        let snapshot = context.unless_cancelled(read).await??;
        Ok(path_in(&snapshot, dataset, node))
    }

    /// As [`Self::reported_path`]; checks also that the dataset is still this node's, so that no call waits for a mount that
    /// never appears.
    async fn checked_path(&self, context: &Context, dataset: Uuid, node: Uuid) -> Result<Option<PathBuf>> {
        let lists = Lists::CONFIGURATION | Lists::LEASES | Lists::STATE;
        // The phase stays that of the mount, also if the callers' time ends during the read.
        let snapshot = context.unless_cancelled(self.cluster.fresh(lists)).await??;
        super::stage::may_use(&snapshot, dataset, node)?;
        Ok(path_in(&snapshot, dataset, node))
    }

    /// Returns Flocker's mount of the dataset at the path that Flocker reports, or else at the usual one.
    ///
    /// What is reported comes over the network: it says where to look, and proves nothing.
    ///
    /// # Errors
    /// Neither is Flocker's, and one of them is what Flocker's agent does not make for this dataset.
    fn find_mount<'a>(
        &self,
        table: &'a MountTable,
        reported: Option<&Path>,
        usual: &Path,
        dataset: Uuid,
    ) -> Result<Option<&'a Mount>> {
        let mut refused = None;
        for path in reported.into_iter().chain([usual]) {
            let checked = match flockers_mount(table, path, dataset) {
                Ok(None) if !is_named_after(path, dataset) => {
                    Err(not_flockers(&path.display(), dataset, &NotFlockers::Name))
                }
                Ok(Some(mount)) => {
                    check_flockers_mount(table, mount, dataset, &self.settings.host.agent_file_systems)
                        .map(|()| Some(mount))
                        .map_err(|why| not_flockers(mount, dataset, &why))
                }
                other => other,
            };
            match checked {
                Ok(Some(mount)) => return Ok(Some(mount)),
                Ok(None) => {}
                Err(error) => drop(refused.get_or_insert(error)),
            }
        }
        refused.map_or(Ok(None), Err)
    }
}

/// Returns the mount at a path at which Flocker mounts.
///
/// The agent mounts one device there, and nothing else. With another mount there, it is unknown which of the two is the
/// volume.
fn flockers_mount<'a>(table: &'a MountTable, path: &Path, dataset: Uuid) -> Result<Option<&'a Mount>> {
    let layers = table.layers_at(path);
    let Some(top) = layers.last().copied() else {
        return Ok(None);
    };
    match layers.iter().find(|layer| layer.device != top.device) {
        None => Ok(Some(top)),
        Some(below) => Err(Error::new(
            Situation::ForeignMount,
            format!(
                "{top} lies on {below}, where only Flocker should mount dataset {dataset}; unmount what is not Flocker's"
            ),
        )),
    }
}

/// Refuses a mount that Flocker's agent does not make for the dataset.
fn not_flockers(found: &dyn Display, dataset: Uuid, why: &NotFlockers) -> Error {
    Error::new(
        Situation::ForeignMount,
        format!(
            "{found} is where dataset {dataset} should be mounted, by Flocker's state or by the setting mount_root, but it \
             is not what Flocker's agent mounts: {why}; unmount what is not Flocker's, or correct what reports it there"
        ),
    )
}

/// Waits, within bounds, until the agent has finished with a fresh file system.
///
/// The agent mounts first, then removes `lost+found` and opens the root to all users, and does neither if another
/// process wrote first. So no process may use the volume before.
async fn settled(paths: &PathGate, root: PathBuf) {
    let mut bound = Instant::now() + TIDYING;
    let mut tidied = false;
    let (mut pause, longest) = LOOK_AGAIN;
    loop {
        let look = root.clone();
        let permit = paths.enter(&[&root.join("lost+found")]).await;
        let look = move || {
            // A device that hangs blocks few threads, however often staging is repeated.
            let _permit = permit;
            freshness(&look)
        };
        let stage = spawn_blocking(look).await.unwrap_or(Freshness::Used);
        match stage {
            Freshness::Used => return,
            Freshness::Untidied => {}
            Freshness::Closed if tidied => {}
            Freshness::Closed => {
                tidied = true;
                bound = Instant::now() + OPENING;
            }
        }
        if Instant::now() >= bound {
            tracing::warn!(
                path = %root.display(),
                "Flocker's agent has not finished the new file system at {}; it is used as it is",
                root.display()
            );
            return;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 3 / 2).min(longest);
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Freshness {
    /// Its root holds nothing but `lost+found`.
    Untidied,
    /// It is empty, and only root may write to it.
    Closed,
    /// The agent has finished, or another process has written.
    Used,
}

/// Reads the root of a file system. The next step reports one that cannot be read.
fn freshness(root: &Path) -> Freshness {
    let Ok(entries) = std::fs::read_dir(root) else {
        return Freshness::Used;
    };
    let names: Vec<_> = entries
        .take(2)
        .filter_map(|entry| entry.ok().map(|entry| entry.file_name()))
        .collect();
    if names.len() == 1 && names[0] == "lost+found" {
        return Freshness::Untidied;
    }
    let closed = root
        .metadata()
        .is_ok_and(|root| root.uid() == 0 && root.mode() & 0o7777 == 0o755);
    if names.is_empty() && closed {
        Freshness::Closed
    } else {
        Freshness::Used
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_system_is_fresh_until_the_agent_has_opened_it() {
        let root = tempfile::tempdir().unwrap();
        let set =
            |mode| std::fs::set_permissions(root.path(), std::fs::Permissions::from_mode(mode)).unwrap();
        set(0o755);
        std::fs::create_dir(root.path().join("lost+found")).unwrap();
        assert_eq!(freshness(root.path()), Freshness::Untidied);
        std::fs::remove_dir(root.path().join("lost+found")).unwrap();
        assert_eq!(freshness(root.path()), Freshness::Closed);
        set(0o777);
        assert_eq!(freshness(root.path()), Freshness::Used);
        set(0o755);
        std::fs::write(root.path().join("data"), "").unwrap();
        assert_eq!(freshness(root.path()), Freshness::Used);
    }

    #[tokio::test(start_paused = true)]
    async fn an_agent_that_died_is_not_waited_for_for_ever() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("lost+found")).unwrap();
        let began = Instant::now();
        settled(&PathGate::default(), root.path().to_owned()).await;
        assert!(
            began.elapsed() >= TIDYING && began.elapsed() < TIDYING * 2,
            "on the paused clock"
        );
    }
}
