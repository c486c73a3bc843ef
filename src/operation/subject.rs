//! What a call or an operation is about, for every line of its log.

use std::borrow::Cow;
use std::path::Path;

use tracing::Span;
use uuid::Uuid;

use crate::telemetry::record;
use crate::volume::VolumeLabels;

/// What a call or an operation is about.
#[derive(Clone, Debug, Default)]
pub(crate) struct Subject<'a> {
    /// The volume id of CSI.
    pub(crate) volume_id: Option<Cow<'a, str>>,
    /// What people call the volume.
    pub(crate) labels: VolumeLabels,
    /// The node it is for.
    pub(crate) node: Option<Uuid>,
    /// Where it is staged.
    pub(crate) staging: Option<&'a Path>,
    /// Where it is published.
    pub(crate) target: Option<&'a Path>,
}

impl Subject<'_> {
    /// Records what is known in a span that has these fields, for the call that is worked for now.
    pub(crate) fn record_in(&self, span: &Span) {
        if let Some(id) = &self.volume_id {
            record(span, "volume.id", id);
        }
        self.labels.record_in(span);
        if let Some(node) = self.node {
            record(span, "node.id", node);
        }
        if let Some(path) = self.staging {
            record(span, "staging.path", path.display());
        }
        if let Some(path) = self.target {
            record(span, "target.path", path.display());
        }
    }
}
