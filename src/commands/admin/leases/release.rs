//! `flocker-csi leases release`: takes a lease from a node that no longer uses it.
//!
//! A lease is what keeps a volume from being written by two nodes, so a release needs proof: the node is gone, or the
//! operator says that it does not use the volume. What is in use on this machine is known, and is never released.

use std::io::{BufRead, IsTerminal};
use std::time::Duration;

use serde::Serialize;
use uuid::Uuid;

use super::holder::{Presence, wait_until_gone};
use crate::commands::admin::args::{AdminArgs, Format};
use crate::commands::admin::output::show_json;
use crate::commands::admin::survey::{NodeRef, Survey};
use crate::commands::failure::Failure;
use crate::commands::stdout::{print, remark};
use crate::flocker::cluster::{self, Lists};
use crate::host::{LocalDirectories, LocalView};
use crate::telemetry::spawn_blocking;

/// One release.
pub(super) struct Release {
    pub(super) dataset: Uuid,
    /// The node that is said to hold the lease.
    pub(super) node: Uuid,
    pub(super) force: bool,
    pub(super) yes: bool,
    /// How long a node has to be missing to count as gone.
    pub(super) grace: Duration,
}

/// How a release ended.
#[derive(Serialize)]
struct Released {
    volume: Uuid,
    name: Option<String>,
    node: NodeRef,
    outcome: &'static str,
}

impl Release {
    /// Releases the lease.
    ///
    /// # Errors
    /// It is not released, or that is not known.
    pub(super) async fn run(self, survey: &Survey, args: &AdminArgs) -> Result<(), Failure> {
        let (volume, node) = (survey.volume(self.dataset), survey.named(self.node));
        match survey.snapshot.lease(self.dataset) {
            Ok(None) => return self.ended(survey, args.output, "not-held"),
            Ok(Some(lease)) if lease.node_uuid != self.node => {
                let holder = survey.named(lease.node_uuid);
                return refused(format!(
                    "the lease on volume {volume} is not held by node {node}, but by node {holder}"
                ));
            }
            Ok(Some(_)) => {}
            Err(unreadable) if self.force => remark(unreadable.chain()),
            Err(unreadable) => return refused(unreadable.chain()),
        }
        self.refuse_if_used_here(survey, args.directories()).await?;
        let presence = Presence::of(&survey.snapshot, self.node);
        if !self.force {
            Self::refuse_if_present(presence, &volume, &node)?;
        }
        self.show(survey, presence);
        self.ask(&volume, &node).await?;
        if !self.force {
            let gone = wait_until_gone(&survey.cluster, self.node, self.grace).await;
            gone.or_else(|why| refused(format!("the lease on volume {volume} is not released: {why}")))?;
        }
        // Again: the operator has had time.
        self.refuse_if_used_here(survey, args.directories()).await?;
        self.release(survey, args.output, &volume, &node).await
    }

    async fn release(
        &self,
        survey: &Survey,
        output: Format,
        volume: &str,
        node: &str,
    ) -> Result<(), Failure> {
        let readable = survey.snapshot.lease(self.dataset).is_ok();
        let held = survey
            .cluster
            .release_lease_of(self.dataset, readable.then_some(self.node))
            .await;
        let held = held.map_err(|error| Failure::of(&error))?;
        let after = survey.cluster.fresh(Lists::LEASES).await;
        let after = after.map_err(|error| {
            let doing = format!("see whether the lease of node {node} on volume {volume} is released");
            Failure::context(doing, &error)
        })?;
        match after.lease(self.dataset) {
            Ok(Some(lease)) if lease.node_uuid == self.node => refused(format!(
                "the lease on volume {volume} was released, and node {node} has acquired it again: its plugin runs, and uses the \
                 volume; stop what uses it there first"
            )),
            Ok(Some(lease)) => {
                remark(format_args!(
                    "node {} has acquired the lease since",
                    survey.named(lease.node_uuid)
                ));
                self.ended(survey, output, "released")
            }
            Err(unreadable) => Err(Failure::of(&unreadable)),
            Ok(None) if held == cluster::Release::Released => self.ended(survey, output, "released"),
            Ok(None) => self.ended(survey, output, "not-held"),
        }
    }

