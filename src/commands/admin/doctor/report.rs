//! What the checks found, and how it is printed.

use serde::Serialize;
use uuid::Uuid;

use super::super::args::Format;
use super::super::output::{moment, show_json};
use super::super::table::{Cell, Meaning, Table, colour};
use super::examined::ExaminedVolume;
use super::finding::Outcome;
use crate::commands::failure::{Failure, FoundFault};
use crate::commands::stdout::{print, printable};
use crate::host::StagingState;

/// A check with its result.
#[derive(Debug, Serialize)]
pub(super) struct CheckReport {
    pub(super) name: &'static str,
    pub(super) result: Outcome,
    pub(super) seen: String,
    pub(super) next: Option<String>,
    pub(super) command: Option<String>,
    /// Whether it is about the settings, or the files that they name.
    #[serde(skip)]
    pub(super) is_configuration: bool,
    /// Whether it is about the volume that is asked about.
    #[serde(skip)]
    pub(super) is_of_volume: bool,
}

/// The volume in the report.
#[derive(Debug, Serialize)]
pub(super) struct VolumeReport {
    id: Option<Uuid>,
    name: Option<String>,
    /// The phase with the first fault.
    stuck_in: Option<&'static str>,
    /// Since when a call for it has been running on this machine, or has been over without its lease released.
    since: Option<String>,
    why: Option<String>,
    #[serde(skip)]
    label: String,
}

/// All checks.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) result: Outcome,
    pub(super) checks: Vec<CheckReport>,
    pub(super) volume: Option<VolumeReport>,
}

impl Report {
    pub(super) fn of(checks: Vec<CheckReport>, volume: Option<VolumeReport>) -> Self {
        let worst = checks.iter().map(|check| check.result).max();
        Self {
            // What is skipped is so because of an error, or rightly.
            result: worst.unwrap_or(Outcome::Ok).max(Outcome::Ok),
            checks,
            volume,
        }
    }

    /// Returns the worst fault, which decides the exit status.
    pub(super) fn fault(&self) -> Option<FoundFault> {
        let faults = self.checks.iter().filter_map(|check| match check.result {
            Outcome::Error if check.is_configuration => Some(FoundFault::Configuration),
            Outcome::Error => Some(FoundFault::Fault),
            Outcome::Warning => Some(FoundFault::Warning),
            Outcome::Skipped | Outcome::Ok => None,
        });
        faults.max()
    }

    /// Prints the report.
    ///
    /// # Errors
    /// The standard output cannot be written.
    pub(super) fn show(&self, format: Format) -> Result<(), Failure> {
        match format {
            Format::Json => show_json(self),
            Format::Table => print(&self.text(colour())),
        }
    }

    fn text(&self, colour: bool) -> String {
        let mut table = Table::new(&["CHECK", "RESULT", "SEEN"]);
        for check in &self.checks {
            let (name, meaning) = match check.result {
                Outcome::Skipped => ("skipped", Meaning::Plain),
                Outcome::Ok => ("ok", Meaning::Plain),
                Outcome::Warning => ("warning", Meaning::Warning),
                Outcome::Error => ("error", Meaning::Fault),
            };
            table.add(vec![
                check.name.into(),
                Cell::with(name, meaning),
                check.seen.clone().into(),
            ]);
        }
        let mut text = table.render(colour);
        if let Some(volume) = &self.volume {
            text.push('\n');
            text.push_str(&printable(&volume.sentence()));
            text.push('\n');
        }
        let steps: Vec<_> = self.checks.iter().filter_map(CheckReport::step).collect();
        if !steps.is_empty() {
            text.push_str("\nWhat to do:\n");
            text.push_str(&steps.concat());
        }
        text
    }
}

impl VolumeReport {
    /// Returns what the checks say of a volume as a whole.
    pub(super) fn of(asked: &str, volume: Option<&ExaminedVolume>, checks: &[CheckReport]) -> Self {
        let phases = || checks.iter().filter(|check| check.is_of_volume);
        let first = |outcome| phases().find(|check| check.result == outcome);
        let stuck = first(Outcome::Error).or_else(|| first(Outcome::Warning));
        let in_progress = [StagingState::Staging, StagingState::ReleasePending];
        let since = volume.and_then(|volume| volume.staging_in(&in_progress)?.since);
        Self {
            id: volume.map(|volume| volume.id),
            name: volume.and_then(|volume| volume.name.clone()),
            stuck_in: stuck.map(|check| check.name),
            since: since.map(moment).filter(|_| stuck.is_some()),
            why: stuck.map(|check| check.seen.clone()),
            label: volume.map_or_else(|| format!("{asked:?}"), |volume| volume.label.clone()),
        }
    }

    pub(super) fn sentence(&self) -> String {
        let Self {
            label,
            stuck_in,
            since,
            why,
            ..
        } = self;
        match (stuck_in, why) {
            (Some(phase), Some(why)) => {
                let since = since.as_ref().map(|since| format!(" since {since}"));
                format!(
                    "Volume {label} is stuck in {phase}{}: {why}",
                    since.unwrap_or_default()
                )
            }
            _ => format!("Volume {label} is not seen to be stuck."),
        }
    }
}

impl CheckReport {
    fn step(&self) -> Option<String> {
        let next = self.next.as_ref()?;
        let command = self.command.as_ref();
        let command = command.map(|command| format!("    {}\n", printable(command)));
        let end = if command.is_some() { ":" } else { "" };
        Some(format!(
            "  {}: {}{end}\n{}",
            self.name,
            printable(next),
            command.unwrap_or_default()
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Finding;
    use super::*;

    fn check(name: &'static str, finding: Finding, is_configuration: bool) -> CheckReport {
        CheckReport {
            name,
            result: finding.outcome,
            seen: finding.seen,
            next: finding.next,
            command: finding.command,
            is_configuration,
            is_of_volume: false,
        }
    }

    #[test]
    fn the_worst_fault_decides_and_a_wrong_configuration_is_the_worst() {
        let fine = || check("a", Finding::ok("fine"), true);
        let skipped = || check("b", Finding::skipped("no"), false);
        let doubtful = || check("c", Finding::warning("hm"), true);
        let broken = || check("d", Finding::error("broken"), false);
        let wrong = || check("e", Finding::error("wrong"), true);
        for (checks, fault) in [
            (vec![fine(), skipped()], None),
            (vec![fine(), doubtful(), skipped()], Some(FoundFault::Warning)),
            (vec![broken(), doubtful()], Some(FoundFault::Fault)),
            (
                vec![wrong(), broken(), doubtful()],
                Some(FoundFault::Configuration),
            ),
        ] {
            assert_eq!(Report::of(checks, None).fault(), fault);
        }
        assert_eq!(Report::of(vec![skipped()], None).result, Outcome::Ok);
    }

    #[test]
    fn a_text_has_the_checks_and_then_what_to_do() {
        let checks = vec![
            check("clock", Finding::ok("right"), false),
            check(
                "tcp",
                Finding::error("refused").command("start it", "systemctl start x"),
                false,
            ),
            check("log", Finding::warning("odd\nname").next("leave it out"), true),
        ];
        let lines = [
            "CHECK  RESULT   SEEN",
            "clock  ok       right",
            "tcp    error    refused",
            "log    warning  odd\\nname",
            "",
            "What to do:",
            "  tcp: start it:",
            "    systemctl start x",
            "  log: leave it out",
        ];
        let text = Report::of(checks, None).text(false);
        assert_eq!(text.lines().collect::<Vec<_>>(), lines);
    }
}
