//! The phases of a volume on this machine: mounted by Flocker, staged, published, and its file system.

use std::path::Path;

use futures::FutureExt;
use futures::future::BoxFuture;

use super::super::output::moment;
use super::super::survey::Survey;
use super::check::{Check, Subject};
use super::examination::Examination;
use super::examined::{ExaminedVolume, holders, kill};
use super::finding::Finding;
use super::volume::FOUND;
use crate::host::mount::FileSystemFault;
use crate::host::{LocalVolume, StagingState, VolumeMount};

pub(super) const CHECKS: &[Check] = &[
    Check {
        name: "volume-mount",
        subject: Subject::Volume,
        needs: &[FOUND],
        run: mount,
    },
    Check {
        name: "volume-staged",
        subject: Subject::Volume,
        needs: &[FOUND],
        run: staged,
    },
    Check {
        name: "volume-published",
        subject: Subject::Volume,
        needs: &[FOUND],
        run: published,
    },
    Check {
        name: "volume-file-system",
        subject: Subject::Volume,
        needs: &[FOUND],
        run: file_system,
    },
];

fn with_volume<'a>(
    examination: &mut Examination<'_>,
    check: impl FnOnce(&Survey, &ExaminedVolume, &LocalVolume, &Path) -> Finding,
) -> BoxFuture<'a, Finding> {
    let mount_root = &examination.config.node.mount_root;
    let finding = match (&examination.survey, &examination.volume) {
        (Some(survey), Some(volume)) => match &volume.here {
            Some(here) => check(survey, volume, here, mount_root),
            None => Finding::skipped("the records or the mounts of this machine cannot be read"),
        },
        _ => Finding::skipped("the volume was not found"),
    };
    async move { finding }.boxed()
}

fn mount<'a>(examination: &'a mut Examination<'_>) -> BoxFuture<'a, Finding> {
    with_volume(examination, of_mount)
}

fn of_mount(survey: &Survey, volume: &ExaminedVolume, here: &LocalVolume, mount_root: &Path) -> Finding {
    let expected = mount_root.join(volume.id.to_string());
    if let Some(mount) = &here.flockers_mount {
        return Finding::ok(format!("Flocker has mounted it here, at {}", mount.display()));
    }
    let is_due = survey.this_node.is_some_and(|this| {
        let is_primary = volume
            .dataset
            .as_ref()
            .is_some_and(|dataset| dataset.primary == this.uuid && !dataset.deleted);
        is_primary && survey.snapshot.lists_node(this.uuid)
    });
    let states = survey.snapshot.states(volume.id);
    let reported = states
        .iter()
        .find(|state| state.primary.is_some_and(|node| survey.is_this_node(node)))
        .and_then(|state| state.path.as_ref());
    match reported {
        Some(path) if path.parent() != Some(mount_root) => Finding::error(format!(
            "Flocker has mounted it at {}, which is not in the mount_root {}",
            path.display(),
            mount_root.display()
        ))
        .next(format!(
            "set mount_root to {}, and restart the plugin",
            path.parent().unwrap_or(path).display()
        )),
        Some(path) => Finding::error(format!(
            "Flocker reports it as mounted at {} on this node, and this process sees no such mount: the node id is another \
             machine's, or the mounts of the host do not reach this process",
            path.display()
        ))
        .next("see what the checks node-identity and mount-propagation say"),
        None if is_due => Finding::error(format!(
            "this node shall have it, and Flocker's agent has not mounted it at {}",
            expected.display()
        ))
        .command("see in the log of the agent what it waits for", "journalctl -u flocker-dataset-agent -n 100"),
        None => Finding::ok("it is not mounted here, and need not be"),
    }
}

fn staged<'a>(examination: &'a mut Examination<'_>) -> BoxFuture<'a, Finding> {
    with_volume(examination, |_, volume, here, _| of_staged(volume, here))
}

