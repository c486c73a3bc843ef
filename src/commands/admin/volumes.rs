//! `flocker-csi volumes`: which volume is where, and who uses it.

use clap::Args;
use flocker_client::Dataset;
use serde::Serialize;
use uuid::Uuid;

use super::args::AdminArgs;
use super::output::{moment, show};
use super::survey::{NodeRef, Survey, name_of};
use super::table::{Cell, Meaning, Table};
use crate::commands::failure::Failure;
use crate::controller::Condition;
use crate::flocker::provisioning::{reported_size, size_in};
use crate::host::LocalVolume;
use crate::volume::{KubernetesClaim, profile_of, size_text};

/// The condition of a volume that is in use here without a lease of this node.
const LEASE_LOST: &str = "lease-lost";
/// Stands for every abnormal condition.
const ABNORMAL: &str = "abnormal";
/// The arguments of `volumes`.
#[derive(Args, Debug)]
pub struct VolumesArgs {
    /// Only volumes of this node, by UUID or address: those whose primary it is, and those whose lease it holds.
    #[arg(long, value_name = "NODE")]
    node: Option<String>,
    /// Only volumes with this text in their name or id.
    #[arg(long, value_name = "TEXT")]
    name: Option<String>,
    /// Only volumes in this condition; "abnormal" stands for all that are faults.
    #[arg(long, value_name = "CONDITION", value_parser = conditions())]
    condition: Option<String>,
    /// Only volumes whose lease this node holds, and that nothing on this machine uses.
    #[arg(long)]
    leased_but_unused: bool,
    /// The settings, and the format of the output.
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
}

fn conditions() -> clap::builder::PossibleValuesParser {
    let all = Condition::NAMES.into_iter().chain([LEASE_LOST, ABNORMAL]);
    all.collect::<Vec<_>>().into()
}

/// Prints the volumes.
///
/// # Errors
/// A filter names no node, Flocker does not answer, or the output cannot be written.
pub async fn run(args: VolumesArgs) -> Result<(), Failure> {
    let survey = Survey::read(&args.admin).await?;
    let node = survey.filtered_node(args.node.as_deref())?;
    if args.leased_but_unused && survey.this_node.is_none() {
        let text =
            "it is not known which node this machine is, so neither which leases it holds: give --node-id";
        return Err(Failure::Refused(vec![text.to_owned()]));
    }
    let mut volumes: Vec<_> = volumes_of(&survey)
        .filter(|volume| args.selects(volume, node))
        .collect();
    // Those without a name come last.
    volumes.sort_by(|a, b| (a.name.is_none(), &a.name, a.id).cmp(&(b.name.is_none(), &b.name, b.id)));
    let document = Volumes { volumes };
    let table = |document: &Volumes| table(&survey, &document.volumes);
    show(args.admin.output, &document, table, "no volume matches")
}

/// All volumes that were asked for.
#[derive(Serialize)]
struct Volumes {
    volumes: Vec<Volume>,
}

/// One volume.
#[derive(Serialize)]
pub(super) struct Volume {
    id: Uuid,
    name: Option<String>,
    /// In bytes.
    size: Option<u64>,
    profile: Option<String>,
    /// The node on which Flocker shall have it.
    primary: Option<NodeRef>,
    lease: Option<VolumeLease>,
    /// `None` where this machine's records or mounts cannot be read.
    here: Option<Here>,
    condition: VolumeCondition,
    claim: Option<Claim>,
    /// Whether this machine's node holds the lease, and nothing here uses the volume; `None` where that is not known.
    leased_but_unused: Option<bool>,
}

/// The lease on a volume.
#[derive(Serialize)]
struct VolumeLease {
    /// `None` where it cannot be read.
    holder: Option<NodeRef>,
    /// Since when, as far as a record of this machine says.
    since: Option<String>,
    /// The seconds until it expires, if it does.
    expires_in: Option<f64>,
}

/// A volume on this machine.
#[derive(Serialize)]
pub(super) struct Here {
    staged: Vec<StagedHere>,
    published: Vec<String>,
    flocker_mount: Option<String>,
}

/// A staging of a volume on this machine.
#[derive(Serialize)]
struct StagedHere {
    path: String,
    state: &'static str,
    since: Option<String>,
}

/// The condition of a volume.
#[derive(Serialize)]
struct VolumeCondition {
    name: &'static str,
    abnormal: bool,
    message: String,
}

/// The claim for which a volume was created.
#[derive(Serialize)]
struct Claim {
    namespace: String,
    name: String,
}

impl VolumesArgs {
    fn selects(&self, volume: &Volume, node: Option<Uuid>) -> bool {
        let holder = volume.lease.as_ref().and_then(|lease| lease.holder.as_ref());
        let of_node = |node: Uuid| {
            [holder, volume.primary.as_ref()]
                .into_iter()
                .flatten()
                .any(|of| of.uuid == node)
        };
        let named = |text: &str| {
            let name = volume.name.as_deref().unwrap_or_default();
            name.contains(text) || volume.id.to_string().contains(text)
        };
        let in_condition = |wanted: &str| match wanted {
            ABNORMAL => volume.condition.abnormal,
            name => volume.condition.name == name,
        };
        node.is_none_or(of_node)
            && self.name.as_deref().is_none_or(named)
            && self.condition.as_deref().is_none_or(in_condition)
            && (!self.leased_but_unused || volume.leased_but_unused == Some(true))
    }
}

fn volumes_of(survey: &Survey) -> impl Iterator<Item = Volume> {
    let readable = survey.live().map(|dataset| of_dataset(survey, dataset));
    let unreadable = survey.snapshot.unreadable_datasets();
    readable.chain(unreadable.map(|(id, primary)| of_unreadable(survey, id, primary)))
}

