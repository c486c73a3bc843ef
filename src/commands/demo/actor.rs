//! Carries out the steps.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::io::{self, Read, Write};
use std::path::PathBuf;

use csi_proto::v1::volume_usage::Unit;
use rand::RngCore;
use sha2::{Digest, Sha256};

use super::cluster::{DemoCluster, DemoNode};
use super::script::{At, DATA_SIZE, Step, VOLUME, VOLUME_SIZE};
use super::workspace::blocking;
use crate::config::PluginConfig;
use crate::volume::{VolumeName, size_text};

/// The name of the file that the demo writes.
const FILE: &str = "data.bin";

/// Carries out steps on the cluster, and keeps the values that an orchestrator keeps between its calls.
pub(super) struct Actor<'a> {
    cluster: &'a DemoCluster,
    /// The id of the volume.
    volume: String,
    /// The publish context of the latest attachment.
    context: HashMap<String, String>,
    /// The checksum of the written data.
    checksum: String,
}

impl<'a> Actor<'a> {
    pub(super) fn new(cluster: &'a DemoCluster) -> Self {
        // The id of a volume follows from its name, so the volume can be deleted however far its creation got.
        let name = VolumeName::parse(VOLUME).expect("the name is one that CSI allows");
        let volume = PluginConfig::default()
            .namespace()
            .dataset_id(&name, 0)
            .to_string();
        Self {
            cluster,
            volume,
            context: HashMap::new(),
            checksum: String::new(),
        }
    }

    /// Returns what the demo has shown once every step succeeded.
    pub(super) fn conclusion(&self) -> String {
        format!(
            "{} written on {} were read back on {}: the same SHA-256, {}.",
            size_text(DATA_SIZE as u64),
            At::First,
            At::Second,
            self.checksum
        )
    }

    /// Carries out a step, and returns a remark about it.
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
                "the write failed, but not because the volume is read-only: {error}"
            )),
            Ok(()) => Err("the volume is published read-only, but accepted a write".to_owned()),
        }
    }

    async fn stats(&self, at: At) -> Result<String, String> {
        let place = self.at(at)?;
        let usage = place.orchestrator.stats(&self.volume, &place.target).await?;
        let bytes = usage.iter().find(|usage| usage.unit == i32::from(Unit::Bytes));
        let bytes = bytes.ok_or_else(|| "NodeGetVolumeStats reported no bytes".to_owned())?;
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
                "expected one volume, attached to {} only, and found {listed:?}",
                At::Second
            ))
        }
    }

    fn at(&self, at: At) -> Result<&DemoNode, String> {
        let index = match at {
            At::First => 0,
            At::Second => 1,
        };
        self.cluster
            .nodes
            .get(index)
            .ok_or_else(|| format!("{at} does not exist"))
    }

    fn file(&self, at: At) -> Result<PathBuf, String> {
        Ok(self.at(at)?.target.join(FILE))
    }
}

fn quietly(_done: ()) -> String {
    String::new()
}

/// Returns the first characters of a checksum, as many as people compare.
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
