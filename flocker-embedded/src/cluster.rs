//! What the agents last reported, as the control service keeps it.
//!
//! Mounted datasets belong to the node that reports them, so one can be listed twice. All others are one list
//! that every report replaces as a whole: agents that see different things make datasets come and go.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use uuid::Uuid;

/// What one agent sees.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Report {
    /// Size and mount point of the datasets mounted where they belong.
    pub(crate) mounted: BTreeMap<Uuid, (u64, PathBuf)>,
    /// Sizes of the datasets that have a volume but are not mounted.
    pub(crate) unmounted: BTreeMap<Uuid, u64>,
    /// Devices of the datasets attached here. No client sees them, but a change counts as news.
    pub(crate) devices: BTreeMap<Uuid, PathBuf>,
}

/// A dataset as clients see it.
#[derive(Debug, PartialEq)]
pub(crate) struct SeenDataset {
    pub(crate) id: Uuid,
    pub(crate) size: u64,
    /// The node that has it mounted, and where.
    pub(crate) mounted: Option<(Uuid, PathBuf)>,
}

/// The reports of all nodes.
#[derive(Debug, Default)]
pub(crate) struct Cluster {
    reports: Mutex<Reports>,
    news: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct Reports {
    nodes: BTreeMap<Uuid, Report>,
    unmounted: BTreeMap<Uuid, u64>,
}

impl Cluster {
    /// Takes a node's report, which is news if that node saw something else before.
    pub(crate) fn report(&self, node: Uuid, report: Report) {
        let mut reports = self.lock();
        reports.unmounted.clone_from(&report.unmounted);
        let is_news = reports.nodes.get(&node) != Some(&report);
        reports.nodes.insert(node, report);
        drop(reports);
        if is_news {
            self.news.send_replace(());
        }
    }

    pub(crate) fn has_reported(&self, node: Uuid) -> bool {
        self.lock().nodes.contains_key(&node)
    }

    /// Returns all datasets that have a volume, as far as the last reports know.
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

    /// Returns a receiver that is notified of news.
    pub(crate) fn subscribe(&self) -> watch::Receiver<()> {
        self.news.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, Reports> {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_report_decides_which_unmounted_datasets_are_seen() {
        let cluster = Cluster::default();
        let (one, two, dataset) = (Uuid::new_v4(), Uuid::new_v4(), Uuid::new_v4());
        let report = Report {
            unmounted: BTreeMap::from([(dataset, 1)]),
            ..Report::default()
        };
        cluster.report(one, report.clone());
        assert_eq!(
            cluster.datasets(),
            [SeenDataset {
                id: dataset,
                size: 1,
                mounted: None
            }]
        );

        cluster.report(two, Report::default());
        assert_eq!(cluster.datasets(), []);

        let mut news = cluster.subscribe();
        news.mark_unchanged();
        cluster.report(one, report);
        assert_eq!(cluster.datasets().len(), 1);
        assert!(
            !news.has_changed().unwrap(),
            "node one still sees what it saw before"
        );
    }
}
