//! What is looked up whenever metrics are requested: what is running, and how Flocker is doing.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::registry::Unit;

use super::{Readiness, volumes};
use crate::commands::serve::kubelet::Verdict;
use crate::controller::ControllerService;
use crate::flocker::cluster::Cluster;
use crate::host::VolumeCensus;
use crate::node::NodeService;
use crate::telemetry::{BlockingThread, Labels, LookedUp, Series, count};

/// The parts of the plugin that are asked.
#[derive(Clone)]
pub(crate) struct Gauges {
    pub(crate) cluster: Cluster,
    pub(crate) controller: Option<ControllerService>,
    pub(crate) node: Option<NodeService>,
    pub(crate) readiness: Readiness,
}

impl Gauges {
    /// Looks at what takes a thread, and returns the metrics of this moment.
    pub(super) async fn look_up(&self) -> LookedUp {
        let volumes = match &self.node {
            Some(node) => node.census().await,
            None => None,
        };
        let gauges = self.clone();
        LookedUp::of_plugin(Box::new(Looked { gauges, volumes }))
    }
}

/// The metrics of one moment.
struct Looked {
    gauges: Gauges,
    volumes: Option<VolumeCensus>,
}

impl fmt::Debug for Looked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Looked").finish_non_exhaustive()
    }
}

impl Collector for Looked {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Series::new(encoder);
        out.many(
            "build_info",
            "The version of the program; always 1",
            [(vec![("version", env!("CARGO_PKG_VERSION"))], 1.0)],
        )?;
        out.one(
            "blocking_threads_busy",
            "Threads that carry out work that may block, such as a look at a file system",
            Some(count(BlockingThread::in_use())),
        )?;
        self.gauges.readiness(&mut out)?;
        self.gauges.flocker(&mut out)?;
        self.gauges.operations(&mut out)?;
        volumes::write(&mut out, self.volumes.as_ref())
    }
}

impl Gauges {
    fn readiness(&self, out: &mut Series<'_>) -> fmt::Result {
        let checks = self.readiness.checks();
        out.many(
            "ready",
            "Whether each check of /readyz holds",
            checks
                .iter()
                .map(|check| (vec![("check", check.name)], f64::from(u8::from(check.holds)))),
        )?;
        let registration = self.readiness.registration();
        out.many(
            "kubelet_registration",
            "Whether this is the state of the registration with the kubelet; absent without one",
            registration.into_iter().flat_map(|now| {
                Verdict::NAMES.map(|state| (vec![("registration", state)], f64::from(u8::from(state == now))))
            }),
        )?;
        let credentials = self.cluster.credentials();
        out.gauge(
            "certificate_time_left",
            "The time until each certificate for Flocker expires; negative once it has",
            Some(&Unit::Seconds),
            [
                ("cluster", credentials.cluster_not_after()),
                ("user", credentials.user_not_after()),
            ]
            .map(|(certificate, end)| (vec![("certificate", certificate)], seconds_until(end))),
        )
    }

    fn flocker(&self, out: &mut Series<'_>) -> fmt::Result {
        let reads = self.cluster.reads();
        out.one(
            "flocker_up",
            "Whether Flocker answered the last request of those that show it, of which there is one every 15 s; absent before the first one",
            reads.healthy.map(|healthy| f64::from(u8::from(healthy))),
        )?;
        out.seconds(
            "flocker_last_answer_age",
            "How long ago Flocker last answered such a request; absent before the first answer",
            reads.last_answer.map(|age| (Labels::new(), age)),
        )?;
        out.one(
            "flocker_reads_waiting",
            "Calls that wait for a read of Flocker's lists",
            Some(count(reads.waiting)),
        )?;
        out.seconds(
            "flocker_list_age",
            "How long ago the read began that has shown a list of Flocker last; absent before the first one",
            reads
                .list_ages
                .into_iter()
                .map(|(list, age)| (vec![("list", list)], age)),
        )
    }

    fn operations(&self, out: &mut Series<'_>) -> fmt::Result {
        let controller = self.controller.iter().flat_map(ControllerService::running);
        let node = self.node.iter().flat_map(NodeService::running);
        let mut running = BTreeMap::new();
        let mut oldest = BTreeMap::new();
        for one in controller.chain(node) {
            *running.entry((one.operation, one.phase)).or_insert(0) += 1;
            let age = oldest.entry(one.operation).or_insert(Duration::ZERO);
            *age = one.age.max(*age);
        }
        out.many(
            "operations_running",
            "Operations that are running, by what they do and what they wait for",
            running.into_iter().map(|((operation, phase), running)| {
                (vec![("operation", operation), ("phase", phase)], count(running))
            }),
        )?;
        out.seconds(
            "oldest_operation_age",
            "For how long the oldest of the running operations has been running, by what it does",
            oldest
                .into_iter()
                .map(|(operation, age)| (vec![("operation", operation)], age)),
        )?;
        out.one(
            "deletions_pending",
            "Deleted volumes that Flocker has not destroyed yet, as far as this process waits for it",
            self.controller
                .as_ref()
                .map(|controller| count(controller.pending_destructions())),
        )
    }
}

fn seconds_until(end: SystemTime) -> f64 {
    match end.duration_since(SystemTime::now()) {
        Ok(left) => left.as_secs_f64(),
        Err(over) => -over.duration().as_secs_f64(),
    }
}
