//! `flocker-csi export`: writes existing volumes as Kubernetes objects for this plugin.
//!
//! Export changes nothing. It writes either everything that was requested, or nothing, and then reports all problems at
//! once.

mod args;
mod check;
mod datasets;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod in_tree;
mod manifest;
mod named;
mod objects;
mod report;
#[cfg(test)]
mod tests;
mod volume;

use std::io::Write;

pub(crate) use args::ExportArgs;

use crate::commands::failure::Failure;
use crate::commands::stdout::{self, printable};
use crate::flocker::cluster::Snapshot;
use crate::telemetry::spawn_blocking;
use args::Source;
use datasets::Datasets;
use objects::Object;
use report::Report;
use volume::{ClaimName, Volume};

/// Writes the objects to the standard output, and the remarks to stderr.
///
/// # Errors
/// See [`text`]; or the standard output cannot be written.
pub async fn run(args: ExportArgs) -> Result<(), Failure> {
    let Exported { objects, remarks } = text(&args).await?;
    for remark in remarks {
        stdout::remark(remark);
    }
    let mut stdout = std::io::stdout().lock();
    stdout
        .write_all(objects.as_bytes())
        .and_then(|()| stdout.flush())
        .map_err(|error| Failure::context("write to the standard output", &error))
}

/// The result of an export.
#[derive(Debug)]
struct Exported {
    /// The objects, in the requested format.
    objects: String,
    /// What differs from the old volumes, one sentence each.
    remarks: Vec<String>,
}

/// Returns the objects of all requested volumes.
///
/// # Errors
/// [`Failure::Configuration`] for a wrong command line and for unusable certificates; [`Failure::Refused`] with all
/// problems of the volumes; [`Failure::Failed`] when Flocker does not answer.
async fn text(args: &ExportArgs) -> Result<Exported, Failure> {
    let objects = match args.from {
        Source::KubernetesPv => Some(old_objects(&args.items).await?),
        Source::Flocker => None,
    };
    let snapshot = datasets::look(&args.flocker).await?;
    compose(args, objects.as_deref(), &snapshot)
}

/// Makes the objects of the given old objects, or else of the requested datasets.
fn compose(args: &ExportArgs, objects: Option<&[Object]>, snapshot: &Snapshot) -> Result<Exported, Failure> {
    let datasets = Datasets {
        snapshot,
        allow_leased: args.allow_leased,
    };
    let mut report = Report::default();
    let mut volumes = match objects {
        Some(objects) => objects
            .iter()
            .filter_map(|object| in_tree::volume(object, &datasets, &mut report))
            .collect(),
        None => named::volumes(&args.items, &datasets, &mut report),
    };
    for volume in &mut volumes {
        complete(volume, args, &mut report);
    }
    volume::refuse_twins(&volumes, &mut report);
    let remarks = report.finish()?;
    let mut manifests = Vec::new();
    for volume in &volumes {
        manifests.push(manifest::volume(
            volume,
            &args.driver_name,
            args.delete_with_claim,
        ));
        if let Some(claim) = volume
            .claim
            .as_ref()
            .filter(|_| args.claims.is_some() && volume.bound)
        {
            manifests.push(manifest::claim(volume, claim));
        }
    }
    let written = manifest::write(&manifests, args.output);
    let objects = written.map_err(|error| Failure::context("write the objects", error.as_ref()))?;
    Ok(Exported { objects, remarks })
}

/// Reads the objects of the one file on the command line.
async fn old_objects(items: &[String]) -> Result<Vec<Object>, Failure> {
    let [file] = items else {
        let text = "export --from kubernetes-pv takes one file, or - for the standard input";
        return Err(Failure::configuration(text));
    };
    let file = file.clone();
    let read = spawn_blocking(move || {
        let text = objects::read(&file).map_err(Failure::Failed)?;
        let parsed = objects::parse(&file, &text);
        parsed
            .map_err(|problems| Failure::Refused(problems.iter().map(|problem| printable(problem)).collect()))
    });
    read.await
        .map_err(|error| Failure::context("read the volumes", &error))?
}

/// Sets the properties of a volume that the command line gives.
fn complete(volume: &mut Volume, args: &ExportArgs, report: &mut Report) {
    if let Some(class) = &args.storage_class {
        volume.storage_class.clone_from(class);
    }
    let Some(namespace) = &args.claims else {
        return;
    };
    let name = &volume.name;
    match (&volume.claim, args.from) {
        // If the volume already exists in Kubernetes, a claim with its name belongs to another volume, and an operator who
        // deletes the exported objects would delete that claim with its data.
        (None, Source::KubernetesPv) => report.remark(format!(
            "PersistentVolume {name}: no claim is bound to it, so no claim is written"
        )),
        (Some(claim), _) if !volume.bound => report.remark(format!(
            "PersistentVolume {name}: it is not bound to claim {claim}, which may no longer exist, or may be bound to another \
                 volume, so that claim is not written; the volume stays reserved for it"
        )),
        (None, Source::Flocker) => {
            volume.claim = Some(ClaimName {
                namespace: namespace.clone(),
                name: name.clone(),
            });
        }
        _ => {}
    }
}
