//! How each step is taken.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::io::{self, Read, Write};
use std::path::PathBuf;

use csi_proto::v1::volume_usage::Unit;
use rand::RngCore;
use sha2::{Digest, Sha256};

use super::script::{At, DATA_SIZE, Step, VOLUME, VOLUME_SIZE};
use super::site::{Place, Site};
use super::workplace::blocking;
use crate::config::PluginConfig;
use crate::volume::{VolumeName, size_text};

/// The file that is written.
const FILE: &str = "data.bin";

/// Takes the steps on a site, and remembers from one to the next what an orchestrator has to.
pub(super) struct Actor<'a> {
    site: &'a Site,
    /// The id of the volume.
    volume: String,
    /// What its last attachment told the node.
    context: HashMap<String, String>,
    /// The checksum of what was written.
    checksum: String,
}

impl<'a> Actor<'a> {
    pub(super) fn new(site: &'a Site) -> Self {
        // The id of a volume follows from its name, so that it can be deleted however far its creation has come.
        let name = VolumeName::parse(VOLUME).expect("the name is one that CSI allows");
        let volume = PluginConfig::default()
            .namespace()
            .dataset_id(&name, 0)
            .to_string();
        Self {
            site,
            volume,
            context: HashMap::new(),
            checksum: String::new(),
        }
    }

    /// Tells what has been shown when every step was taken.
    pub(super) fn conclusion(&self) -> String {
        format!(
            "{} written on {} were read back on {}: SHA-256 {}, there and here.",
            size_text(DATA_SIZE as u64),
            At::First,
            At::Second,
            self.checksum
        )
    }

    /// Takes a step, and returns a remark about it.
    pub(super) async fn act(&mut self, step: Step) -> Result<String, String> {
        match step {
            Step::Probe => {
                let name = self.at(At::First)?.orchestrator.probe().await?;
                self.at(At::Second)?.orchestrator.probe().await?;
                Ok(name)
            }
            Step::Create => {
                self.volume = self
                    .at(At::First)?
                    .orchestrator
                    .create(VOLUME, VOLUME_SIZE)
                    .await?
                    .volume_id;
                Ok(self.volume.clone())
            }
            Step::Attach(at) => {
                let place = self.at(at)?;
                self.context = place.orchestrator.attach(&self.volume, place.node).await?;
                Ok(String::new())
            }
            Step::Stage(at) => {
                let place = self.at(at)?;
                place
                    .orchestrator
                    .stage(&self.volume, self.context.clone(), &place.staging)
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
                    .unpublish(&self.volume, &place.target)
                    .await
                    .map(quietly)
            }
            Step::Unstage(at) => {
                let place = self.at(at)?;
                place
                    .orchestrator
                    .unstage(&self.volume, &place.staging)
                    .await
                    .map(quietly)
            }
            Step::Detach(at) => {
                let place = self.at(at)?;
                place
                    .orchestrator
                    .detach(&self.volume, place.node)
                    .await
                    .map(quietly)
            }
            Step::Delete => self
                .at(At::First)?
                .orchestrator
                .delete(&self.volume)
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
                .publish(&self.volume, context, &place.staging, &place.target, readonly);
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
        self.checksum = written
            .await
            .map_err(|failure| failure.lines().join("; "))?
            .map_err(|error| error.to_string())?;
        Ok(format!("SHA-256 {}", beginning(&self.checksum)))
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
        if read == self.checksum {
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
        let usage = place.orchestrator.stats(&self.volume, &place.target).await?;
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
    fn the_checksum_is_the_one_that_sha256sum_prints() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(checksum(b""), empty);
    }
}
