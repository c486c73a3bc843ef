//! `flocker-csi gc`: what earlier processes left on this machine although nothing needs it, and its removal.
//!
//! It never touches a dataset or a lease, and unmounts nothing. What is left was seen to be so twice, a minute apart, and
//! again just before it is removed.

mod leases;
mod look;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use host_fs::{LockError, LockedDirectory};
use serde::Serialize;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::args::{AdminArgs, Format};
use super::output::show_json;
use super::survey::Survey;
use super::table::{Cell, Meaning, Table, colour};
use crate::commands::connection::connect;
use crate::commands::failure::Failure;
use crate::commands::stdout::{print, remark};
use crate::config::{absolute_path, duration};
use crate::error;
use crate::flocker::cluster::Cluster;
use crate::host::garbage::{Garbage, GarbageKind};
use crate::operation::Elapsed;
use crate::telemetry::spawn_blocking;
use leases::ForgottenLease;
use look::Look;

/// How long this machine may take to show what is on it.
const PATIENCE: Duration = Duration::from_secs(120);

/// The arguments of `gc`.
#[derive(Args, Debug)]
pub struct GcArgs {
    /// Removes what is left; without it, that is only listed. The plugin of this machine must not run.
    #[arg(long)]
    apply: bool,
    /// A directory below which an orchestrator stages volumes: empty directories of volumes without a record are searched
    /// for in it. May be repeated.
    #[arg(long, value_name = "DIR", value_parser = absolute_path())]
    staging_root: Vec<PathBuf>,
    /// The time between the two examinations, for tests.
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "1m", hide = true)]
    interval: Duration,
    /// The settings, and the format of the output.
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
}

/// Lists what is left on this machine, or removes it.
///
/// # Errors
/// A plugin runs, something cannot be removed, or it is not known what is left, as Flocker does not answer or this machine
/// cannot be examined.
pub async fn run(args: GcArgs) -> Result<(), Failure> {
    let cluster = connect(&args.admin.flocker, args.admin.node_loss.takeover_grace).await?;
    if args.apply {
        // A plugin that runs is reported before anything else, and may start again until the removal.
        drop(lock(&args.admin).await?);
    }
    let first = look(&cluster, &args).await?;
    let (first_left, _) = first.left().await?;
    let first_leases = leases::forgotten(&first).await?;
    if !first_left.is_empty() || !first_leases.is_empty() {
        remark(format_args!(
            "{} found at first; looking again in {}",
            first_left.len() + first_leases.len(),
            Elapsed(args.interval)
        ));
        sleep(args.interval).await;
    }
    let _locks = if args.apply {
        Some(lock(&args.admin).await?)
    } else {
        None
    };
    let second = look(&cluster, &args).await?;
    let (mut left, kept) = second.left().await?;
    left.retain(|(garbage, _)| first_left.iter().any(|(earlier, _)| earlier == garbage));
    let mut leases = leases::forgotten(&second).await?;
    leases.retain(|lease| first_leases.iter().any(|earlier| earlier.is_same(lease)));
    let mut document = Collection {
        applied: args.apply,
        leftovers: Vec::new(),
        kept: kept.iter().map(|(garbage, why)| Kept::of(garbage, why)).collect(),
        leases,
        unknown: second.unknown(),
    };
    // The volumes of which something is still there.
    let mut still_there = BTreeSet::new();
    for (garbage, reason) in &left {
        let outcome = if !args.apply {
            Outcome::Found
        } else if garbage.kind == GarbageKind::Record && still_there.contains(&garbage.dataset) {
            Outcome::Kept("it names what could not be removed".to_owned())
        } else {
            remove(&cluster, &args, garbage).await
        };
        if !matches!(outcome, Outcome::Removed) {
            still_there.insert(garbage.dataset);
        }
        document.leftovers.push(LeftHere::of(
            garbage,
            reason,
            outcome,
            second.survey.as_ref().ok(),
        ));
    }
    document.show(args.admin.output)?;
    document.verdict()
}

async fn look(cluster: &Cluster, args: &GcArgs) -> Result<Look, Failure> {
    let look = timeout(PATIENCE, Look::take(cluster, &args.admin, &args.staging_root)).await;
    look.unwrap_or_else(|_elapsed| {
        Err(Failure::Failed(format!(
            "this machine has not answered for {}: a file system may hang",
            Elapsed(PATIENCE)
        )))
    })
}

/// Removes something if it is still left.
async fn remove(cluster: &Cluster, args: &GcArgs, garbage: &Garbage) -> Outcome {
    let last = match look(cluster, args).await {
        Ok(last) => last,
        Err(failure) => return Outcome::Failed(failure.lines().join("; ")),
    };
    match last.is_left(garbage).await {
        Ok(Ok(_reason)) => {}
        Ok(Err(why)) => return Outcome::Kept(why),
        Err(failure) => return Outcome::Failed(failure.lines().join("; ")),
    }
    let (subject, local) = (garbage.clone(), Arc::clone(&last.local));
    match spawn_blocking(move || subject.remove(&local)).await {
        Ok(Ok(())) => Outcome::Removed,
        Ok(Err(why)) => Outcome::Failed(why),
        Err(error) => Outcome::Failed(error.to_string()),
    }
}

