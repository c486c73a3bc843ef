//! The steps of the demo, and the inverse of each.

use std::fmt;

use crate::volume::size_text;

/// The name of the volume.
pub(super) const VOLUME: &str = "demo";
/// Its size in bytes.
pub(super) const VOLUME_SIZE: u64 = 128 << 20;
/// The amount of data that is written to it, in bytes.
pub(super) const DATA_SIZE: usize = 16 << 20;

/// One of the two nodes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum At {
    First,
    Second,
}

/// A step of the demo.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Probe,
    Create,
    Attach(At),
    Stage(At),
    Publish(At),
    PublishReadOnly(At),
    Write(At),
    ReadBack(At),
    WriteRefused(At),
    Stats(At),
    List,
    Unpublish(At),
    Unstage(At),
    Detach(At),
    Delete,
}

/// The life cycle of a volume.
pub(super) const SCRIPT: [Step; 20] = [
    Step::Probe,
    Step::Create,
    Step::Attach(At::First),
    Step::Stage(At::First),
    Step::Publish(At::First),
    Step::Write(At::First),
    Step::Unpublish(At::First),
    Step::Unstage(At::First),
    Step::Detach(At::First),
    Step::Attach(At::Second),
    Step::Stage(At::Second),
    Step::PublishReadOnly(At::Second),
    Step::ReadBack(At::Second),
    Step::WriteRefused(At::Second),
    Step::Stats(At::Second),
    Step::List,
    Step::Unpublish(At::Second),
    Step::Unstage(At::Second),
    Step::Detach(At::Second),
    Step::Delete,
];

impl Step {
    /// Whether the step may be abandoned before its end: a call may, as the inverse call undoes it; a step that works on
    /// files may not, because an open file would prevent the unmount.
    pub(super) fn can_be_abandoned(self) -> bool {
        !matches!(self, Self::Write(_) | Self::ReadBack(_) | Self::WriteRefused(_))
    }

    /// Returns the step that undoes this one, also where this one was interrupted.
    fn inverse(self) -> Option<Self> {
        match self {
            Self::Create => Some(Self::Delete),
            Self::Attach(at) => Some(Self::Detach(at)),
            Self::Stage(at) => Some(Self::Unstage(at)),
            Self::Publish(at) | Self::PublishReadOnly(at) => Some(Self::Unpublish(at)),
            Self::Probe
            | Self::Write(_)
            | Self::ReadBack(_)
            | Self::WriteRefused(_)
            | Self::Stats(_)
            | Self::List
            | Self::Unpublish(_)
            | Self::Unstage(_)
            | Self::Detach(_)
            | Self::Delete => None,
        }
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::First => "node 1",
            Self::Second => "node 2",
        })
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Probe => f.write_str("probe both plugins"),
            Self::Create => write!(f, "create a volume of {}", size_text(VOLUME_SIZE)),
            Self::Attach(At::First) => write!(f, "attach it to {}", At::First),
            Self::Attach(At::Second) => write!(f, "move it to {}", At::Second),
            Self::Stage(at) => write!(f, "stage it on {at}"),
            Self::Publish(at) => write!(f, "publish it on {at}"),
            Self::PublishReadOnly(at) => write!(f, "publish it read-only on {at}"),
            Self::Write(at) => write!(f, "write {} of random data on {at}", size_text(DATA_SIZE as u64)),
            Self::ReadBack(at) => write!(f, "read the data back on {at}"),
            Self::WriteRefused(at) => write!(f, "try to write on {at}, which has to fail"),
            Self::Stats(at) => write!(f, "get its usage on {at}"),
            Self::List => f.write_str("list all volumes"),
            Self::Unpublish(at) => write!(f, "unpublish it on {at}"),
            Self::Unstage(at) => write!(f, "unstage it on {at}"),
            Self::Detach(at) => write!(f, "detach it from {at}"),
            Self::Delete => f.write_str("delete it"),
        }
    }
}

/// The inverse steps of those that have begun.
#[derive(Default)]
pub(super) struct ToUndo(Vec<Step>);

impl ToUndo {
    /// Records that a step is about to begin.
    pub(super) fn begin(&mut self, step: Step) {
        self.0.extend(step.inverse());
    }

    /// Records that a step has succeeded, so that it need not run to undo another.
    pub(super) fn done(&mut self, step: Step) {
        self.0.retain(|undo| *undo != step);
    }

    /// Returns the next step to run for undoing.
    pub(super) fn pop(&mut self) -> Option<Step> {
        self.0.pop()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_that_ends_leaves_nothing_to_undo() {
        let mut to_undo = ToUndo::default();
        for step in SCRIPT {
            to_undo.begin(step);
            to_undo.done(step);
        }
        assert!(to_undo.pop().is_none());
    }

    #[test]
    fn at_every_step_the_begun_ones_are_undone_in_reverse_order() {
        let mut to_undo = ToUndo::default();
        for step in SCRIPT {
            to_undo.begin(step);
            let order: Vec<_> = to_undo.0.iter().rev().map(Step::to_string).collect();
            let place = |name: &str| order.iter().position(|undo| undo.starts_with(name));
            let places: Vec<_> = ["unpublish", "unstage", "detach", "delete"]
                .into_iter()
                .filter_map(place)
                .collect();
            assert!(places.is_sorted(), "{order:?}");
            assert_eq!(places.len(), order.len(), "{order:?}");
            to_undo.done(step);
        }
    }
}
