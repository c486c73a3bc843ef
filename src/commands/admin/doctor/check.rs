//! A check, and how it is made.

use std::time::Duration;

use futures::future::BoxFuture;
use tokio::time::timeout;

use super::examination::{Examination, Purpose};
use super::finding::{Finding, Outcome};
use super::report::CheckReport;

/// How long a check may take: longer than each of its own limits, so that it ends whatever hangs.
const LONGEST: Duration = Duration::from_secs(30);

/// One check.
pub(super) struct Check {
    pub(super) name: &'static str,
    /// What it is about, which decides when it is made.
    pub(super) subject: Subject,
    /// The checks without whose success it is not made.
    pub(super) needs: &'static [&'static str],
    pub(super) run: for<'a> fn(&'a mut Examination<'_>) -> BoxFuture<'a, Finding>,
}

/// What a check is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    /// The settings, and the files and directories that they name.
    Configuration,
    /// The same, of a plugin that serves a node.
    NodeConfiguration,
    /// This machine, for a plugin that serves a node.
    Node,
    /// The machine or Flocker, for every plugin.
    Any,
    /// The volume that is asked about.
    Volume,
}

impl Check {
    fn is_configuration(&self) -> bool {
        matches!(self.subject, Subject::Configuration | Subject::NodeConfiguration)
    }

    /// Whether it is made at all.
    fn is_asked_for(&self, examination: &Examination<'_>) -> bool {
        match examination.purpose {
            Purpose::CheckFiles => self.is_configuration(),
            Purpose::CheckDeep | Purpose::Doctor => {
                self.subject != Subject::Volume || examination.asked_volume.is_some()
            }
        }
    }

    /// Returns why it cannot be made, if it cannot.
    fn obstacle(&self, examination: &Examination<'_>, made: &[CheckReport]) -> Option<String> {
        let role = examination.config.mode;
        if matches!(self.subject, Subject::NodeConfiguration | Subject::Node) && !role.serves_node() {
            return Some(format!("the plugin serves no node with mode = {}", role.name()));
        }
        let unmet = |need: &&&str| {
            made.iter().any(|check| {
                check.name == **need && matches!(check.result, Outcome::Error | Outcome::Skipped)
            })
        };
        let need = self.needs.iter().find(unmet)?;
        Some(format!("it is not possible before {need} is ok"))
    }

    async fn report(&self, examination: &mut Examination<'_>, made: &[CheckReport]) -> CheckReport {
        let finding = match self.obstacle(examination, made) {
            Some(obstacle) => Finding::skipped(obstacle),
            None => timeout(LONGEST, (self.run)(examination))
                .await
                .unwrap_or_else(|_elapsed| {
                    Finding::error(format!(
                        "the check has not ended within {} s; a file system or a process hangs",
                        LONGEST.as_secs()
                    ))
                }),
        };
        CheckReport {
            name: self.name,
            result: finding.outcome,
            seen: finding.seen,
            next: finding.next,
            command: finding.command,
            is_configuration: self.is_configuration(),
            is_of_volume: self.subject == Subject::Volume,
        }
    }
}

/// Makes those of the checks that are asked for.
pub(super) async fn make(
    checks: impl Iterator<Item = &'static Check>,
    examination: &mut Examination<'_>,
) -> Vec<CheckReport> {
    let mut made = Vec::new();
    for check in checks {
        if check.is_asked_for(examination) {
            let report = check.report(examination, &made).await;
            made.push(report);
        }
    }
    made
}
