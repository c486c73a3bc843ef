//! What is shipped for Mesos and Marathon, held to the rules that those apply.
//!
//! Each file is read by a type that has no room for unknown fields, so that a typo fails; then by the rules of whoever
//! reads it: an agent, its modules, Marathon, systemd, the plugin. [`together`] is about what spans files.

mod agent;
mod broken;
mod capability;
mod commands;
mod containers;
mod example;
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
    // What the rules are for is there.
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
