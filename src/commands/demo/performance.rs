//! One run of the demo.

use tokio_util::sync::CancellationToken;

use super::actor::Actor;
use super::screen::{Screen, Shown};
use super::script::{SCRIPT, Step, ToUndo};

/// Carries out the steps of the script, shows them, and undoes them if one fails or the demo is interrupted.
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

    /// Carries out every step; returns what the demo has shown, or the first problem.
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
            let acted = if step.can_be_interrupted() {
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

    /// Undoes the steps, and returns the problems.
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
