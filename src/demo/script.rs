//! What the demo does, step by step, and how each step is undone.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::io::{self, Read, Write};
use std::path::PathBuf;

use csi_proto::v1::volume_usage::Unit;
use rand::RngCore;
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use super::screen::{Screen, Shown};
use super::site::{Place, Site};
use super::workplace::blocking;
use crate::config::PluginConfig;
use crate::volume::{VolumeName, size_text};

/// The name the orchestrator gives the volume.
const VOLUME: &str = "demo";
/// How large it is.
const VOLUME_SIZE: u64 = 128 << 20;
/// How much is written to it.
const DATA_SIZE: usize = 16 << 20;
/// The file that is written.
const FILE: &str = "data.bin";

/// The index of a node.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum At {
    First,
    Second,
}

/// One thing the demo does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Probe,
    Create,
    Attach(At),
    Stage(At),
    Publish(At),
    PublishReadOnly(At),
    Write(At),
    ReadBack(At),
    BeRefused(At),
    Stats(At),
    List,
    Unpublish(At),
    Unstage(At),
    Detach(At),
    Delete,
}

/// The life of a volume.
pub(super) const SCRIPT: [Step; 20] = [
    Step::Probe,
    Step::Create,
    Step::Attach(At::First),
    Step::Stage(At::First),
    Step::Publish(At::First),
    Step::Write(At::First),
    Step::Unpublish(At::First),
    Step::Unstage(At::First),
    Step::Detach(At::First),
    Step::Attach(At::Second),
    Step::Stage(At::Second),
    Step::PublishReadOnly(At::Second),
    Step::ReadBack(At::Second),
    Step::BeRefused(At::Second),
    Step::Stats(At::Second),
    Step::List,
    Step::Unpublish(At::Second),
    Step::Unstage(At::Second),
    Step::Detach(At::Second),
    Step::Delete,
];

impl Step {
    /// Returns the step that undoes this one; it may be taken however far this one has come.
    fn opposite(self) -> Option<Self> {
        match self {
            Self::Create => Some(Self::Delete),
            Self::Attach(at) => Some(Self::Detach(at)),
            Self::Stage(at) => Some(Self::Unstage(at)),
            Self::Publish(at) | Self::PublishReadOnly(at) => Some(Self::Unpublish(at)),
            Self::Probe
            | Self::Write(_)
            | Self::ReadBack(_)
            | Self::BeRefused(_)
            | Self::Stats(_)
            | Self::List
            | Self::Unpublish(_)
            | Self::Unstage(_)
            | Self::Detach(_)
            | Self::Delete => None,
        }
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::First => "node 1",
            Self::Second => "node 2",
        })
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Probe => f.write_str("probe both plugins"),
            Self::Create => write!(f, "create a volume of {}", size_text(VOLUME_SIZE)),
            Self::Attach(At::First) => write!(f, "attach it to {}", At::First),
            Self::Attach(At::Second) => write!(f, "move it to {}", At::Second),
            Self::Stage(at) => write!(f, "stage it on {at}"),
            Self::Publish(at) => write!(f, "publish it on {at}"),
            Self::PublishReadOnly(at) => write!(f, "publish it read-only on {at}"),
            Self::Write(at) => write!(f, "write {} of random data on {at}", size_text(DATA_SIZE as u64)),
            Self::ReadBack(at) => write!(f, "read the data back on {at}"),
            Self::BeRefused(at) => write!(f, "try to write on {at}, which has to be refused"),
            Self::Stats(at) => write!(f, "ask {at} how full it is"),
            Self::List => f.write_str("list all volumes"),
            Self::Unpublish(at) => write!(f, "unpublish it on {at}"),
            Self::Unstage(at) => write!(f, "unstage it on {at}"),
            Self::Detach(at) => write!(f, "detach it from {at}"),
            Self::Delete => f.write_str("delete it"),
        }
    }
}

/// The demo while it is played.
pub(super) struct Performance<'a> {
    site: &'a Site,
    screen: &'a mut Screen,
    interrupted: &'a CancellationToken,
    /// What undoes the steps that were begun, the last one at the end.
    to_undo: Vec<Step>,
    volume: String,
    context: HashMap<String, String>,
    checksum: String,
}

impl<'a> Performance<'a> {
    pub(super) fn new(site: &'a Site, screen: &'a mut Screen, interrupted: &'a CancellationToken) -> Self {
        Self {
            site,
            screen,
            interrupted,
            to_undo: Vec::new(),
            volume: String::new(),
            context: HashMap::new(),
            checksum: String::new(),
        }
    }

