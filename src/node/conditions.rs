//! What the readiness of a node depends on.

use tokio::sync::watch;

use super::NodeService;
use crate::host::mount::UsageProbe;
use crate::host::{HANGS, PathGate};

/// What the readiness of a node depends on. It keeps nothing of the service alive, and so no directory locked.
pub(crate) struct NodeConditions {
    paths: PathGate,
    usage: UsageProbe,
    refusal: watch::Receiver<Option<String>>,
}

impl NodeConditions {
    /// Returns why calls about some volumes wait, if they do; calls about other volumes are served.
    pub(crate) fn obstacle(&self) -> Option<String> {
        self.paths.obstacle().or_else(|| {
            let hanging = self.usage.not_answering(HANGS);
            let (dataset, error) = hanging.first_key_value()?;
            Some(format!(
                "the file systems of {} volumes do not answer, one of them that of volume {dataset}: {error}; other volumes \
                 are served",
                hanging.len(),
            ))
        })
    }

    /// Returns why node calls are refused: the state directory of this plugin could not be opened.
    pub(crate) fn refusal(&self) -> Option<String> {
        self.refusal.borrow().clone()
    }
}

impl NodeService {
    /// Returns what its readiness depends on.
    pub(crate) fn conditions(&self) -> NodeConditions {
        NodeConditions {
            paths: self.core.paths.clone(),
            usage: self.core.usage.clone(),
            refusal: self.core.refusal.subscribe(),
        }
    }
}
