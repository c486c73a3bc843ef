//! The phases of a volume in the cluster: that it exists, who has its lease, and where it shall be and is.

use futures::FutureExt;
use futures::future::BoxFuture;
use uuid::Uuid;

use super::super::output::moment;
use super::super::survey::Survey;
use super::check::{Check, Subject};
use super::examination::Examination;
use super::examined::{ExaminedVolume, kill, leave_out_the_plugin};
use super::finding::Finding;
use crate::controller::Condition;
use crate::telemetry::spawn_blocking;

/// The check that finds the volume.
pub(super) const FOUND: &str = "volume";

pub(super) const CHECKS: &[Check] = &[
    Check {
        name: FOUND,
        subject: Subject::Volume,
        needs: &["control-service"],
        run: volume,
    },
    Check {
        name: "volume-lease",
        subject: Subject::Volume,
        needs: &[FOUND],
        run: lease,
    },
    Check {
        name: "volume-primary",
        subject: Subject::Volume,
        needs: &[FOUND],
        run: primary,
    },
];

fn volume<'a>(examination: &'a mut Examination<'_>) -> BoxFuture<'a, Finding> {
    async move {
        let (Some(survey), Some(asked)) = (&examination.survey, examination.asked_volume) else {
            return Finding::skipped("Flocker was not read");
        };
        let id = match survey.find_volume(asked) {
            Ok(id) => id,
            Err(failure) => {
                return Finding::error(failure.lines().join("; "))
                    .command("see which volumes there are", "flocker-csi volumes");
            }
        };
        let mut mounts = match survey.local.clone() {
            Ok(local) => spawn_blocking(move || local.mounts_with_holders(id))
                .await
                .unwrap_or_default(),
            Err(_) => Vec::new(),
        };
        leave_out_the_plugin(&mut mounts, examination.plugin);
        let volume = ExaminedVolume {
            id,
            name: survey.name_of(id),
            label: survey.volume(id),
            dataset: survey.snapshot.dataset(id).ok().flatten().cloned(),
            here: survey.here(id),
            mounts,
        };
        let finding = of_existing(survey, &volume);
        examination.volume = Some(volume);
        finding
    }
    .boxed()
}

fn of_existing(survey: &Survey, volume: &ExaminedVolume) -> Finding {
    if let Err(error) = survey.snapshot.dataset(volume.id) {
        return Finding::error(error.chain())
            .next("see the log of flocker-control, and correct the entry with Flocker's API");
    }
    let label = &volume.label;
    match &volume.dataset {
        None => Finding::error(format!(
            "Flocker has no volume {label}; this machine has records or mounts of it, or its lease is left"
        ))
        .next("was it made in another cluster? If not, restore Flocker's configuration before anything is removed here"),
        Some(dataset) if dataset.deleted => {
            let (uses, processes) = volume.holders_of_flockers_mount();
            match (volume.mounts.is_empty(), processes.is_empty()) {
                (true, _) => Finding::ok(format!("{label} is deleted")),
                (false, true) => Finding::warning(format!("{label} is deleted, and is still mounted on this machine")),
                (false, false) => Finding::error(format!(
                    "{label} is deleted, and cannot be destroyed, because {}",
                    uses.join("; ")
                ))
                .command("end what uses it", kill(&processes)),
            }
        }
        Some(dataset) => match (Condition::of(&survey.snapshot, dataset), &volume.here) {
            (_, None) => Finding::warning(format!(
                "{label} exists; it is not known whether it is used here, as records or mounts cannot be read"
            )),
            (condition @ Condition::NotBacked { primary }, _) => {
                Finding::error(format!("{label}: {condition}")).command(
                    format!("see in the log of Flocker's agent on {} what it does", survey.named(primary)),
                    on_node(survey, primary, "journalctl -u flocker-dataset-agent -n 100"),
                )
            }
            (condition, _) => Finding::ok(format!("{label} exists: {condition}")),
        },
    }
}

/// Returns a command as it is run on another node, of which Flocker knows the address while it reports.
fn on_node(survey: &Survey, node: Uuid, command: &str) -> String {
    match survey.node(node).host {
        Some(host) => format!("ssh {host} {command}"),
        None => command.to_owned(),
    }
}

/// Returns a node as the subject of a sentence.
fn subject(survey: &Survey, node: Uuid) -> String {
    let named = survey.named(node);
    if survey.snapshot.lists_node(node) {
        format!("node {named}")
    } else {
        format!("node {named},")
    }
}

fn lease<'a>(examination: &'a mut Examination<'_>) -> BoxFuture<'a, Finding> {
    let finding = match (&examination.survey, &examination.volume) {
        (Some(survey), Some(volume)) => of_lease(survey, volume),
        _ => Finding::skipped("the volume was not found"),
    };
    async move { finding }.boxed()
}

