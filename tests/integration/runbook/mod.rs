//! Every command of `docs/runbook.md`, taken from the page and run.

mod page;
mod scenes;
mod stand_ins;

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use crate::devices::{ext4_of, stop_on_errors, sync};
use crate::support::mounts::only_mount_at;
use crate::support::namespace::{in_own_namespace, in_own_namespace_for};
use crate::support::scratch::Scratch;
use crate::support::standalone::Standalone;
use page::commands;
use scenes::{Expected, NOT_RUN, RUN, Scene};

#[test]
fn every_command_of_the_runbook_is_run_or_listed_with_a_reason() {
    let known: Vec<&str> = RUN
        .iter()
        .map(|(command, _)| *command)
        .chain(NOT_RUN.iter().map(|(command, _)| *command))
        .collect();
    let on_page = commands();
    for command in &on_page {
        assert!(
            known.contains(&command.as_str()),
            "{command:?} of docs/runbook.md is neither run by a test nor listed with a reason"
        );
    }
    let unique: BTreeSet<_> = known.iter().collect();
    assert_eq!(unique.len(), known.len(), "each is listed once");
    for command in known {
        assert!(
            on_page.iter().any(|one| one == command),
            "{command:?} is not on docs/runbook.md"
        );
    }
}

#[test]
fn the_runbook_has_at_most_four_pages() {
    let words = page::PAGE.split_whitespace().count();
    assert!(words <= 4 * 550, "{words} words");
}

#[test]
fn the_commands_of_the_runbook_do_what_the_page_says() {
    in_own_namespace_for(std::time::Duration::from_secs(300), || async {
        let mut scene = Scene::start().await;
        for (command, expected) in RUN {
            match expected {
                Expected::Output(part) => scene.prints(command, part).await,
                Expected::InLog(text) => scene.looks_for(command, text).await,
                Expected::StandIn => scene.is_accepted(command).await,
                Expected::Marathon => scene.scales_down(command).await,
                Expected::InItsScene => {}
            }
        }
        scene.releases_the_lease_of_a_dead_node().await;
        scene.repairs_a_file_system().await;
        scene.stop().await;
    });
}

/// As the page describes it for a plugin whose Flocker is in the same process.
#[test]
fn the_file_system_of_a_standalone_plugin_is_repaired_in_its_file() {
    in_own_namespace(|| async {
        let standalone = Standalone::start(Scratch::new()).await;
        let usage = standalone.published("data").await;
        fs::write(usage.target.join("precious"), "data").unwrap();
        assert!(sync(&usage.target));
        stop_on_errors(&standalone.flockers(&usage));
        let device = only_mount_at(&usage.target).device;
        fs::write(ext4_of(&device).join("trigger_fs_error"), "damaged on purpose").unwrap();
        standalone.csi().unpublish(&usage).await.unwrap();
        standalone.csi().unstage(&usage).await.unwrap();

        let Standalone { process, scratch } = standalone;
        process.terminate().await;
        let file = scratch.path().join("data/volumes").join(&usage.volume_id);
        for mode in ["-n", "-y"] {
            let checked = Command::new("e2fsck")
                .args(["-f", mode])
                .arg(&file)
                .output()
                .unwrap();
            let expected: &[i32] = if mode == "-n" { &[0, 4] } else { &[0, 1] };
            assert!(expected.contains(&checked.status.code().unwrap()), "{checked:?}");
        }
        let standalone = Standalone::start(scratch).await;
        standalone.csi().stage(&usage).await.unwrap();
        standalone.csi().publish(&usage).await.unwrap();
        assert_eq!(fs::read_to_string(usage.target.join("precious")).unwrap(), "data");
        fs::write(usage.target.join("after"), "writable again").unwrap();
        let condition = standalone
            .csi()
            .stats(&usage)
            .await
            .unwrap()
            .volume_condition
            .unwrap();
        assert!(!condition.abnormal, "{}", condition.message);
        standalone.csi().unpublish(&usage).await.unwrap();
        standalone.csi().unstage(&usage).await.unwrap();
        standalone.process.terminate().await;
    });
}

#[test]
fn the_programs_that_are_stood_in_for_have_the_options_of_the_page() {
    stand_ins::check_against_real_programs();
}