    /// Takes every step; returns what has been shown by that, or the first thing that went wrong.
    pub(super) async fn play(&mut self) -> Result<String, String> {
        // The id of a volume follows from its name, so that it can be undone however far its creation has come.
        let name = VolumeName::parse(VOLUME).map_err(|error| error.chain())?;
        self.volume = PluginConfig::default()
            .namespace()
            .dataset_id(&name, 0)
            .to_string();
        for (index, step) in SCRIPT.into_iter().enumerate() {
            let label = format!("step {:>2}/{}", index + 1, SCRIPT.len());
            self.to_undo.extend(step.opposite());
            let taken = self.take(&label, step).await;
            taken.map_err(|problem| format!("{label}, {step}: {problem}"))?;
            self.to_undo.retain(|undo| *undo != step);
        }
        Ok(format!(
            "{} written on {} were read back on {}: SHA-256 {}, there and here.",
            size_text(DATA_SIZE as u64),
            At::First,
            At::Second,
            self.checksum
        ))
    }

    async fn take(&mut self, label: &str, step: Step) -> Result<(), String> {
        let Self {
            site,
            screen,
            interrupted,
            volume,
            context,
            checksum,
            ..
        } = self;
        let mut acting = Acting {
            site,
            volume,
            context,
            checksum,
        };
        let work = async {
            match interrupted.run_until_cancelled(Box::pin(acting.act(step))).await {
                Some(Ok(remark)) => Shown {
                    outcome: Ok(()),
                    remark,
                },
                Some(Err(problem)) => Shown::of(Err(problem)),
                None => Shown {
                    outcome: Err("interrupted".to_owned()),
                    remark: "interrupted".to_owned(),
                },
            }
        };
        screen.show(label, &step.to_string(), work).await
    }

    /// Undoes what was done, and returns what could not be.
    pub(super) async fn undo(&mut self) -> Vec<String> {
        let mut problems = Vec::new();
        while let Some(step) = self.to_undo.pop() {
            let Self {
                site,
                screen,
                volume,
                context,
                checksum,
                ..
            } = self;
            let mut acting = Acting {
                site,
                volume,
                context,
                checksum,
            };
            let work = async { Shown::of(Box::pin(acting.act(step)).await) };
            if let Err(problem) = screen.show("undo", &step.to_string(), work).await {
                problems.push(format!("cannot {step}: {problem}"));
            }
        }
        problems
    }
}

/// What a step works with.
struct Acting<'a> {
    site: &'a Site,
    volume: &'a mut String,
    context: &'a mut HashMap<String, String>,
    checksum: &'a mut String,
}

