//! The routes of the REST API.

pub(crate) const VERSION: &str = "/v1/version";
pub(crate) const EXTENSIONS: &str = "/v1/extensions";
pub(crate) const DATASETS: &str = "/v1/configuration/datasets";
pub(crate) const DATASET: &str = "/v1/configuration/datasets/{dataset_id}";
pub(crate) const LEASES: &str = "/v1/configuration/leases";
pub(crate) const LEASE: &str = "/v1/configuration/leases/{dataset_id}";
pub(crate) const CONTAINERS: &str = "/v1/configuration/containers";
pub(crate) const CONTAINER_STATES: &str = "/v1/state/containers";
pub(crate) const DATASET_STATES: &str = "/v1/state/datasets";
pub(crate) const NODES: &str = "/v1/state/nodes";
pub(crate) const NODE_BY_ERA: &str = "/v1/state/nodes/by_era/{era}";

/// The templates of all routes.
pub(crate) const ROUTES: [&str; 11] = [
    VERSION,
    EXTENSIONS,
    DATASETS,
    DATASET,
    LEASES,
    LEASE,
    CONTAINERS,
    CONTAINER_STATES,
    DATASET_STATES,
    NODES,
    NODE_BY_ERA,
];