/// Locks the directories of the plugin. Those that do not exist hold nothing.
async fn lock(args: &AdminArgs) -> Result<Vec<LockedDirectory>, Failure> {
    let (state_dir, device_dir) = (args.node.state_dir.clone(), args.device_dir.clone());
    let locked = spawn_blocking(move || {
        let mut locks = Vec::new();
        if state_dir.exists() {
            locks.push(LockedDirectory::claim(&state_dir)?);
        }
        if device_dir.exists() {
            locks.push(LockedDirectory::claim(&device_dir)?.transient());
        }
        Ok(locks)
    });
    let locked = locked
        .await
        .map_err(|error| Failure::context("lock the directories of the plugin", &error))?;
    locked.map_err(|error: LockError| match error {
        LockError::Held { .. } => Failure::Refused(vec![format!(
            "{error}: nothing is removed while the plugin runs. Stop it first; volumes stay mounted while it is stopped. \
             Without --apply, gc works beside it"
        )]),
        _ => Failure::Failed(error::chain(&error)),
    })
}

/// What was found, and what was done.
#[derive(Serialize)]
struct Collection {
    applied: bool,
    leftovers: Vec<LeftHere>,
    /// What no record needs, and is in use.
    kept: Vec<Kept>,
    /// Leases that look forgotten.
    leases: Vec<ForgottenLease>,
    /// What could not be found out.
    unknown: Vec<String>,
}

/// Something that is left.
#[derive(Serialize)]
struct LeftHere {
    kind: &'static str,
    path: String,
    volume: Option<Uuid>,
    name: Option<String>,
    reason: String,
    outcome: &'static str,
    /// Why it was not removed.
    message: Option<String>,
}

/// Something that is in use although no record needs it.
#[derive(Serialize)]
struct Kept {
    kind: &'static str,
    path: String,
    volume: Option<Uuid>,
    reason: String,
}

/// What was done with something that is left.
enum Outcome {
    Found,
    Removed,
    /// It is no longer left.
    Kept(String),
    Failed(String),
}

impl LeftHere {
    fn of(garbage: &Garbage, reason: &str, outcome: Outcome, survey: Option<&Survey>) -> Self {
        let (outcome, message) = match outcome {
            Outcome::Found => ("found", None),
            Outcome::Removed => ("removed", None),
            Outcome::Kept(why) => ("kept", Some(why)),
            Outcome::Failed(why) => ("failed", Some(why)),
        };
        Self {
            kind: garbage.kind.name(),
            path: garbage.path.display().to_string(),
            volume: garbage.dataset,
            name: survey.and_then(|survey| survey.name_of(garbage.dataset?)),
            reason: reason.to_owned(),
            outcome,
            message,
        }
    }
}

impl Kept {
    fn of(garbage: &Garbage, why: &str) -> Self {
        Self {
            kind: garbage.kind.name(),
            path: garbage.path.display().to_string(),
            volume: garbage.dataset,
            reason: why.to_owned(),
        }
    }
}

impl Collection {
    fn show(&self, format: Format) -> Result<(), Failure> {
        for text in &self.unknown {
            remark(text);
        }
        if format == Format::Json {
            return show_json(self);
        }
        for Kept {
            kind, path, reason, ..
        } in &self.kept
        {
            remark(format_args!("kept: {kind} {path}: {reason}"));
        }
        if self.leftovers.is_empty() {
            remark("nothing is left on this machine");
        } else {
            print(&self.leftovers_table().render(colour()))?;
        }
        if self.leases.is_empty() {
            return Ok(());
        }
        remark("leases that look forgotten, which gc never releases:");
        print(&ForgottenLease::table(&self.leases).render(colour()))
    }

    fn leftovers_table(&self) -> Table {
        let mut table = Table::new(&["KIND", "PATH", "VOLUME", "REASON", "OUTCOME"]);
        for left in &self.leftovers {
            let outcome = match &left.message {
                Some(why) if left.outcome == "failed" => Cell::with(format!("failed: {why}"), Meaning::Fault),
                Some(why) => format!("{}: {why}", left.outcome).into(),
                None => left.outcome.into(),
            };
            let volume = left.volume.map(|volume| volume.to_string()).unwrap_or_default();
            table.add(vec![
                left.kind.into(),
                left.path.clone().into(),
                left.name.clone().unwrap_or(volume).into(),
                left.reason.clone().into(),
                outcome,
            ]);
        }
        table
    }

    fn verdict(&self) -> Result<(), Failure> {
        let failed = self
            .leftovers
            .iter()
            .filter(|left| left.outcome == "failed")
            .count();
        if failed > 0 {
            return Err(Failure::Failed(format!(
                "{failed} of what is left could not be removed"
            )));
        }
        if self.unknown.is_empty() {
            return Ok(());
        }
        let doing = if self.applied { "removed" } else { "listed" };
        Err(Failure::Failed(format!(
            "not everything could be examined, so only a part of what is left was {doing}"
        )))
    }
}
