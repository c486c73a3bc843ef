//! The requests that this crate makes, and every answer that Flocker itself gives to them.
//!
//! Between client and control service there may be a proxy, and something else may listen at the address. Whether an
//! answer is Flocker's own is decided with these tables alone. All versions of Flocker that have leases (1.4 to 1.15)
//! use the same statuses and descriptions.

use reqwest::Method;
use uuid::Uuid;

/// A request of the REST API, version 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Endpoint {
    Version,
    Extensions,
    ListDatasets,
    CreateDataset,
    MoveDataset(Uuid),
    DeleteDataset(Uuid),
    ListDatasetStates,
    ListNodes,
    NodeByEra(Uuid),
    ListLeases,
    AcquireLease,
    ReleaseLease(Uuid),
}

/// An answer with which Flocker refuses a request: it has read the request and changed nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KnownRefusal {
    pub(crate) status: u16,
    /// Flocker's description, white space in it reduced to single spaces.
    pub(crate) description: &'static str,
}

const UNDECODABLE: KnownRefusal = KnownRefusal {
    status: 400,
    description: "The request body could not be decoded according to the value of the Content-Type header.",
};
const SCHEMA_MISMATCH: KnownRefusal = KnownRefusal {
    status: 400,
    description: "The provided JSON doesn't match the required schema.",
};
const DATASET_ID_IN_USE: KnownRefusal = KnownRefusal {
    status: 409,
    description: "The provided dataset_id is already in use.",
};
const DATASET_NOT_FOUND: KnownRefusal = KnownRefusal {
    status: 404,
    description: "Dataset not found.",
};
pub(crate) const DATASET_DELETED: KnownRefusal = KnownRefusal {
    status: 405,
    description: "The dataset has been deleted.",
};
const LEASE_HELD: KnownRefusal = KnownRefusal {
    status: 409,
    description: "Lease already held.",
};
const LEASE_NOT_FOUND: KnownRefusal = KnownRefusal {
    status: 404,
    description: "Lease not found.",
};
const ERA_NOT_FOUND: KnownRefusal = KnownRefusal {
    status: 404,
    description: "No node found with given era.",
};

const DATASETS: &str = "/v1/configuration/datasets";
const LEASES: &str = "/v1/configuration/leases";

impl Endpoint {
    pub(crate) fn method(self) -> Method {
        match self {
            Self::Version
            | Self::Extensions
            | Self::ListDatasets
            | Self::ListDatasetStates
            | Self::ListNodes
            | Self::NodeByEra(_)
            | Self::ListLeases => Method::GET,
            Self::CreateDataset | Self::MoveDataset(_) | Self::AcquireLease => Method::POST,
            Self::DeleteDataset(_) | Self::ReleaseLease(_) => Method::DELETE,
        }
    }

    /// Returns the path. Flocker compares the ids of datasets as text, and writes them in lower case.
    pub(crate) fn path(self) -> String {
        match self {
            Self::Version => "/v1/version".to_owned(),
            Self::Extensions => "/v1/extensions".to_owned(),
            Self::ListDatasets | Self::CreateDataset => DATASETS.to_owned(),
            Self::MoveDataset(id) | Self::DeleteDataset(id) => format!("{DATASETS}/{}", id.as_hyphenated()),
            Self::ListDatasetStates => "/v1/state/datasets".to_owned(),
            Self::ListNodes => "/v1/state/nodes".to_owned(),
            Self::NodeByEra(era) => format!("/v1/state/nodes/by_era/{}", era.as_hyphenated()),
            Self::ListLeases | Self::AcquireLease => LEASES.to_owned(),
            Self::ReleaseLease(id) => format!("{LEASES}/{}", id.as_hyphenated()),
        }
    }

    /// Returns method and path with `{id}` in place of an id.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Version => "GET /v1/version",
            Self::Extensions => "GET /v1/extensions",
            Self::ListDatasets => "GET /v1/configuration/datasets",
            Self::CreateDataset => "POST /v1/configuration/datasets",
            Self::MoveDataset(_) => "POST /v1/configuration/datasets/{id}",
            Self::DeleteDataset(_) => "DELETE /v1/configuration/datasets/{id}",
            Self::ListDatasetStates => "GET /v1/state/datasets",
            Self::ListNodes => "GET /v1/state/nodes",
            Self::NodeByEra(_) => "GET /v1/state/nodes/by_era/{id}",
            Self::ListLeases => "GET /v1/configuration/leases",
            Self::AcquireLease => "POST /v1/configuration/leases",
            Self::ReleaseLease(_) => "DELETE /v1/configuration/leases/{id}",
        }
    }

    /// Returns the statuses with which Flocker reports success.
    pub(crate) fn success_statuses(self) -> &'static [u16] {
        match self {
            Self::CreateDataset => &[201],
            Self::AcquireLease => &[200, 201],
            _ => &[200],
        }
    }

    /// Returns the refusals that Flocker has for this request.
    pub(crate) fn refusals(self) -> &'static [KnownRefusal] {
        match self {
            Self::Version
            | Self::Extensions
            | Self::ListDatasets
            | Self::ListDatasetStates
            | Self::ListNodes
            | Self::ListLeases => &[],
            Self::NodeByEra(_) => &[ERA_NOT_FOUND],
            Self::CreateDataset => &[UNDECODABLE, SCHEMA_MISMATCH, DATASET_ID_IN_USE],
            Self::MoveDataset(_) => &[UNDECODABLE, SCHEMA_MISMATCH, DATASET_NOT_FOUND, DATASET_DELETED],
            Self::DeleteDataset(_) => &[DATASET_NOT_FOUND],
            Self::AcquireLease => &[UNDECODABLE, SCHEMA_MISMATCH, LEASE_HELD],
            Self::ReleaseLease(_) => &[LEASE_NOT_FOUND],
        }
    }
}
