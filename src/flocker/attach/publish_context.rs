//! What the controller passes to the node about an attachment.

use std::collections::HashMap;

use uuid::Uuid;

use crate::volume::{NODE_CONTEXT_KEY, READONLY_CONTEXT_KEY};

/// Returns the publish context of a volume that was attached to `node`, from which the node knows that the controller
/// has acquired the lease.
///
/// A lease cannot remember that the volume is to be read only, so the context does: the node then publishes it so.
pub(crate) fn publish_context(node: Uuid, readonly: bool) -> HashMap<String, String> {
    let readonly = readonly.then(|| (READONLY_CONTEXT_KEY.to_owned(), "true".to_owned()));
    let node = (NODE_CONTEXT_KEY.to_owned(), node.to_string());
    [node].into_iter().chain(readonly).collect()
}