fn of_dataset(survey: &Survey, dataset: &Dataset) -> Volume {
    let condition = Condition::of(&survey.snapshot, dataset);
    let claim = KubernetesClaim::in_metadata(&dataset.metadata);
    Volume {
        name: name_of(dataset),
        size: Some(size_in(&survey.snapshot, dataset)).filter(|size| *size > 0),
        profile: profile_of(&dataset.metadata).map(str::to_owned),
        claim: claim.and_then(|claim| {
            Some(Claim {
                namespace: claim.namespace?,
                name: claim.name?,
            })
        }),
        ..of_any(survey, dataset.dataset_id, Some(dataset.primary), &condition)
    }
}

/// Describes a dataset whose entry in the configuration cannot be read.
fn of_unreadable(survey: &Survey, id: Uuid, primary: Option<Uuid>) -> Volume {
    Volume {
        size: reported_size(&survey.snapshot, id),
        ..of_any(survey, id, primary, &Condition::Unreadable)
    }
}

fn of_any(survey: &Survey, id: Uuid, primary: Option<Uuid>, reported: &Condition) -> Volume {
    let here = survey.here(id);
    let used = here.as_ref().map(LocalVolume::is_used);
    let (lease, holder) = match survey.snapshot.lease(id) {
        Ok(None) => (None, None),
        Ok(Some(lease)) => {
            let since = here.as_ref().and_then(|here| here.staged_since(lease.node_uuid));
            let known = VolumeLease {
                holder: Some(survey.node(lease.node_uuid)),
                since: since.map(moment),
                expires_in: lease.expires,
            };
            (Some(known), Some(lease.node_uuid))
        }
        Err(_) => {
            let unknown = VolumeLease {
                holder: None,
                since: None,
                expires_in: None,
            };
            (Some(unknown), None)
        }
    };
    let is_ours = holder.is_some_and(|holder| survey.is_this_node(holder));
    let condition = if lease.as_ref().is_some_and(|lease| lease.holder.is_none()) {
        VolumeCondition::of(&Condition::LeaseUnreadable)
    } else if used == Some(true) && survey.this_node.is_some() && !is_ours {
        VolumeCondition::lease_lost(holder.map(|holder| survey.named(holder)))
    } else {
        VolumeCondition::of(reported)
    };
    Volume {
        id,
        name: None,
        size: None,
        profile: None,
        primary: primary.map(|primary| survey.node(primary)),
        lease,
        here: here.map(Here::of),
        condition,
        claim: None,
        leased_but_unused: survey.this_node.and(used).map(|used| is_ours && !used),
    }
}

impl Here {
    pub(super) fn of(volume: LocalVolume) -> Self {
        let shown = |path: std::path::PathBuf| path.display().to_string();
        Self {
            staged: volume
                .stagings
                .into_iter()
                .map(|staging| StagedHere {
                    path: shown(staging.path),
                    state: staging.state.name(),
                    since: staging.since.map(moment),
                })
                .collect(),
            published: volume.targets.into_iter().map(shown).collect(),
            flocker_mount: volume.flockers_mount.map(shown),
        }
    }

    /// Returns what a table says of it.
    fn summary(&self) -> String {
        match (self.published.len(), self.staged.first()) {
            (0, None) if self.flocker_mount.is_some() => "mounted".to_owned(),
            (0, None) => String::new(),
            (0, Some(staging)) => staging.state.to_owned(),
            (1, _) => "published".to_owned(),
            (targets, _) => format!("published ({targets})"),
        }
    }
}

impl VolumeCondition {
    fn of(condition: &Condition) -> Self {
        Self {
            name: condition.name(),
            abnormal: condition.is_abnormal(),
            message: condition.to_string(),
        }
    }

    fn lease_lost(holder: Option<String>) -> Self {
        let holder = holder.map_or("no node holds its lease".to_owned(), |holder| {
            format!("node {holder} holds its lease")
        });
        Self {
            name: LEASE_LOST,
            abnormal: true,
            message: format!("it is in use on this machine, but {holder}"),
        }
    }
}

fn table(survey: &Survey, volumes: &[Volume]) -> Table {
    let mut table = Table::new(&[
        "ID",
        "NAME",
        "SIZE",
        "PROFILE",
        "PRIMARY",
        "LEASE",
        "SINCE",
        "HERE",
        "CONDITION",
        "CLAIM",
    ]);
    let node = |node: Option<&NodeRef>| {
        let meaning = match node {
            Some(node) if !node.listed => Meaning::Warning,
            _ => Meaning::Plain,
        };
        Cell::with(node.map(|node| survey.label(node)).unwrap_or_default(), meaning)
    };
    for volume in volumes {
        let lease = match &volume.lease {
            Some(VolumeLease { holder: None, .. }) => Cell::with("unreadable", Meaning::Fault),
            lease => node(lease.as_ref().and_then(|lease| lease.holder.as_ref())),
        };
        let since = volume.lease.as_ref().and_then(|lease| lease.since.clone());
        let here = volume.here.as_ref().map_or("?".to_owned(), Here::summary);
        let meaning = if volume.condition.abnormal {
            Meaning::Fault
        } else {
            Meaning::Plain
        };
        let claim = volume
            .claim
            .as_ref()
            .map(|claim| format!("{}/{}", claim.namespace, claim.name));
        table.add(vec![
            volume.id.to_string().into(),
            volume.name.clone().unwrap_or_default().into(),
            volume.size.map(size_text).unwrap_or_default().into(),
            volume.profile.clone().unwrap_or_default().into(),
            node(volume.primary.as_ref()),
            lease,
            since.unwrap_or_default().into(),
            here.into(),
            Cell::with(volume.condition.name, meaning),
            claim.unwrap_or_default().into(),
        ]);
    }
    table
}
