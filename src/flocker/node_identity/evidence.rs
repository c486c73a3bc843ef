//! What this machine is known by as one of Flocker's nodes.

use std::fmt;

use uuid::Uuid;

use super::Sources;

/// What says which node this machine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NodeEvidence {
    /// The setting `node_id`.
    Setting,
    /// The file that `node_id_file` names.
    File,
    /// Flocker's answer to the boot id of this machine.
    Flocker,
    /// The answer that Flocker gave since this machine was started; it has none now.
    ThisBoot,
    /// The answer that Flocker gave before this machine was started; it has none now.
    EarlierBoot,
    /// The certificate of Flocker's agent on this machine.
    Certificate,
    /// An address of this machine, which one node alone reports.
    Address,
}

impl NodeEvidence {
    /// Whether it is not asked again.
    pub(super) fn is_certain(self) -> bool {
        match self {
            Self::Setting | Self::File | Self::Flocker => true,
            Self::ThisBoot | Self::EarlierBoot | Self::Certificate | Self::Address => false,
        }
    }

    /// Returns the name in machine-readable output.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Setting => "node_id",
            Self::File => "node_id_file",
            Self::Flocker => "flocker",
            Self::ThisBoot => "flocker-in-this-boot",
            Self::EarlierBoot => "flocker-in-an-earlier-boot",
            Self::Certificate => "node-certificate",
            Self::Address => "address",
        }
    }
}

impl fmt::Display for NodeEvidence {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Setting => "the setting node_id names it",
            Self::File => "the file of node_id_file names it",
            Self::Flocker => "Flocker names it for the boot id of this machine",
            Self::ThisBoot => "Flocker has named it since this machine was started",
            Self::EarlierBoot => "Flocker does not answer, and named it before this machine was started",
            Self::Certificate => {
                "Flocker has no answer, and the certificate of its agent on this machine names it"
            }
            Self::Address => "Flocker has no answer, and the node reports an address of this machine",
        })
    }
}

/// The node that was found.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) node: Uuid,
    pub(super) by: NodeEvidence,
    /// How it was found, as the end of a sentence.
    pub(super) how: String,
    /// The boot id for which Flocker named it just now.
    pub(super) era: Option<Uuid>,
}

impl Found {
    /// Makes the node that a setting names.
    pub(super) fn configured(node: Uuid, sources: &Sources, how: String) -> Self {
        let by = if sources.node_id.is_some() {
            NodeEvidence::Setting
        } else {
            NodeEvidence::File
        };
        Self {
            node,
            by,
            how,
            era: None,
        }
    }

    /// Makes a node for which Flocker is asked again.
    pub(super) fn believed(node: Uuid, by: NodeEvidence) -> Self {
        Self {
            node,
            by,
            how: by.to_string(),
            era: None,
        }
    }

    pub(super) fn by_flocker(node: Uuid, era: Uuid) -> Self {
        Self {
            node,
            by: NodeEvidence::Flocker,
            how: format!("Flocker names it for the boot id {era} of this machine"),
            era: Some(era),
        }
    }

    pub(super) fn is_certain(&self) -> bool {
        self.by.is_certain()
    }
}