fn of_lease(survey: &Survey, volume: &ExaminedVolume) -> Finding {
    let id = volume.id;
    let holder = match survey.snapshot.lease(id) {
        Ok(lease) => lease.map(|lease| lease.node_uuid),
        Err(error) => {
            return Finding::error(error.chain())
                .next("see which node uses the volume, and correct the lease with Flocker's API");
        }
    };
    let used = volume.is_used_here();
    let Some(holder) = holder else {
        return match (survey.this_node.is_some() && used, volume.is_being_staged()) {
            (true, false) => Finding::error(
                "no node holds its lease, although it is in use here: Flocker may move or delete it under its users",
            )
            .next("see that the plugin runs here, which acquires the lease again; else stop what uses the volume"),
            _ => Finding::ok("no node holds its lease, so every node can get it"),
        };
    };
    let named = survey.named(holder);
    if survey.is_this_node(holder) {
        let since = volume.here.as_ref().and_then(|here| here.staged_since(holder));
        let since = since.map(|since| format!(" since {} or earlier", moment(since)));
        let unused = if used {
            ""
        } else {
            "; nothing uses the volume here"
        };
        return Finding::ok(format!(
            "this node holds its lease{}{unused}",
            since.unwrap_or_default()
        ));
    }
    if !survey.snapshot.lists_node(holder) {
        return Finding::error(format!(
            "{} holds its lease, so no other node can have the volume",
            subject(survey, holder)
        ))
        .command(
            "start that node or its agent, or make sure that the machine is off and release its lease",
            format!("flocker-csi leases release {id} --node {holder}"),
        );
    }
    let wanted = match &survey.this_node {
        Some(this) => {
            used || volume
                .dataset
                .as_ref()
                .is_some_and(|dataset| dataset.primary == this.uuid)
        }
        None => used,
    };
    if wanted && !volume.is_being_staged() && used {
        Finding::error(format!(
            "it is in use here, but node {named} holds its lease: two nodes may write to it"
        ))
        .next("stop what uses it here at once, and compare its data with a backup")
    } else if wanted {
        Finding::error(format!(
            "node {named} holds its lease, and this node waits for it"
        ))
        .command(
            format!(
                "stop what uses the volume there; if nothing does, release its lease with flocker-csi leases release {id} --node \
                 {holder} --force. What uses it is shown by"
            ),
            on_node(survey, holder, &format!("flocker-csi doctor {id}")),
        )
    } else {
        Finding::ok(format!(
            "node {named} holds its lease; another node that wants the volume waits until that is released"
        ))
    }
}

fn primary<'a>(examination: &'a mut Examination<'_>) -> BoxFuture<'a, Finding> {
    let finding = match (&examination.survey, &examination.volume) {
        (Some(survey), Some(volume)) => of_primary(survey, volume),
        _ => Finding::skipped("the volume was not found"),
    };
    async move { finding }.boxed()
}

fn of_primary(survey: &Survey, volume: &ExaminedVolume) -> Finding {
    let Some(dataset) = volume.dataset.as_ref().filter(|dataset| !dataset.deleted) else {
        return Finding::skipped("Flocker has no such volume");
    };
    let primary = dataset.primary;
    let named = subject(survey, primary);
    match Condition::of(&survey.snapshot, dataset) {
        Condition::Mounted { .. } => Finding::ok(format!("{named} shall have it, and has it mounted")),
        Condition::Detached { .. } => {
            Finding::ok(format!("{named} shall have it; no node has it mounted yet"))
        }
        Condition::Elsewhere { reported, .. } => of_old_node(survey, volume, &named, reported),
        Condition::PrimaryMissing { .. } => Finding::error(format!(
            "{named} shall have it, and its agent does not report to Flocker"
        ))
        .command(
            "start the agent on that machine; if the machine is off for good, publish the volume on another node",
            on_node(survey, primary, "systemctl restart flocker-dataset-agent"),
        ),
        condition @ Condition::OnSeveralNodes(_) => Finding::error(condition.to_string())
            .next("stop what uses it on all nodes but the one that holds its lease"),
        condition @ (Condition::Unknown | Condition::NotBacked { .. }) => Finding::ok(condition.to_string()),
        condition => Finding::error(condition.to_string()),
    }
}

/// Describes a volume that has to leave a node first.
fn of_old_node(survey: &Survey, volume: &ExaminedVolume, named: &str, reported: Uuid) -> Finding {
    let old = survey.named(reported);
    let (uses, processes) = volume.holders_of_flockers_mount();
    if survey.is_this_node(reported) && !uses.is_empty() {
        let finding = Finding::error(format!(
            "{named} shall have it, but it cannot leave this node, because {}",
            uses.join("; ")
        ));
        return if processes.is_empty() {
            finding.next("unmount what is mounted below it")
        } else {
            finding.command("end what uses it", kill(&processes))
        };
    }
    let finding = Finding::warning(format!(
        "{named} shall have it, and node {old} still has it mounted"
    ));
    if survey.is_this_node(reported) {
        finding.command(
            "it should leave within a minute; if not, see what Flocker's agent does",
            "journalctl -u flocker-dataset-agent -n 100",
        )
    } else {
        finding.command(
            "see there what keeps it",
            on_node(survey, reported, &format!("flocker-csi doctor {}", volume.id)),
        )
    }
}
