//! The demo while it is played.

use tokio_util::sync::CancellationToken;

use super::actor::Actor;
use super::screen::{Screen, Shown};
use super::script::{SCRIPT, Step, ToUndo};

/// Takes the steps of the script, shows them, and undoes them if it comes to that.
pub(super) struct Performance<'a> {
    actor: Actor<'a>,
    screen: &'a mut Screen,
    interrupted: &'a CancellationToken,
    to_undo: ToUndo,
}

impl<'a> Performance<'a> {
    pub(super) fn new(actor: Actor<'a>, screen: &'a mut Screen, interrupted: &'a CancellationToken) -> Self {
        Self {
            actor,
            screen,
            interrupted,
            to_undo: ToUndo::default(),
        }
    }

    /// Takes every step; returns what has been shown by that, or the first thing that went wrong.
    pub(super) async fn play(&mut self) -> Result<String, String> {
        for (index, step) in SCRIPT.into_iter().enumerate() {
            let label = format!("step {:>2}/{}", index + 1, SCRIPT.len());
            if self.interrupted.is_cancelled() {
                return Err(format!("interrupted before {label}, {step}"));
            }
            self.to_undo.begin(step);
            self.take(&label, step)
                .await
                .map_err(|problem| format!("{label}, {step}: {problem}"))?;
            self.to_undo.done(step);
        }
        Ok(self.actor.conclusion())
    }

    async fn take(&mut self, label: &str, step: Step) -> Result<(), String> {
        let Self {
            actor,
            screen,
            interrupted,
            ..
        } = self;
        let work = async {
            let acting = Box::pin(actor.act(step));
            let acted = if step.can_be_given_up() {
                interrupted.run_until_cancelled(acting).await
            } else {
                Some(acting.await)
            };
            match acted {
                Some(Ok(remark)) => Shown {
                    outcome: Ok(()),
                    remark,
                },
                Some(Err(problem)) => Shown::of(Err(problem)),
                None => Shown {
                    outcome: Err("interrupted".to_owned()),
                    remark: "interrupted".to_owned(),
                },
            }
        };
        screen.show(label, &step.to_string(), work).await
    }

    /// Undoes what was done, and returns what could not be.
    pub(super) async fn undo(&mut self) -> Vec<String> {
        let mut problems = Vec::new();
        while let Some(step) = self.to_undo.pop() {
            let Self { actor, screen, .. } = self;
            let work = async { Shown::of(Box::pin(actor.act(step)).await) };
            if let Err(problem) = screen.show("undo", &step.to_string(), work).await {
                problems.push(format!("cannot {step}: {problem}"));
            }
        }
        problems
    }
}
