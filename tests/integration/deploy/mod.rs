//! Checks the files for Mesos and Marathon by the rules of the programs that read them.
//!
//! Each file is parsed to a type without unknown fields, so a typo fails; then the rules of its reader are applied: an
//! agent, its modules, Marathon, systemd, the plugin. [`together`] has the rules that span several files.

mod agent;
mod broken;
mod capability;
mod commands;
mod containers;
mod deleting;
mod example;
mod hardening;
mod marathon;
pub(crate) mod pages;
mod plugins;
mod profiles;
mod report;
mod settings;
mod systemd;
mod task;
mod tasks;
mod together;
mod tree;

use tree::Tree;

#[test]
fn every_file_for_mesos_and_marathon_keeps_the_rules_of_its_readers() {
    let (parsed, problems) = Tree::shipped().parse();
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    // Every file that the rules are for exists.
    let read = [
        parsed.providers.len(),
        parsed.plugins.len(),
        parsed.mappings.len(),
        parsed.modules.len(),
        parsed.flags.len(),
        parsed.settings.len(),
        parsed.units.len(),
        parsed.made.len(),
        parsed.tasks.len(),
        parsed.apps.len(),
    ];
    assert_eq!(read, [1, 2, 1, 1, 3, 2, 1, 1, 2, 3]);
}
