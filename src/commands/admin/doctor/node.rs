//! Which of Flocker's nodes this machine is, and whether its agent reports.

use futures::FutureExt;
use futures::future::BoxFuture;
use uuid::Uuid;

use super::super::survey::Survey;
use super::check::{Check, Subject};
use super::examination::Examination;
use super::finding::Finding;
use crate::commands::serve::parts::sources;
use crate::config::Config;
use crate::flocker::node_identity::{NodeEvidence, NodeIdentity};
use crate::host::{BOOT_ID_FILE, boot_id};
use crate::telemetry::spawn_blocking;

pub(super) const CHECKS: &[Check] = &[
    Check {
        name: "node-identity",
        subject: Subject::Node,
        needs: &["node-id-file", "control-service"],
        run: node_identity,
    },
    Check {
        name: "agent",
        subject: Subject::Node,
        needs: &["node-identity"],
        run: agent,
    },
];

/// The command that starts Flocker's agent.
const START_AGENT: &str = "systemctl restart flocker-dataset-agent";

fn node_identity<'a>(examination: &'a mut Examination<'_>) -> BoxFuture<'a, Finding> {
    let config = examination.config;
    async move {
        let Some(survey) = &examination.survey else {
            return Finding::skipped("Flocker was not read");
        };
        let Some(this) = survey.this_node else {
            let identity = NodeIdentity::new(sources(config), survey.cluster.clone());
            let why = identity.look_up().await.err().map(|error| error.chain());
            let why = why.unwrap_or_else(|| "it has just been found out; ask again".to_owned());
            return Finding::error(why).command(
                "start Flocker's agent on this machine, or set node_id",
                START_AGENT,
            );
        };
        match of_this_boot(survey).await {
            Ok(Some(named)) if named != this.uuid => another(survey, this.uuid, this.by, named, config),
            Ok(Some(named)) => Finding::ok(format!(
                "this machine is node {}: {}, and Flocker confirms it by the boot id",
                survey.named(named),
                this.by
            )),
            Ok(None) if !survey.snapshot.lists_node(this.uuid) => {
                Finding::ok(format!("this machine is node {}: {}", this.uuid, this.by))
            }
            Ok(None) => Finding::warning(format!(
                "{}, which is node {}, but no node has reported the boot id of this machine: it may be another machine's",
                this.by,
                survey.named(this.uuid)
            ))
            .command(
                "see whether Flocker's agent runs on this machine, and whose node that is",
                "systemctl status flocker-dataset-agent",
            ),
            Err(error) => Finding::warning(format!(
                "this machine is node {}: {}; Flocker could not be asked for its boot id: {error}",
                this.uuid, this.by
            )),
        }
    }
    .boxed()
}

/// Asks Flocker which node has reported the boot id of this machine.
async fn of_this_boot(survey: &Survey) -> Result<Option<Uuid>, String> {
    let era = spawn_blocking(|| boot_id(BOOT_ID_FILE.as_ref())).await;
    let era = era
        .map_err(|error| error.to_string())?
        .map_err(|error| error.to_string())?;
    let named = survey.cluster.node_by_era(era).await;
    named.map_err(|error| error.chain())
}

fn another(survey: &Survey, said: Uuid, by: NodeEvidence, named: Uuid, config: &Config) -> Finding {
    let finding = Finding::error(format!(
        "{by} as {}, but Flocker knows this machine, by its boot id, as node {}: the id is another machine's",
        survey.named(said),
        survey.named(named)
    ));
    let file = config.node.node_id_file.display();
    match by {
        NodeEvidence::Setting => finding.next(format!(
            "set node_id to {named}, or leave it out: Flocker is asked then; and restart the plugin"
        )),
        NodeEvidence::File => finding.command(
            "correct the file, and restart the plugin",
            format!("echo {named} > {file}"),
        ),
        _ => finding.next(format!("set node_id to {named}, and restart the plugin")),
    }
}

fn agent<'a>(examination: &'a mut Examination<'_>) -> BoxFuture<'a, Finding> {
    let finding = match &examination.survey {
        None => Finding::skipped("Flocker was not read"),
        Some(survey) => match survey.this_node {
            None => Finding::skipped("it is not known which node this machine is"),
            Some(this) if survey.snapshot.lists_node(this.uuid) => {
                Finding::ok(format!("node {} reports to Flocker", survey.named(this.uuid)))
            }
            Some(this) => Finding::error(format!(
                "Flocker does not list node {}, this machine: its agent has not reported for about two minutes; nothing is \
                 mounted or unmounted here until it does",
                this.uuid
            ))
            .command("start Flocker's agent on this machine", START_AGENT),
        },
    };
    async move { finding }.boxed()
}
