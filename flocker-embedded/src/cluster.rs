//! What the agents last reported, as the control service stores it.
//!
//! A mounted dataset belongs to the node that reports it, so a dataset can be listed twice. All datasets that are not
//! mounted are one list, which every report replaces as a whole: where agents see different things, datasets appear
//! and disappear.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio::time::Instant;
use uuid::Uuid;

/// What one agent sees.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Report {
    /// Size and mount point of the datasets that are mounted at their mount path.
    pub(crate) mounted: BTreeMap<Uuid, (u64, PathBuf)>,
    /// Sizes of the datasets that have a volume but are not mounted.
    pub(crate) unmounted: BTreeMap<Uuid, u64>,
    /// Devices of the datasets attached here. No client sees them, but a change counts as a change of the report.
    pub(crate) devices: BTreeMap<Uuid, PathBuf>,
    /// Datasets whose volume is missing, is another one, or cannot be examined here. No client sees them.
    pub(crate) unavailable: BTreeSet<Uuid>,
}

/// A dataset as clients see it.
#[derive(Debug, PartialEq)]
pub(crate) struct SeenDataset {
    pub(crate) id: Uuid,
    pub(crate) size: u64,
    /// The node that has it mounted, and where.
    pub(crate) mounted: Option<(Uuid, PathBuf)>,
}

/// The control service as its agents see it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Control {
    pub(crate) is_up: bool,
    /// The number of its starts before this one.
    pub(crate) run: u64,
    /// The time of its last start.
    pub(crate) since: Instant,
}

/// The connection of an agent to one run of the control service.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    pub(crate) run: u64,
    pub(crate) node: Uuid,
    /// The eras that identify the node.
    pub(crate) eras: Vec<Uuid>,
}

/// The reports of all nodes.
#[derive(Debug)]
pub(crate) struct Cluster {
    reports: Mutex<Reports>,
    changes: watch::Sender<()>,
    control: watch::Sender<Control>,
}

/// What the control service knows of its agents. It exists in memory only.
#[derive(Debug, Default)]
struct Reports {
    /// The run of the control service that received these reports.
    run: u64,
    nodes: BTreeMap<Uuid, Report>,
    unmounted: BTreeMap<Uuid, u64>,
    /// The node of each era. A node that is no longer listed is still found.
    eras: BTreeMap<Uuid, Uuid>,
}

impl Cluster {
    pub(crate) fn new() -> Self {
        Self {
            reports: Mutex::default(),
            changes: watch::Sender::new(()),
            control: watch::Sender::new(Control {
                is_up: true,
                run: 0,
                since: Instant::now(),
            }),
        }
    }

    /// Returns a receiver of the state of the control service.
    pub(crate) fn control(&self) -> watch::Receiver<Control> {
        self.control.subscribe()
    }

    /// Records that the control service has stopped, which loses all reports.
    pub(crate) fn stop_control(&self) {
        let mut reports = self.lock();
        *reports = Reports {
            run: reports.run + 1,
            ..Reports::default()
        };
        drop(reports);
        self.control.send_modify(|control| control.is_up = false);
    }

    /// Records that the control service has started again.
    pub(crate) fn start_control(&self) {
        let run = self.lock().run;
        self.control.send_replace(Control {
            is_up: true,
            run,
            since: Instant::now(),
        });
    }

    /// Stores a node's report, and notifies subscribers if it differs from the node's last one. A report to an
    /// earlier run of the control service is dropped.
    pub(crate) fn report(&self, connection: &Connection, report: Report) {
        let node = connection.node;
        let mut reports = self.lock();
        if reports.run != connection.run {
            return;
        }
        reports.eras.retain(|_, of| *of != node);
        reports
            .eras
            .extend(connection.eras.iter().map(|era| (*era, node)));
        reports.unmounted.clone_from(&report.unmounted);
        let has_changed = reports.nodes.get(&node) != Some(&report);
        reports.nodes.insert(node, report);
        drop(reports);
        if has_changed {
            self.changes.send_replace(());
        }
    }

