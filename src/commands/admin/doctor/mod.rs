//! `flocker-csi doctor`: what is wrong with the plugin, this machine or Flocker, and why a volume is stuck.
//!
//! There is one list of checks, in the order in which one depends on another; a file has those of one theme. `--check-config` makes
//! those of the configuration, `--check-config=deep` all but those of a volume.

mod certificates;
mod check;
mod control_service;
mod directories;
mod examination;
mod examined;
mod finding;
mod list;
mod machine;
mod node;
mod report;
mod settings;
mod volume;
mod volume_here;

use std::path::PathBuf;

use clap::Args;

use super::args::Format;
use crate::commands::failure::Failure;
use crate::commands::stdout::announce;
use crate::config::Config;
use examination::{Examination, Purpose};
use finding::Outcome;
use report::{Report, VolumeReport};

/// The arguments of `doctor`.
#[derive(Args, Debug)]
#[command(mut_arg("log", |log| log.default_value("warn")))]
pub struct DoctorArgs {
    /// The volume that is stuck: its id or its name.
    #[arg(value_name = "VOLUME")]
    volume: Option<String>,
    /// The format of the output: tables for people, or JSON whose schema is in docs/schemas.
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Table)]
    output: Format,
    /// Reads the settings from the plugin's configuration file.
    #[arg(id = "config", long = "config", value_name = "FILE")]
    file: Option<PathBuf>,
    /// The settings of the plugin.
    #[command(flatten)]
    pub(crate) config: Config,
    /// What is doubtful about how they were given; no setting.
    #[arg(skip)]
    pub(crate) doubts: Vec<String>,
}

/// Makes all checks, and prints what they found.
///
/// # Errors
/// [`Failure::Found`] unless all is well, or the output cannot be written.
pub async fn run(args: DoctorArgs) -> Result<(), Failure> {
    let mut examination = Examination::new(&args.config, &args.doubts, Purpose::Doctor);
    examination.asked_volume = args.volume.as_deref();
    let report = examine(&mut examination).await;
    report.show(args.output)?;
    found(&report)
}

/// Checks the settings, and the files and directories that they name; warnings are logged.
///
/// # Errors
/// [`Failure::Configuration`] with everything that is wrong.
pub async fn check_files(config: &Config, doubts: &[String]) -> Result<(), Failure> {
    let mut examination = Examination::new(config, doubts, Purpose::CheckFiles);
    let report = examine(&mut examination).await;
    let of = |outcome: Outcome| {
        let checks = report.checks.iter().filter(move |check| check.result == outcome);
        checks.map(|check| {
            let parts = [Some(&check.seen), check.next.as_ref(), check.command.as_ref()];
            parts
                .into_iter()
                .flatten()
                .cloned()
                .collect::<Vec<_>>()
                .join(": ")
        })
    };
    for warning in of(Outcome::Warning) {
        tracing::warn!("{warning}");
    }
    let wrong: Vec<_> = of(Outcome::Error).collect();
    if wrong.is_empty() {
        announce("the configuration is valid");
        announce(
            "not checked: Flocker, this machine's mounts and capabilities, and whether state_dir can be written; --check-config=deep \
             checks them too",
        );
        Ok(())
    } else {
        Err(Failure::Configuration(wrong))
    }
}

/// Makes all checks of a plugin that is yet to serve, and prints what they found.
///
/// # Errors
/// As [`run`].
pub async fn check_deep(config: &Config, doubts: &[String]) -> Result<(), Failure> {
    let mut examination = Examination::new(config, doubts, Purpose::CheckDeep);
    let report = examine(&mut examination).await;
    report.show(Format::Table)?;
    found(&report)
}

async fn examine(examination: &mut Examination<'_>) -> Report {
    let checks = check::make(list::all(), examination).await;
    let volume = examination
        .asked_volume
        .map(|asked| VolumeReport::of(asked, examination.volume.as_ref(), &checks));
    Report::of(checks, volume)
}

fn found(report: &Report) -> Result<(), Failure> {
    report.fault().map_or(Ok(()), |fault| Err(Failure::Found(fault)))
}