    /// Refuses where a record or a mount of this machine needs the lease.
    ///
    /// A volume that is in use here under the lease of another node needs none of that node.
    async fn refuse_if_used_here(
        &self,
        survey: &Survey,
        directories: LocalDirectories,
    ) -> Result<(), Failure> {
        let (dataset, node) = (self.dataset, self.node);
        let may_be_here = survey.this_node.is_none_or(|this| this.uuid == node);
        let search = move || {
            let local = LocalView::read(directories).map_err(|error| error.chain())?;
            let of_node = local
                .of(dataset)
                .stagings
                .iter()
                .any(|staging| staging.node == Some(node));
            Ok::<_, String>(if may_be_here || of_node {
                local.use_of(dataset)
            } else {
                None
            })
        };
        let found = spawn_blocking(search).await;
        let found = found.map_err(|error| Failure::context("find out what uses the volume here", &error))?;
        let volume = survey.volume(dataset);
        match found {
            Ok(None) => Ok(()),
            Ok(Some(used)) => refused(format!(
                "the lease on volume {volume} is in use on this machine: {used}; stop the task that uses it, and let its \
                 orchestrator unpublish and unstage it. --force does not change that"
            )),
            Err(_) if !may_be_here => Ok(()),
            Err(error) => refused(format!(
                "it is not known whether the lease on volume {volume} is in use on this machine: {error}"
            )),
        }
    }

    /// Refuses where the node may be running.
    fn refuse_if_present(presence: Presence, volume: &str, node: &str) -> Result<(), Failure> {
        match presence {
            Presence::Missing => Ok(()),
            Presence::Listed => refused(format!(
                "the lease on volume {volume} is not released: its node {node} reports to Flocker, so a task there may be \
                 writing. Stop the task there, and its plugin releases the lease; or, if nothing there uses the volume, add \
                 --force"
            )),
            Presence::Unknown => refused(format!(
                "the lease on volume {volume} is not released: it is not known whether its node {node} runs, because Flocker \
                 lists no node, or some that cannot be read. Try again in a minute; or, if that machine is off, add --force"
            )),
        }
    }

    /// Shows what depends on the lease.
    fn show(&self, survey: &Survey, presence: Presence) {
        let snapshot = &survey.snapshot;
        remark(format_args!("volume {}", survey.volume(self.dataset)));
        let listed = match presence {
            Presence::Listed => "Flocker lists it: a task there may be writing",
            Presence::Missing | Presence::Unknown => "if it only lost its network, its tasks still write",
        };
        remark(format_args!(
            "its lease is held by node {}; {listed}",
            survey.named(self.node)
        ));
        let mut mounted: Vec<_> = snapshot
            .states(self.dataset)
            .iter()
            .filter_map(|state| state.primary)
            .collect();
        mounted.dedup();
        if mounted.is_empty() {
            remark("no node reports it as mounted");
        }
        for node in mounted {
            remark(format_args!(
                "Flocker reports it as mounted on node {}",
                survey.named(node)
            ));
        }
        remark("Flocker does not fence: without the lease, another node may get the volume and write to it");
    }

    async fn ask(&self, volume: &str, node: &str) -> Result<(), Failure> {
        if self.yes {
            return Ok(());
        }
        if !std::io::stdin().is_terminal() {
            let text = "the standard input is no terminal on which to ask: add --yes to release the lease without asking";
            return Err(Failure::configuration(text));
        }
        let question = format!("Release the lease of node {node} on volume {volume}? [y/N] ");
        let answer = spawn_blocking(move || {
            print(&question)?;
            let mut line = String::new();
            let read = std::io::stdin().lock().read_line(&mut line);
            read.map_err(|error| Failure::context("read the answer", &error))?;
            Ok::<_, Failure>(line)
        });
        let answer = answer.await.map_err(|error| Failure::context("ask", &error))??;
        if ["y", "yes"].contains(&answer.trim().to_lowercase().as_str()) {
            Ok(())
        } else {
            refused("nothing was released".to_owned())
        }
    }

    fn ended(&self, survey: &Survey, output: Format, outcome: &'static str) -> Result<(), Failure> {
        let (volume, node) = (survey.volume(self.dataset), survey.named(self.node));
        match output {
            Format::Table if outcome == "released" => {
                print(&format!("released the lease of node {node} on volume {volume}\n"))
            }
            Format::Table => print(&format!("no node holds a lease on volume {volume}\n")),
            Format::Json => show_json(&Released {
                volume: self.dataset,
                name: survey.name_of(self.dataset),
                node: survey.node(self.node),
                outcome,
            }),
        }
    }
}

fn refused<T>(text: String) -> Result<T, Failure> {
    Err(Failure::Refused(vec![text]))
}