    /// Removes a node that has been silent for too long, and the datasets that it had mounted. What it reported of
    /// unmounted datasets stays until the next report of any node.
    pub(crate) fn forget(&self, node: Uuid) {
        if self.lock().nodes.remove(&node).is_some() {
            self.changes.send_replace(());
        }
    }

    pub(crate) fn has_reported(&self, node: Uuid) -> bool {
        self.lock().nodes.contains_key(&node)
    }

    /// Returns the node that reported this era.
    pub(crate) fn node_of_era(&self, era: Uuid) -> Option<Uuid> {
        self.lock().eras.get(&era).copied()
    }

    /// Returns all datasets that have a volume, according to the last reports.
    pub(crate) fn datasets(&self) -> Vec<SeenDataset> {
        let reports = self.lock();
        let mounted = reports.nodes.iter().flat_map(|(node, report)| {
            report.mounted.iter().map(|(id, (size, path))| SeenDataset {
                id: *id,
                size: *size,
                mounted: Some((*node, path.clone())),
            })
        });
        let unmounted = reports.unmounted.iter().map(|(id, size)| SeenDataset {
            id: *id,
            size: *size,
            mounted: None,
        });
        mounted.chain(unmounted).collect()
    }

    /// Returns the datasets whose volume some node cannot use.
    pub(crate) fn unavailable(&self) -> BTreeSet<Uuid> {
        let reports = self.lock();
        let unavailable = reports.nodes.values().flat_map(|report| &report.unavailable);
        unavailable.copied().collect()
    }

    /// Returns a receiver that is notified of changed reports.
    pub(crate) fn subscribe(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, Reports> {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(cluster: &Cluster, eras: &[Uuid]) -> Connection {
        Connection {
            run: cluster.control().borrow().run,
            node: Uuid::new_v4(),
            eras: eras.to_vec(),
        }
    }

    #[test]
    fn the_last_report_decides_which_unmounted_datasets_are_seen() {
        let cluster = Cluster::new();
        let (one, two) = (connection(&cluster, &[]), connection(&cluster, &[]));
        let dataset = Uuid::new_v4();
        let report = Report {
            unmounted: BTreeMap::from([(dataset, 1)]),
            ..Report::default()
        };
        cluster.report(&one, report.clone());
        assert_eq!(
            cluster.datasets(),
            [SeenDataset {
                id: dataset,
                size: 1,
                mounted: None
            }]
        );

        cluster.report(&two, Report::default());
        assert_eq!(cluster.datasets(), []);

        let mut changes = cluster.subscribe();
        changes.mark_unchanged();
        cluster.report(&one, report);
        assert_eq!(cluster.datasets().len(), 1);
        assert!(
            !changes.has_changed().unwrap(),
            "node one sees the same as before"
        );
    }

    #[test]
    fn a_restarted_control_service_has_no_reports() {
        let cluster = Cluster::new();
        let era = Uuid::new_v4();
        let before = connection(&cluster, &[era]);
        cluster.report(&before, Report::default());
        assert_eq!(cluster.node_of_era(era), Some(before.node));

        cluster.stop_control();
        cluster.start_control();
        cluster.report(&before, Report::default());
        assert!(
            !cluster.has_reported(before.node),
            "the connection was to the earlier run"
        );
        assert_eq!(cluster.node_of_era(era), None);
        let after = connection(&cluster, &[era]);
        cluster.report(&after, Report::default());
        assert_eq!(cluster.node_of_era(era), Some(after.node));
    }

    #[test]
    fn a_node_that_is_no_longer_listed_is_found_by_its_last_era_alone() {
        let cluster = Cluster::new();
        let (old, new) = (Uuid::new_v4(), Uuid::new_v4());
        let mut node = connection(&cluster, &[old]);
        cluster.report(&node, Report::default());
        node.eras = vec![new];
        cluster.report(&node, Report::default());
        cluster.forget(node.node);
        assert!(!cluster.has_reported(node.node));
        assert_eq!(
            (cluster.node_of_era(old), cluster.node_of_era(new)),
            (None, Some(node.node))
        );
    }
}
