//! The steps of the demo, and how each is undone.

use std::fmt;

use crate::volume::size_text;

/// The name of the volume.
pub(super) const VOLUME: &str = "demo";
/// The size of the volume, in bytes.
pub(super) const VOLUME_SIZE: u64 = 128 << 20;
/// How many bytes are written to it.
pub(super) const DATA_SIZE: usize = 16 << 20;

/// The index of a node.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum At {
    First,
    Second,
}

/// One step of the demo.
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
    BeRefused(At),
    Stats(At),
    List,
    Unpublish(At),
    Unstage(At),
    Detach(At),
    Delete,
}

/// The life of a volume.
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
    Step::BeRefused(At::Second),
    Step::Stats(At::Second),
    Step::List,
    Step::Unpublish(At::Second),
    Step::Unstage(At::Second),
    Step::Detach(At::Second),
    Step::Delete,
];

impl Step {
    /// Returns whether the step may be interrupted while it runs: a call may, because the inverse call undoes it; work on
    /// files may not, because a file that stays open prevents the unmount.
    pub(super) fn can_be_interrupted(self) -> bool {
        !matches!(self, Self::Write(_) | Self::ReadBack(_) | Self::BeRefused(_))
    }

    /// Returns the step that undoes this one, however far this one got.
    fn inverse(self) -> Option<Self> {
        match self {
            Self::Create => Some(Self::Delete),
            Self::Attach(at) => Some(Self::Detach(at)),
            Self::Stage(at) => Some(Self::Unstage(at)),
            Self::Publish(at) | Self::PublishReadOnly(at) => Some(Self::Unpublish(at)),
            Self::Probe
            | Self::Write(_)
            | Self::ReadBack(_)
            | Self::BeRefused(_)
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
            Self::BeRefused(at) => write!(f, "try to write on {at}, which must be refused"),
            Self::Stats(at) => write!(f, "read its usage on {at}"),
            Self::List => f.write_str("list all volumes"),
            Self::Unpublish(at) => write!(f, "unpublish it on {at}"),
            Self::Unstage(at) => write!(f, "unstage it on {at}"),
            Self::Detach(at) => write!(f, "detach it from {at}"),
            Self::Delete => f.write_str("delete it"),
        }
    }
}

/// The steps that undo those that have begun.
#[derive(Default)]
pub(super) struct ToUndo(Vec<Step>);

impl ToUndo {
    /// Notes that a step begins.
    pub(super) fn begin(&mut self, step: Step) {
        self.0.extend(step.inverse());
    }

    /// Notes that a step is done, so it need not be carried out to undo another one.
    pub(super) fn done(&mut self, step: Step) {
        self.0.retain(|undo| *undo != step);
    }

    /// Returns the next step to carry out.
    pub(super) fn pop(&mut self) -> Option<Step> {
        self.0.pop()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complete_run_leaves_nothing_to_undo() {
        let mut to_undo = ToUndo::default();
        for step in SCRIPT {
            to_undo.begin(step);
            to_undo.done(step);
        }
        assert!(to_undo.pop().is_none());
    }

    #[test]
    fn steps_are_undone_in_reverse_order() {
        let mut to_undo = ToUndo::default();
        for step in SCRIPT {
            to_undo.begin(step);
            let order: Vec<_> = to_undo.0.iter().rev().map(Step::to_string).collect();
            let position = |name: &str| order.iter().position(|undo| undo.starts_with(name));
            let positions: Vec<_> = ["unpublish", "unstage", "detach", "delete"]
                .into_iter()
                .filter_map(position)
                .collect();
            assert!(positions.is_sorted(), "{order:?}");
            assert_eq!(positions.len(), order.len(), "{order:?}");
            to_undo.done(step);
        }
    }
}