impl Acting<'_> {
    /// Takes a step, and returns a remark about it.
    async fn act(&mut self, step: Step) -> Result<String, String> {
        match step {
            Step::Probe => {
                let name = self.at(At::First)?.orchestrator.probe().await?;
                self.at(At::Second)?.orchestrator.probe().await?;
                Ok(name)
            }
            Step::Create => {
                *self.volume = self
                    .at(At::First)?
                    .orchestrator
                    .create(VOLUME, VOLUME_SIZE)
                    .await?
                    .volume_id;
                Ok(self.volume.clone())
            }
            Step::Attach(at) => {
                let place = self.at(at)?;
                *self.context = place.orchestrator.attach(self.volume, place.node).await?;
                Ok(String::new())
            }
            Step::Stage(at) => {
                let place = self.at(at)?;
                place
                    .orchestrator
                    .stage(self.volume, self.context.clone(), &place.staging)
                    .await
                    .map(quietly)
            }
            Step::Publish(at) => self.publish(at, false).await,
            Step::PublishReadOnly(at) => self.publish(at, true).await,
            Step::Write(at) => self.write(at).await,
            Step::ReadBack(at) => self.read_back(at).await,
            Step::BeRefused(at) => self.be_refused(at).await,
            Step::Stats(at) => self.stats(at).await,
            Step::List => self.list().await,
            Step::Unpublish(at) => {
                let place = self.at(at)?;
                place
                    .orchestrator
                    .unpublish(self.volume, &place.target)
                    .await
                    .map(quietly)
            }
            Step::Unstage(at) => {
                let place = self.at(at)?;
                place
                    .orchestrator
                    .unstage(self.volume, &place.staging)
                    .await
                    .map(quietly)
            }
            Step::Detach(at) => {
                let place = self.at(at)?;
                place
                    .orchestrator
                    .detach(self.volume, place.node)
                    .await
                    .map(quietly)
            }
            Step::Delete => self
                .at(At::First)?
                .orchestrator
                .delete(self.volume)
                .await
                .map(quietly),
        }
    }

    async fn publish(&self, at: At, readonly: bool) -> Result<String, String> {
        let place = self.at(at)?;
        let context = self.context.clone();
        let publishing =
            place
                .orchestrator
                .publish(self.volume, context, &place.staging, &place.target, readonly);
        publishing.await.map(quietly)
    }

    async fn write(&mut self, at: At) -> Result<String, String> {
        let file = self.file(at)?;
        let written = blocking(move || {
            let mut data = vec![0; DATA_SIZE];
            rand::rng().fill_bytes(&mut data);
            let mut file = fs::File::create(file)?;
            file.write_all(&data)?;
            file.sync_all()?;
            Ok::<_, io::Error>(checksum(&data))
        });
        *self.checksum = written
            .await
            .map_err(|failure| failure.lines().join("; "))?
            .map_err(|error| error.to_string())?;
        Ok(format!("SHA-256 {}", beginning(self.checksum)))
    }

    async fn read_back(&self, at: At) -> Result<String, String> {
        let file = self.file(at)?;
        let read = blocking(move || {
            let mut data = Vec::with_capacity(DATA_SIZE);
            fs::File::open(file)?.read_to_end(&mut data)?;
            Ok::<_, io::Error>(checksum(&data))
        });
        let read = read
            .await
            .map_err(|failure| failure.lines().join("; "))?
            .map_err(|error| error.to_string())?;
        if read == *self.checksum {
            Ok(format!("SHA-256 {}", beginning(&read)))
        } else {
            Err(format!(
                "the SHA-256 was {} when the data were written, and is {read}",
                self.checksum
            ))
        }
    }

    async fn be_refused(&self, at: At) -> Result<String, String> {
        let file = self.file(at)?.with_extension("refused");
        let written = blocking(move || fs::write(file, b"x"))
            .await
            .map_err(|failure| failure.lines().join("; "))?;
        match written {
            Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => Ok(error.to_string()),
            Err(error) => Err(format!(
                "it failed, but not because the volume is read-only: {error}"
            )),
            Ok(()) => Err("the volume is published read-only, and could be written to".to_owned()),
        }
    }

    async fn stats(&self, at: At) -> Result<String, String> {
        let place = self.at(at)?;
        let usage = place.orchestrator.stats(self.volume, &place.target).await?;
        let bytes = usage.iter().find(|usage| usage.unit == i32::from(Unit::Bytes));
        let bytes = bytes.ok_or_else(|| "NodeGetVolumeStats told nothing about bytes".to_owned())?;
        let mib = |bytes: i64| bytes >> 20;
        Ok(format!(
            "{} MiB of {} MiB used",
            mib(bytes.used),
            mib(bytes.total)
        ))
    }

    async fn list(&self) -> Result<String, String> {
        let place = self.at(At::Second)?;
        let listed = place.orchestrator.list().await?;
        let expected = [(self.volume.clone(), vec![place.node.to_string()])];
        if listed == expected {
            Ok(format!("{} volume, attached to {}", listed.len(), At::Second))
        } else {
            Err(format!(
                "expected the one volume, attached to {} only, and found {listed:?}",
                At::Second
            ))
        }
    }

    fn at(&self, at: At) -> Result<&Place, String> {
        let index = match at {
            At::First => 0,
            At::Second => 1,
        };
        self.site
            .places
            .get(index)
            .ok_or_else(|| format!("there is no {at}"))
    }

    fn file(&self, at: At) -> Result<PathBuf, String> {
        Ok(self.at(at)?.target.join(FILE))
    }
}

fn quietly(_done: ()) -> String {
    String::new()
}

/// Returns as much of a checksum as people compare.
fn beginning(checksum: &str) -> String {
    format!("{}…", checksum.get(..16).unwrap_or(checksum))
}

/// Returns the SHA-256 of `data` as hexadecimal digits.
fn checksum(data: &[u8]) -> String {
    Sha256::digest(data)
        .iter()
        .fold(String::with_capacity(64), |mut text, byte| {
            // Writing to a string cannot fail.
            fmt::Write::write_fmt(&mut text, format_args!("{byte:02x}")).ok();
            text
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_played_to_its_end_leaves_nothing_to_undo() {
        let mut to_undo = Vec::new();
        for step in SCRIPT {
            to_undo.extend(step.opposite());
            to_undo.retain(|undo| *undo != step);
        }
        assert!(to_undo.is_empty());
    }

    #[test]
    fn at_every_step_what_was_begun_is_undone_in_reverse() {
        let mut to_undo: Vec<Step> = Vec::new();
        for step in SCRIPT {
            to_undo.extend(step.opposite());
            let order: Vec<_> = to_undo.iter().rev().map(Step::to_string).collect();
            let place = |name: &str| order.iter().position(|undo| undo.starts_with(name));
            let places: Vec<_> = ["unpublish", "unstage", "detach", "delete"]
                .into_iter()
                .filter_map(place)
                .collect();
            assert!(places.is_sorted(), "{order:?}");
            assert_eq!(places.len(), order.len(), "{order:?}");
            to_undo.retain(|undo| *undo != step);
        }
    }

    #[test]
    fn the_checksum_is_the_one_that_sha256sum_prints() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(checksum(b""), empty);
    }
}
