//! The cluster and this machine, as one read shows them.

use std::collections::HashMap;
use std::sync::Arc;

use flocker_client::Dataset;
use serde::Serialize;
use uuid::Uuid;

use super::args::AdminArgs;
use crate::commands::connection::connect;
use crate::commands::failure::Failure;
use crate::commands::stdout::remark;
use crate::config::NodeConfig;
use crate::error;
use crate::flocker::cluster::{Cluster, Lists, Snapshot, dataset_named, similar_name};
use crate::flocker::node_identity::{NodeEvidence, NodeIdentity, Sources};
use crate::host::{LocalDirectories, LocalView, LocalVolume};
use crate::telemetry::spawn_blocking;
use crate::volume::{FLOCKER_ID_KEY, NAME_KEY, dataset_of};

/// A node in output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct NodeRef {
    pub(super) uuid: Uuid,
    /// The address from which its agent connects, if Flocker lists it.
    pub(super) host: Option<String>,
    /// Whether Flocker lists it.
    pub(super) listed: bool,
}

/// This machine as a node of Flocker.
#[derive(Clone, Copy, Debug)]
pub(super) struct ThisNode {
    pub(super) uuid: Uuid,
    pub(super) by: NodeEvidence,
}

/// What Flocker and this machine say at one moment.
pub(super) struct Survey {
    pub(super) cluster: Cluster,
    pub(super) snapshot: Arc<Snapshot>,
    /// This machine's records and mounts, or why they cannot be read.
    pub(super) local: Result<Arc<LocalView>, String>,
    /// `None` where no node of Flocker is known to be this machine.
    pub(super) this_node: Option<ThisNode>,
    /// How many nodes report each address.
    hosts: HashMap<String, usize>,
}

impl Survey {
    /// Reads Flocker's lists, and what this machine knows.
    ///
    /// # Errors
    /// The certificates cannot be used, or Flocker does not answer. What cannot be read on this machine is remarked on.
    pub(super) async fn read(args: &AdminArgs) -> Result<Self, Failure> {
        let cluster = connect(&args.flocker, args.node_loss.takeover_grace).await?;
        let survey = Self::of(cluster, &args.node, args.directories()).await?;
        match &survey.local {
            Ok(local) => {
                for error in local.unreadable_records() {
                    remark(error::chain(error));
                }
            }
            Err(error) => remark(format_args!(
                "it is not known which volumes are used on this machine: {error}"
            )),
        }
        Ok(survey)
    }

    /// As [`Self::read`], of a cluster to which a connection exists, and without remarks.
    ///
    /// # Errors
    /// Flocker does not answer.
    pub(super) async fn of(
        cluster: Cluster,
        node: &NodeConfig,
        directories: LocalDirectories,
    ) -> Result<Self, Failure> {
        let local = spawn_blocking(move || LocalView::read(directories));
        let sources = Sources::new(node.node_id, node.node_id_file.clone(), node.state_dir.clone());
        let identity = NodeIdentity::new(sources, cluster.clone());
        let (snapshot, this_node, local) =
            tokio::join!(cluster.fresh(Lists::all()), identity.look_up(), local);
        let snapshot = snapshot.map_err(|error| Failure::of(&error))?;
        let local = local.map_err(|error| Failure::context("read what this machine knows", &error))?;
        let local = local.map(Arc::new).map_err(|error| error.chain());
        let mut hosts = HashMap::new();
        for node in snapshot.nodes() {
            *hosts.entry(node.host.clone()).or_default() += 1;
        }
        Ok(Self {
            this_node: this_node.ok().map(|(uuid, by)| ThisNode { uuid, by }),
            cluster,
            snapshot,
            local,
            hosts,
        })
    }

    /// Describes a node.
    pub(super) fn node(&self, uuid: Uuid) -> NodeRef {
        let listed = self.snapshot.nodes().find(|node| node.uuid == uuid);
        NodeRef {
            uuid,
            host: listed
                .map(|node| node.host.clone())
                .filter(|host| !host.is_empty()),
            listed: listed.is_some(),
        }
    }

    /// Returns a node as a table shows it: its address, if no other node has that, else its UUID.
    pub(super) fn label(&self, node: &NodeRef) -> String {
        match &node.host {
            Some(host) if self.hosts.get(host) == Some(&1) => host.clone(),
            _ if node.listed => node.uuid.to_string(),
            _ => format!("{} (missing)", node.uuid),
        }
    }

