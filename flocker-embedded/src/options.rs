//! The settings: where to listen, where the data is, how many nodes, how fast.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use uuid::Uuid;

use crate::Error;
use crate::faults::FaultPlan;

/// The largest number of nodes of one process: node N reports the host address `127.0.0.N`.
pub const MAX_NODES: usize = 254;

/// The default of [`Options::deleted_listed_for`].
const DELETED_LISTED_FOR: Duration = Duration::from_secs(3600);

/// Settings of an [`Embedded`](crate::Embedded) Flocker. Start from [`Options::new`] with struct update syntax, so
/// that a setting added later gets its default.
#[derive(Clone, Debug)]
pub struct Options {
    /// Address of the REST API, IPv4 or IPv6. Port 0 selects any free port.
    pub listen: SocketAddr,
    /// Directory of everything that must survive a restart: configuration, keys, backing files, mount points. It is
    /// created if it does not exist, and used by one process at a time.
    pub data_dir: PathBuf,
    /// Number of nodes on this host, from 1 to [`MAX_NODES`].
    pub nodes: usize,
    /// How long the agents wait between their steps.
    pub timing: Timing,
    /// Total capacity of all volumes in bytes. `None`: what the file system of `data_dir` has free at start, plus
    /// what the backing files occupy already.
    pub capacity: Option<u64>,
    /// Whether a volume's storage is taken when it is made, or as it is written.
    pub allocation: Allocation,
    /// Whether volumes are read and written through the page cache of the file system that has them.
    pub io: Io,
    /// Directory for the client's files: `cluster.crt`, `plugin.crt`, `plugin.key`, `node-N.id`.
    pub certificates: PathBuf,
    /// The X.509 version of all certificates.
    pub certificate_profile: CertificateProfile,
    /// Eras (boot ids) that `by_era` finds, by node number, counted from 1. A single node also has this machine's
    /// boot id.
    pub eras: BTreeMap<usize, Uuid>,
    /// How long a silent node stays listed. `None`: 120 s as on a real cluster, and proportionally less at
    /// [`Timing::Shortened`].
    pub node_expiry: Option<Duration>,
    /// Whether a backing file is attached for a node although the device of the node that has detached it is still in use,
    /// as Flocker's loopback backend does it, and no backend with exclusive attachments. For tests.
    pub double_attach: bool,
    /// How long a deleted dataset stays in the list of a client that knows the extension `tombstones`, at least. It is
    /// listed until its volume is destroyed in any case; all other clients get all deleted datasets permanently.
    pub deleted_listed_for: Duration,
    /// The faults to inject from the start; none by default.
    pub faults: FaultPlan,
}

impl Options {
    /// Returns settings for one node without delays, on any free port of `127.0.0.1`, with certificates as Flocker
    /// creates them.
    pub fn new(data_dir: impl Into<PathBuf>, certificates: impl Into<PathBuf>) -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            data_dir: data_dir.into(),
            nodes: 1,
            timing: Timing::Instant,
            capacity: None,
            allocation: Allocation::Thick,
            io: Io::Direct,
            certificates: certificates.into(),
            certificate_profile: CertificateProfile::V1,
            eras: BTreeMap::new(),
            node_expiry: None,
            double_attach: false,
            deleted_listed_for: DELETED_LISTED_FOR,
            faults: FaultPlan::default(),
        }
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.nodes == 0 || self.nodes > MAX_NODES {
            return Err(Error::Options(format!(
                "{} nodes are configured; one process runs 1 to {MAX_NODES}",
                self.nodes
            )));
        }
        if let Some(number) = self
            .eras
            .keys()
            .find(|number| **number == 0 || **number > self.nodes)
        {
            return Err(Error::Options(format!(
                "node {number} has an era but does not exist; the nodes are numbered 1 to {}",
                self.nodes
            )));
        }
        let eras: BTreeSet<_> = self.eras.values().collect();
        if eras.len() < self.eras.len() {
            return Err(Error::Options("two nodes have the same era".to_owned()));
        }
        if self.timing == Timing::Shortened(0) {
            return Err(Error::Options(
                "the delays cannot be divided by 0; use a factor of at least 1".to_owned(),
            ));
        }
        self.faults.check(self.nodes).map_err(Error::Options)
    }
}

/// How long the agents wait between their steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Timing {
    /// No delays except before retries.
    Instant,
    /// The delays of Flocker's own agents: a new dataset is mounted after about six seconds and reported after about
    /// sixteen.
    Stock,
    /// The same delays divided by a number: everything happens in the same order and proportions, in less time.
    Shortened(u32),
}

/// When the storage of a volume is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Allocation {
    /// When the volume is made. It keeps it whatever is deleted on it, so no other writer can break the volume.
    Thick,
    /// As it is written. What is deleted on the volume can be given back by `fstrim`. A full disk breaks the volume.
    Thin,
}

/// How the data of volumes gets to the file system that has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Io {
    /// Past its page cache, so that data is cached once. Where the file system cannot, it is as [`Io::Buffered`], and the log
    /// says so.
    Direct,
    /// Through its page cache, so that data is cached twice.
    Buffered,
}

/// The X.509 version of all certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CertificateProfile {
    /// Version 1 with extensions of version 3, as every release of Flocker's own certificate authority creates them.
    V1,
    /// Valid version 3, with the same names and extensions.
    V3,
}

impl CertificateProfile {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V3 => "v3",
        }
    }
}

/// One of the nodes of this process.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodeInfo {
    /// Its number, counted from 1.
    pub number: usize,
    /// Its UUID, stored in the data directory.
    pub uuid: Uuid,
    /// The directory that contains the mount points of its datasets: `<data_dir>/flocker/node-N`.
    pub mount_root: PathBuf,
}

impl NodeInfo {
    pub(crate) fn host(&self) -> String {
        format!("127.0.0.{}", self.number)
    }

    pub(crate) fn mount_path(&self, dataset: Uuid) -> PathBuf {
        self.mount_root.join(dataset.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_of_nodes_that_no_loopback_address_stands_for_is_refused() {
        for nodes in [0, MAX_NODES + 1] {
            let options = Options {
                nodes,
                ..Options::new("/nowhere", "/nowhere")
            };
            assert!(
                options
                    .check()
                    .unwrap_err()
                    .to_string()
                    .contains(&nodes.to_string())
            );
        }
    }

    #[test]
    fn eras_belong_to_one_node_each_and_the_node_exists() {
        let cases = [
            (BTreeMap::from([(3, Uuid::nil())]), "node 3"),
            (BTreeMap::from([(1, Uuid::nil()), (2, Uuid::nil())]), "same era"),
        ];
        for (eras, expected) in cases {
            let options = Options {
                nodes: 2,
                eras,
                ..Options::new("/nowhere", "/nowhere")
            };
            assert!(options.check().unwrap_err().to_string().contains(expected));
        }
    }
}
