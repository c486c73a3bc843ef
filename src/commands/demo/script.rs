//! What the demo does, step by step, and how each step is undone.

use std::fmt;

use crate::volume::size_text;

/// The name the orchestrator gives the volume.
pub(super) const VOLUME: &str = "demo";
/// How large it is.
pub(super) const VOLUME_SIZE: u64 = 128 << 20;
/// How much is written to it.
pub(super) const DATA_SIZE: usize = 16 << 20;

/// The index of a node.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum At {
    First,
    Second,
}

/// One thing the demo does.
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
    /// Whether the step may be given up in the middle: a call may, and is then undone by the opposite one; what works
    /// on files may not, because an open file would stand in the way of that.
    pub(super) fn can_be_given_up(self) -> bool {
        !matches!(self, Self::Write(_) | Self::ReadBack(_) | Self::BeRefused(_))
    }

    /// Returns the step that undoes this one; it may be taken however far this one has come.
    fn opposite(self) -> Option<Self> {
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
            Self::BeRefused(at) => write!(f, "try to write on {at}, which has to be refused"),
            Self::Stats(at) => write!(f, "ask {at} how full it is"),
            Self::List => f.write_str("list all volumes"),
            Self::Unpublish(at) => write!(f, "unpublish it on {at}"),
            Self::Unstage(at) => write!(f, "unstage it on {at}"),
            Self::Detach(at) => write!(f, "detach it from {at}"),
            Self::Delete => f.write_str("delete it"),
        }
    }
}

/// What undoes the steps that were begun.
#[derive(Default)]
pub(super) struct ToUndo(Vec<Step>);

impl ToUndo {
    /// Notes that a step is about to be taken.
    pub(super) fn begin(&mut self, step: Step) {
        self.0.extend(step.opposite());
    }

    /// Notes that a step was taken, and so need not be taken to undo another.
    pub(super) fn done(&mut self, step: Step) {
        self.0.retain(|undo| *undo != step);
    }

    /// Returns what has to be undone next.
    pub(super) fn pop(&mut self) -> Option<Step> {
        self.0.pop()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_played_to_its_end_leaves_nothing_to_undo() {
        let mut to_undo = ToUndo::default();
        for step in SCRIPT {
            to_undo.begin(step);
            to_undo.done(step);
        }
        assert!(to_undo.pop().is_none());
    }

    #[test]
    fn at_every_step_what_was_begun_is_undone_in_reverse() {
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