    /// Returns a node as a sentence names it.
    pub(super) fn named(&self, uuid: Uuid) -> String {
        match self.node(uuid) {
            NodeRef { host: Some(host), .. } => format!("{host} ({uuid})"),
            NodeRef { listed: true, .. } => uuid.to_string(),
            _ => format!("{uuid}, which Flocker does not list"),
        }
    }

    /// Returns the node that a filter names, if there is a filter.
    ///
    /// # Errors
    /// Those of [`Self::find_node`].
    pub(super) fn filtered_node(&self, filter: Option<&str>) -> Result<Option<Uuid>, Failure> {
        filter.map(|text| self.find_node(text)).transpose()
    }

    /// Finds a node by its UUID or its address. One that Flocker does not list is found if it holds a lease or is the primary
    /// of a volume.
    ///
    /// # Errors
    /// No node has it, or several have it; with the nodes that exist.
    fn find_node(&self, text: &str) -> Result<Uuid, Failure> {
        let nodes = || self.snapshot.nodes();
        if let Ok(uuid) = Uuid::try_parse(text) {
            let holds = self.snapshot.leases().any(|lease| lease.node_uuid == uuid);
            let is_primary = || self.live().any(|dataset| dataset.primary == uuid);
            if self.snapshot.lists_node(uuid) || holds || is_primary() {
                return Ok(uuid);
            }
        }
        let of_host: Vec<_> = nodes().filter(|node| node.host == text).collect();
        if let [node] = of_host[..] {
            return Ok(node.uuid);
        }
        let existing: Vec<_> = nodes()
            .map(|node| format!("{} ({})", node.host, node.uuid))
            .collect();
        let existing = if existing.is_empty() {
            "none".to_owned()
        } else {
            existing.join(", ")
        };
        let problem = if of_host.is_empty() {
            "is no node of Flocker"
        } else {
            "is the address of several nodes"
        };
        Err(Failure::Refused(vec![format!(
            "{text:?} {problem}; Flocker lists {existing}"
        )]))
    }

    /// Finds a volume by its id or its name; the id of one that is deleted too, as it may be leased.
    ///
    /// # Errors
    /// No volume has it, or several have it.
    pub(super) fn find_volume(&self, text: &str) -> Result<Uuid, Failure> {
        if let Some(id) = dataset_of(text) {
            let exists = !matches!(self.snapshot.dataset(id), Ok(None));
            let is_leased = || !matches!(self.snapshot.lease(id), Ok(None));
            let is_known_here = || {
                self.local
                    .as_ref()
                    .is_ok_and(|local| local.datasets().contains(&id))
            };
            if exists || is_leased() || is_known_here() {
                return Ok(id);
            }
        }
        match dataset_named(&self.snapshot, text) {
            Ok(Some(dataset)) => Ok(dataset.dataset_id),
            Ok(None) => Err(Failure::Refused(vec![format!(
                "no volume has the id or name {text:?}{}",
                similar_name(&self.snapshot, text)
            )])),
            Err(error) => Err(Failure::Refused(vec![error.chain()])),
        }
    }

    /// Returns the datasets that are not deleted, ordered by id.
    pub(super) fn live(&self) -> impl Iterator<Item = &Dataset> {
        self.snapshot.datasets().filter(|dataset| !dataset.deleted)
    }

    /// Returns the name of a dataset, if it has one.
    pub(super) fn name_of(&self, dataset: Uuid) -> Option<String> {
        name_of(self.snapshot.dataset(dataset).ok().flatten()?)
    }

    /// Returns a volume as a sentence names it.
    pub(super) fn volume(&self, dataset: Uuid) -> String {
        match self.name_of(dataset) {
            Some(name) => format!("{name:?} ({dataset})"),
            None => dataset.to_string(),
        }
    }

    /// Returns what this machine knows of a volume.
    pub(super) fn here(&self, dataset: Uuid) -> Option<LocalVolume> {
        self.local.as_ref().ok().map(|local| local.of(dataset))
    }

    /// Whether a node is this machine.
    pub(super) fn is_this_node(&self, node: Uuid) -> bool {
        self.this_node.is_some_and(|this| this.uuid == node)
    }
}

/// Returns the name that users know a dataset by.
pub(super) fn name_of(dataset: &Dataset) -> Option<String> {
    let metadata = &dataset.metadata;
    metadata
        .get(NAME_KEY)
        .or_else(|| metadata.get(FLOCKER_ID_KEY))
        .cloned()
}
