//! `flocker-csi nodes`: the nodes of the cluster, and which one this machine is.

use std::collections::BTreeMap;

use clap::Args;
use serde::Serialize;
use uuid::Uuid;

use super::args::AdminArgs;
use super::output::show;
use super::survey::{NodeRef, Survey};
use super::table::{Cell, Meaning, Table};
use crate::commands::failure::Failure;

/// The arguments of `nodes`.
#[derive(Args, Debug)]
pub struct NodesArgs {
    /// The settings, and the format of the output.
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
}

/// Prints the nodes: those that Flocker lists, and those that are missing and hold a lease or are the primary of a volume.
///
/// # Errors
/// Flocker does not answer, or the output cannot be written.
pub async fn run(args: NodesArgs) -> Result<(), Failure> {
    let survey = Survey::read(&args.admin).await?;
    let document = Nodes::of(&survey);
    show(
        args.admin.output,
        &document,
        Nodes::table,
        "Flocker lists no node",
    )
}

/// All nodes.
#[derive(Serialize)]
struct Nodes {
    nodes: Vec<ListedNode>,
}

/// One node.
#[derive(Serialize)]
struct ListedNode {
    #[serde(flatten)]
    node: NodeRef,
    /// How many volumes have it as their primary.
    volumes: usize,
    /// How many leases it holds.
    leases: usize,
    /// Whether it is this machine.
    this_machine: bool,
    /// By what this machine is known as that node.
    known_by: Option<&'static str>,
    #[serde(skip)]
    because: String,
}

impl Nodes {
    fn of(survey: &Survey) -> Self {
        let mut counts: BTreeMap<Uuid, (usize, usize)> = BTreeMap::new();
        for node in survey.snapshot.nodes() {
            counts.entry(node.uuid).or_default();
        }
        if let Some(this) = survey.this_node {
            counts.entry(this.uuid).or_default();
        }
        for dataset in survey.live() {
            counts.entry(dataset.primary).or_default().0 += 1;
        }
        for lease in survey.snapshot.leases() {
            counts.entry(lease.node_uuid).or_default().1 += 1;
        }
        let nodes = counts.into_iter().map(|(uuid, (volumes, leases))| {
            let this = survey.this_node.filter(|this| this.uuid == uuid);
            ListedNode {
                node: survey.node(uuid),
                volumes,
                leases,
                this_machine: this.is_some(),
                known_by: this.map(|this| this.by.name()),
                because: this.map(|this| this.by.to_string()).unwrap_or_default(),
            }
        });
        let mut nodes: Vec<_> = nodes.collect();
        // Missing ones last.
        nodes.sort_by(|a, b| {
            let key = |node: &ListedNode| (!node.node.listed, node.node.host.clone(), node.node.uuid);
            key(a).cmp(&key(b))
        });
        Self { nodes }
    }

    fn table(&self) -> Table {
        let mut table = Table::new(&["UUID", "HOST", "STATUS", "VOLUMES", "LEASES", "THIS MACHINE"]);
        for ListedNode {
            node,
            volumes,
            leases,
            this_machine,
            because,
            ..
        } in &self.nodes
        {
            let status = if node.listed {
                Cell::from("listed")
            } else {
                Cell::with("missing", Meaning::Warning)
            };
            let this = if *this_machine {
                format!("yes: {because}")
            } else {
                String::new()
            };
            table.add(vec![
                node.uuid.to_string().into(),
                node.host.clone().unwrap_or_default().into(),
                status,
                volumes.to_string().into(),
                leases.to_string().into(),
                this.into(),
            ]);
        }
        table
    }
}
