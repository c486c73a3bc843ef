//! The state after everything was undone: nothing is left.

use std::fs;
use std::path::Path;

use tokio::time::{Instant, sleep};

use super::calls::NODES;
use super::case::Verdict;
use super::fixture::Fixture;
use super::random_faults::disks;
use crate::support::PATIENCE;
use crate::support::mounts::Mounts;
use crate::support::scratch::loop_devices_on;

impl Fixture {
    /// Checks that nothing is left when no volume exists any more, and removes the orchestrator's own directories.
    ///
    /// It waits for the work that Flocker does after an answer.
    pub(super) async fn nothing_is_left(&self) -> Verdict {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = self.left().await;
            if left.is_empty() {
                break;
            }
            if Instant::now() > deadline {
                return Err(format!(
                    "broken: nothing is left after everything was undone: {left:#?}"
                ));
            }
            sleep(std::time::Duration::from_millis(20)).await;
        }
        for machine in &self.machines {
            for staging in entries(&machine.path("staging")) {
                // It is not empty if something of the plugin is left in it.
                fs::remove_dir(&staging).map_err(|error| {
                    format!(
                        "broken: staging paths are left empty: {}: {error}",
                        staging.display()
                    )
                })?;
            }
        }
        Ok(())
    }

    async fn left(&self) -> Vec<String> {
        let seen = self.look().await;
        let mut left = Vec::new();
        let live = seen.configured.iter().filter(|dataset| !dataset.deleted);
        left.extend(live.map(|dataset| format!("{dataset:?}")));
        left.extend(seen.leases.iter().map(|lease| format!("lease {lease:?}")));
        let files = self.flocker.backing_files();
        left.extend(
            files
                .iter()
                .map(|file| format!("backing file {}", file.display())),
        );
        left.extend(seen.flockers.iter().map(|flockers| format!("{flockers:?}")));
        left.extend(
            loop_devices_on(self.flocker.path())
                .iter()
                .map(|device| format!("loop device {}", device.display())),
        );
        for node in 0..NODES {
            left.extend(self.left_on(node));
        }
        left
    }

    fn left_on(&self, node: usize) -> Vec<String> {
        let machine = &self.machines[node];
        let table = Mounts::read();
        let mut left: Vec<_> = table
            .below(&machine.path(""))
            .iter()
            .filter(|mount| !disks(machine).contains(&mount.point))
            .map(|mount| format!("{mount:?}"))
            .collect();
        let paths = [
            machine.records(),
            machine.devices(),
            entries(&machine.path("targets")),
            entries(&machine.config.node.state_dir.join("mounts")),
        ];
        left.extend(paths.iter().flatten().map(|path| path.display().to_string()));
        left
    }
}

fn entries(directory: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    entries.map(|entry| entry.unwrap().path()).collect()
}
