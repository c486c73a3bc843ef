//! What messages advise to do about a lease that is in the way.

use uuid::Uuid;

/// Says how a volume becomes free that another node has, for users of every orchestrator: one that only its orchestrator
/// detaches, and one that a node attaches for itself.
pub(crate) fn end_of_use(dataset: Uuid, holder: Uuid) -> String {
    format!(
        "end its use there (the pod, task or job), or, if nothing uses it there any more, release the lease: flocker-csi \
         leases release {dataset} --node {holder}"
    )
}

/// Says how the lease of a node is released that is not known.
pub(crate) fn release_of_any(dataset: Uuid) -> String {
    format!(
        "if no node uses the volume, and flocker-csi leases shows a lease on it, release that: flocker-csi leases release \
         {dataset} --node NODE; then remove the file"
    )
}
