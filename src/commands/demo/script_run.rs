//! One run of the demo's script.

use tokio_util::sync::CancellationToken;

use super::screen::{Screen, Shown};
use super::script::{SCRIPT, Step, ToUndo};
use super::steps::StepRunner;

/// Runs the steps of the script, shows them, and undoes them where the run fails.
pub(super) struct ScriptRun<'a> {
    runner: StepRunner<'a>,
    screen: &'a mut Screen,
    interrupted: &'a CancellationToken,
    to_undo: ToUndo,
}

impl<'a> ScriptRun<'a> {
    pub(super) fn new(
        runner: StepRunner<'a>,
        screen: &'a mut Screen,
        interrupted: &'a CancellationToken,
    ) -> Self {
        Self {
            runner,
            screen,
            interrupted,
            to_undo: ToUndo::default(),
        }
    }

    /// Runs every step; returns the conclusion, or the first problem.
    pub(super) async fn run(&mut self) -> Result<String, String> {
        for (index, step) in SCRIPT.into_iter().enumerate() {
            let label = format!("step {:>2}/{}", index + 1, SCRIPT.len());
            if self.interrupted.is_cancelled() {
                return Err(format!("interrupted before {label}, {step}"));
            }
            self.to_undo.begin(step);
            self.run_step(&label, step)
                .await
                .map_err(|problem| format!("{label}, {step}: {problem}"))?;
            self.to_undo.done(step);
        }
        Ok(self.runner.conclusion())
    }

    async fn run_step(&mut self, label: &str, step: Step) -> Result<(), String> {
        let Self {
            runner,
            screen,
            interrupted,
            ..
        } = self;
        let work = async {
            let running = Box::pin(runner.run(step));
            let ended = if step.can_be_abandoned() {
                interrupted.run_until_cancelled(running).await
            } else {
                Some(running.await)
            };
            match ended {
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

    /// Undoes the steps of the run, and returns every problem with that.
    pub(super) async fn undo(&mut self) -> Vec<String> {
        let mut problems = Vec::new();
        while let Some(step) = self.to_undo.pop() {
            let Self { runner, screen, .. } = self;
            let work = async { Shown::of(Box::pin(runner.run(step)).await) };
            if let Err(problem) = screen.show("undo", &step.to_string(), work).await {
                problems.push(format!("cannot {step}: {problem}"));
            }
        }
        problems
    }
}
