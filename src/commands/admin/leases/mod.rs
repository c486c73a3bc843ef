//! `flocker-csi leases`: who holds which lease, and releasing one.

mod holder;
mod release;

pub(super) use holder::Presence;

use clap::{Args, ValueEnum};
use serde::Serialize;
use uuid::Uuid;

use super::args::AdminArgs;
use super::output::{moment, show};
use super::survey::{NodeRef, Survey};
use super::table::{Cell, Meaning, Table};
use crate::commands::failure::Failure;
use crate::host::LocalVolume;
use crate::operation::Elapsed;

/// The arguments of `leases`.
#[derive(Args, Debug)]
pub struct LeasesArgs {
    /// What to do; by default, leases are listed.
    #[arg(
        value_enum,
        value_name = "ACTION",
        requires_if("release", "volume"),
        requires_if("release", "node")
    )]
    action: Option<Action>,
    /// The volume whose lease is released: its id or its name.
    #[arg(value_name = "VOLUME", requires = "action")]
    volume: Option<String>,
    /// Only leases of this node, by UUID or address; with release, the node that holds the lease.
    #[arg(long, value_name = "NODE")]
    node: Option<String>,
    /// Releases the lease although its node still reports to Flocker, or has not been missing for long enough to count as
    /// gone. Never one that is in use on this machine.
    #[arg(long, requires = "volume")]
    force: bool,
    /// Releases the lease without asking.
    #[arg(long, requires = "volume")]
    yes: bool,
    /// The settings, and the format of the output.
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
}

/// What is done with leases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Action {
    /// Release one.
    Release,
}

/// Prints the leases, or releases one.
///
/// # Errors
/// Flocker does not answer, the output cannot be written, or the lease is not released.
pub async fn run(args: LeasesArgs) -> Result<(), Failure> {
    let survey = Survey::read(&args.admin).await?;
    let node = survey.filtered_node(args.node.as_deref())?;
    if let (Some(Action::Release), Some(volume), Some(node)) = (args.action, &args.volume, node) {
        let release = release::Release {
            dataset: survey.find_volume(volume)?,
            node,
            force: args.force,
            yes: args.yes,
            grace: args.admin.node_loss.takeover_grace,
        };
        return release.run(&survey, &args.admin).await;
    }
    let document = Leases::of(&survey, node);
    let table = |document: &Leases| document.table(&survey);
    show(args.admin.output, &document, table, "no lease is held")
}

/// All leases that were asked for.
#[derive(Serialize)]
struct Leases {
    leases: Vec<Lease>,
}

/// One lease.
#[derive(Serialize)]
struct Lease {
    volume: Uuid,
    name: Option<String>,
    /// `None` where it cannot be read.
    holder: Option<NodeRef>,
    /// Since when, as far as a record of this machine says.
    since: Option<String>,
    /// The seconds until it expires, if it does.
    expires_in: Option<f64>,
    /// Whether anything on this machine uses the volume; `None` where that is not known.
    used_here: Option<bool>,
}

impl Leases {
    fn of(survey: &Survey, node: Option<Uuid>) -> Self {
        let known = survey.snapshot.leases();
        let known = known
            .filter(|lease| node.is_none_or(|node| lease.node_uuid == node))
            .map(|lease| {
                let here = survey.here(lease.dataset_id);
                let since = here.as_ref().and_then(|here| here.staged_since(lease.node_uuid));
                Lease {
                    holder: Some(survey.node(lease.node_uuid)),
                    since: since.map(moment),
                    expires_in: lease.expires,
                    ..Lease::on(survey, lease.dataset_id, here.as_ref())
                }
            });
        let unknown = survey.snapshot.unreadable_leases().filter(|_| node.is_none());
        let unknown = unknown.map(|dataset| Lease::on(survey, dataset, survey.here(dataset).as_ref()));
        let mut leases: Vec<_> = known.chain(unknown).collect();
        leases.sort_by(|a, b| {
            (a.name.is_none(), &a.name, a.volume).cmp(&(b.name.is_none(), &b.name, b.volume))
        });
        Self { leases }
    }

    fn table(&self, survey: &Survey) -> Table {
        let mut table = Table::new(&["VOLUME", "NAME", "HOLDER", "SINCE", "EXPIRES", "USED HERE"]);
        for lease in &self.leases {
            let holder = match &lease.holder {
                None => Cell::with("unreadable", Meaning::Fault),
                Some(node) if node.listed => survey.label(node).into(),
                Some(node) => Cell::with(survey.label(node), Meaning::Warning),
            };
            let expires = lease
                .expires_in
                .and_then(|left| std::time::Duration::try_from_secs_f64(left).ok());
            let used = match lease.used_here {
                None => "?",
                Some(true) => "yes",
                Some(false) => "no",
            };
            table.add(vec![
                lease.volume.to_string().into(),
                lease.name.clone().unwrap_or_default().into(),
                holder,
                lease.since.clone().unwrap_or_default().into(),
                expires
                    .map_or("never".to_owned(), |left| format!("in {}", Elapsed(left)))
                    .into(),
                used.into(),
            ]);
        }
        table
    }
}

impl Lease {
    fn on(survey: &Survey, volume: Uuid, here: Option<&LocalVolume>) -> Self {
        Self {
            volume,
            name: survey.name_of(volume),
            holder: None,
            since: None,
            expires_in: None,
            used_here: here.map(LocalVolume::is_used),
        }
    }
}