fn of_staged(volume: &ExaminedVolume, here: &LocalVolume) -> Finding {
    if here.stagings.is_empty() {
        return Finding::ok("it is not staged here");
    }
    let describe = |state: StagingState| match state {
        StagingState::Staging => "a call to stage it has begun and is not complete",
        StagingState::Staged => "staged",
        StagingState::NotMounted => "its record says that it is staged, and it is not mounted",
        StagingState::NotRecorded => "it is mounted, and has no record",
        StagingState::ReleasePending => "it is unstaged, and its lease is still to be released",
        StagingState::EarlierBoot => "staged before the machine was started, and not since",
    };
    let seen = here.stagings.iter().map(|staging| {
        // A record is written when its state changes.
        let since = staging
            .since
            .map(|since| format!(" (recorded at {})", moment(since)));
        format!(
            "{}: {}{}",
            staging.path.display(),
            describe(staging.state),
            since.unwrap_or_default()
        )
    });
    let seen = seen.collect::<Vec<_>>().join("; ");
    let has = |wanted: StagingState| here.stagings.iter().any(|staging| staging.state == wanted);
    if has(StagingState::NotMounted) {
        return Finding::error(seen)
            .next("stop what uses the volume, unpublish and unstage it, and stage it again");
    }
    if has(StagingState::NotRecorded) {
        return Finding::warning(seen)
            .next("unstage it, and stage it again: state_dir may have been replaced");
    }
    if has(StagingState::Staging) {
        return Finding::warning(seen).next("see the phases above; the orchestrator repeats the call");
    }
    if has(StagingState::ReleasePending) {
        return Finding::warning(seen)
            .next("see that Flocker answers and that the plugin runs; it tries again by itself");
    }
    let ours = volume.mounts.iter().filter(|mount| !mount.is_flockers);
    let (uses, processes) = holders(ours.filter(|mount| !mount.holders.is_empty()));
    if here.targets.is_empty() && !processes.is_empty() {
        return Finding::warning(format!(
            "{seen}; it is published nowhere, and {}",
            uses.join("; ")
        ))
        .command("end what uses it: it cannot be unstaged before", kill(&processes));
    }
    Finding::ok(seen)
}

fn published<'a>(examination: &'a mut Examination<'_>) -> BoxFuture<'a, Finding> {
    with_volume(examination, |_, volume, here, _| {
        if here.targets.is_empty() {
            return Finding::ok("it is not published here");
        }
        let targets: Vec<_> = here
            .targets
            .iter()
            .map(|target| target.display().to_string())
            .collect();
        let at_target = |mount: &&VolumeMount| here.targets.contains(&mount.mount.point);
        let (uses, _) = holders(volume.mounts.iter().filter(at_target));
        let uses = if uses.is_empty() {
            "no process is seen that uses it".to_owned()
        } else {
            uses.join("; ")
        };
        Finding::ok(format!("at {}; {uses}", targets.join(", ")))
    })
}

fn file_system<'a>(examination: &'a mut Examination<'_>) -> BoxFuture<'a, Finding> {
    with_volume(examination, |_, volume, _, _| {
        let faulty = volume
            .mounts
            .iter()
            .find_map(|mount| Some((mount, mount.fault.as_ref()?)));
        match faulty {
            None if volume.mounts.is_empty() => Finding::skipped("it is not mounted here"),
            None => Finding::ok("the kernel reports no fault of its file system"),
            Some((mount, fault)) => of_fault(mount, fault),
        }
    })
}

fn of_fault(mount: &VolumeMount, fault: &FileSystemFault) -> Finding {
    let point = mount.mount.point.display();
    let finding = Finding::error(format!("{fault} (mounted at {point})"));
    match fault {
        FileSystemFault::ReadOnly => finding.command(
            "find out in the kernel's log (dmesg) why; after errors, repair it as docs/runbook.md says; if a person or a program made it \
             read-only, make it writable again",
            format!("mount -o remount,rw {point}"),
        ),
        FileSystemFault::Errors { .. } => finding.next("stop what uses it, and repair it with e2fsck as docs/runbook.md says"),
        FileSystemFault::ShutDown | FileSystemFault::DeviceMissing(_) => {
            finding.next("stop what uses it, unpublish and unstage the volume, and stage it again")
        }
    }
}
