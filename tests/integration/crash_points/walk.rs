//! Visits every point of an operation at which the plugin can be killed.

use std::fmt;

use flocker_embedded::faults::{Effect, Faults};
use tokio::task::JoinHandle;
use tonic::{Code, Status};

use super::tripwire::{Trap, Tripwire};
use super::workspace::{Lease, Level, Workspace};
use super::writes::{Notes, Write};
use crate::support::eventually;
use crate::support::process::{Process, program};

/// The interrupted operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Stage,
    Publish,
    Unpublish,
    Unstage,
    /// The start of a plugin after another one ended in this way.
    Start(Earlier),
}

/// How an earlier plugin ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Earlier {
    /// It was killed after it mounted a volume and before it recorded that.
    Staging,
    /// It was killed after it made a mount that was not at its target yet.
    Publishing,
    /// It was killed before it released a lease.
    Releasing,
    /// The machine was switched off and on.
    Reboot,
}

/// An operation and its circumstances.
pub(super) struct Case {
    pub(super) operation: Operation,
    pub(super) lease: Lease,
    /// Whether the volume is on another node at first.
    pub(super) elsewhere: bool,
    /// The calls that the kernel lacks.
    pub(super) missing: &'static [libc::c_long],
    /// Steps that must occur, in this order.
    pub(super) must: &'static [&'static str],
}

/// One step of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// On this machine.
    Call(String),
    /// At Flocker, which has already received the request.
    Write(&'static Write),
    /// None at all: Flocker has carried out a request and returned the result.
    Reply(&'static Write),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Call(call) => f.write_str(call),
            Self::Write(write) => f.write_str(write.name),
            Self::Reply(write) => write!(f, "reply to {}", write.name),
        }
    }
}

/// What happens after a crash and a new start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// The orchestrator calls again.
    Again,
    /// It stops waiting, removes the target, and undoes everything.
    Undone,
}

/// A plugin whose calls are watched.
struct Plugin {
    process: Process,
    wire: Tripwire,
}

/// A running operation.
enum Running {
    Call(Box<Plugin>, JoinHandle<Result<(), Status>>),
    Start(Tripwire, JoinHandle<Result<Process, String>>),
}

/// Kills the plugin at every point of an operation, and at its end; the recovery must succeed each time.
pub(super) async fn visit_every_point(case: Case) {
    let workspace = Workspace::new(case.lease).await;
    let walk = Walk { workspace, case };
    let plugin = walk.start(Tripwire::default()).await.unwrap();
    let (mut plugin, steps) = walk.steps(plugin).await;
    let mut visits = vec![0; steps.len() + 1];
    for then in [Then::Again, Then::Undone] {
        for (point, visits) in visits.iter_mut().enumerate() {
            println!("{then:?} when killed before {}", name(&steps, point));
            plugin = walk.crash(plugin, &steps, point, then).await;
            *visits += 1;
        }
    }
    if walk.case.lease != Lease::None {
        walk.call(&plugin, Operation::Stage).await.unwrap().unwrap();
        walk.workspace.check(Level::Staged, plugin.process.id()).await;
        walk.undo(&plugin).await;
    }
    plugin.process.kill().await;
    println!("{:?}:", walk.case.operation);
    for (point, visits) in visits.iter().enumerate() {
        println!("{visits} × killed before {}", name(&steps, point));
        assert_eq!(*visits, 2);
    }
    walk.check_order(&steps);
}

fn name(steps: &[Step], point: usize) -> String {
    steps.get(point).map_or("the end".to_owned(), Step::to_string)
}

struct Walk {
    workspace: Workspace,
    case: Case,
}

impl Walk {
    /// Carries out the operation without interruption, and returns its steps.
    async fn steps(&self, plugin: Plugin) -> (Plugin, Vec<Step>) {
        let (ready, wire) = self.prepare(plugin).await;
        let position = wire.clone();
        let notes = Notes::of(self.faults(), move || position.calls().len());
        wire.arm(never());
        let plugin = self.finish(self.begin(ready, &wire)).await;
        let (calls, writes) = (wire.disarm(), notes.take());
        self.again(&plugin).await;
        self.undo(&plugin).await;

        let mut writes = writes.into_iter().peekable();
        let mut steps = Vec::new();
        for (position, call) in calls.into_iter().map(Some).chain([None]).enumerate() {
            while let Some((_, write)) = writes.next_if(|(before, _)| *before == position) {
                steps.extend([Step::Write(write), Step::Reply(write)]);
            }
            steps.extend(call.map(Step::Call));
        }
        (plugin, steps)
    }

    fn check_order(&self, steps: &[Step]) {
        let names: Vec<_> = steps.iter().map(ToString::to_string).collect();
        let mut rest = names.iter();
        for must in self.case.must {
            assert!(
                rest.any(|name| name == must),
                "{must} in its place among {names:#?}"
            );
        }
    }

    /// Kills the plugin before one step of the operation, and returns another plugin, which has nothing left to do.
    async fn crash(&self, plugin: Plugin, steps: &[Step], point: usize, then: Then) -> Plugin {
        let (ready, wire) = self.prepare(plugin).await;
        let is_call = |step: &&Step| matches!(step, Step::Call(_));
        let step = steps.get(point);
        let before = steps[..point].iter().filter(is_call).count();
        match step {
            Some(Step::Call(_)) => {
                wire.arm(Box::new(move |calls| calls.len() > before));
                died(self.begin(ready, &wire)).await;
                assert!(wire.has_sprung());
            }
            Some(Step::Write(write) | Step::Reply(write)) => {
                wire.arm(never());
                let after = steps[..point]
                    .iter()
                    .filter(|earlier| Some(*earlier) == step)
                    .count();
                let effect = match step {
                    Some(Step::Reply(_)) => Effect::HoldReply,
                    _ => Effect::HoldRequest,
                };
                // The rule stays to the end, so that a held write is never carried out.
                let rule = format!("{then:?} {point}");
                write.hold(self.faults(), &rule, after, effect);
                let running = self.begin(ready, &wire);
                self.faults().until_met(&rule, 1).await;
                killed(running).await;
            }
            None => {
                wire.arm(never());
                self.finish(self.begin(ready, &wire)).await.process.kill().await;
            }
        }
        let happened: Vec<_> = wire.calls().into_iter().map(Step::Call).collect();
        let expected: Vec<_> = steps.iter().take(point + 1).filter(is_call).cloned().collect();
        assert_eq!(happened, expected, "the operation does the same each time");

        self.workspace.inspect_remains().await;
        if then == Then::Undone {
            self.workspace.orchestrator_removes_target();
        }
        let plugin = self.start(Tripwire::default()).await.unwrap();
        self.workspace.check_restored(plugin.process.id());
        if then == Then::Again {
            self.again(&plugin).await;
        }
        self.undo(&plugin).await;
        plugin
    }

    /// Carries out everything before the operation. No plugin runs if the operation is the start of one.
    async fn prepare(&self, plugin: Plugin) -> (Option<Plugin>, Tripwire) {
        if self.case.elsewhere {
            self.workspace.move_away().await;
        }
        let call = async |operation| self.call(&plugin, operation).await.unwrap().unwrap();
        match self.case.operation {
            Operation::Stage | Operation::Start(Earlier::Staging) => {}
            Operation::Publish | Operation::Unstage | Operation::Start(_) => call(Operation::Stage).await,
            Operation::Unpublish => {
                call(Operation::Stage).await;
                call(Operation::Publish).await;
            }
        }
        let Operation::Start(earlier) = self.case.operation else {
            let wire = plugin.wire.clone();
            return (Some(plugin), wire);
        };
        let (operation, trap) = match earlier {
            Earlier::Staging => (Operation::Stage, nth("sync state/stages/.new-*", 3)),
            Earlier::Publishing => (
                Operation::Publish,
                nth("mount (move) state/mounts/.tmp*/unfinished -> target", 1),
            ),
            Earlier::Releasing => (Operation::Unstage, nth("sync state/stages", 1)),
            Earlier::Reboot => {
                plugin.process.kill().await;
                self.workspace.reboot();
                return (None, Tripwire::default());
            }
        };
        plugin.wire.arm(trap);
        let answer = self.call(&plugin, operation);
        died(Running::Call(Box::new(plugin), answer)).await;
        (None, Tripwire::default())
    }

    fn begin(&self, ready: Option<Plugin>, wire: &Tripwire) -> Running {
        match ready {
            Some(plugin) => {
                let answer = self.call(&plugin, self.case.operation);
                Running::Call(Box::new(plugin), answer)
            }
            None => Running::Start(wire.clone(), tokio::spawn(self.launch(wire))),
        }
    }

    /// Waits for the end of an operation that is not interrupted.
    async fn finish(&self, running: Running) -> Plugin {
        match running {
            Running::Call(plugin, answer) => {
                self.check_answer(self.case.operation, answer.await.unwrap());
                *plugin
            }
            Running::Start(wire, started) => {
                let process = started.await.unwrap().unwrap();
                if let Operation::Start(Earlier::Releasing | Earlier::Reboot) = self.case.operation {
                    eventually("the lease is released", async || {
                        process.log().contains("Released the lease").then_some(())
                    })
                    .await;
                }
                Plugin { process, wire }
            }
        }
    }

    /// Repeats the interrupted call, or makes the call that an orchestrator would make next.
    async fn again(&self, plugin: &Plugin) {
        let (operation, level) = match self.case.operation {
            Operation::Stage if self.case.lease == Lease::None => (Operation::Stage, Level::Nothing),
            Operation::Publish | Operation::Start(Earlier::Publishing) => {
                (Operation::Publish, Level::Published)
            }
            Operation::Stage | Operation::Start(_) => (Operation::Stage, Level::Staged),
            Operation::Unpublish => (Operation::Unpublish, Level::Staged),
            Operation::Unstage => (Operation::Unstage, Level::Nothing),
        };
        self.check_answer(operation, self.call(plugin, operation).await.unwrap());
        self.workspace.check(level, plugin.process.id()).await;
    }

    async fn undo(&self, plugin: &Plugin) {
        for operation in [Operation::Unpublish, Operation::Unstage] {
            self.call(plugin, operation).await.unwrap().unwrap();
        }
        self.workspace.check(Level::Nothing, plugin.process.id()).await;
    }

    fn check_answer(&self, operation: Operation, answer: Result<(), Status>) {
        if operation == Operation::Stage && self.case.lease == Lease::None {
            assert_eq!(answer.unwrap_err().code(), Code::FailedPrecondition);
        } else {
            answer.unwrap();
        }
    }

    fn call(&self, plugin: &Plugin, operation: Operation) -> JoinHandle<Result<(), Status>> {
        let (csi, usage) = (plugin.process.csi.clone(), self.workspace.usage.clone());
        tokio::spawn(async move {
            match operation {
                Operation::Stage => csi.stage(&usage).await,
                Operation::Publish => csi.publish(&usage).await,
                Operation::Unpublish => csi.unpublish(&usage).await,
                Operation::Unstage => csi.unstage(&usage).await,
                Operation::Start(_) => unreachable!("a start is no call"),
            }
        })
    }

    async fn start(&self, wire: Tripwire) -> Result<Plugin, String> {
        let process = self.launch(&wire).await?;
        Ok(Plugin { process, wire })
    }

    fn launch(&self, wire: &Tripwire) -> impl Future<Output = Result<Process, String>> + Send + 'static {
        let flags = self.workspace.machine.flags();
        let arguments: Vec<_> = ["serve"]
            .into_iter()
            .chain(flags.iter().map(String::as_str))
            .collect();
        let mut program = program(&arguments);
        wire.watch(&mut program, self.workspace.sight(), self.case.missing);
        let log = self.workspace.machine.path("plugin.log");
        async move { Process::attempt(program, &log).await }
    }

    fn faults(&self) -> &Faults {
        self.workspace.flocker.embedded().faults()
    }
}

/// Waits until the trap has killed the plugin.
async fn died(running: Running) {
    match running {
        Running::Call(plugin, answer) => {
            plugin.process.ended().await;
            answer.await.unwrap().unwrap_err();
        }
        Running::Start(_, started) => {
            if let Ok(process) = started.await.unwrap() {
                process.ended().await;
            }
        }
    }
}

async fn killed(running: Running) {
    match running {
        Running::Call(plugin, answer) => {
            plugin.process.kill().await;
            answer.await.unwrap().unwrap_err();
        }
        Running::Start(_, started) => started.await.unwrap().unwrap().kill().await,
    }
}

fn never() -> Trap {
    Box::new(|_| false)
}

/// Fires when a call is about to be carried out for the nth time.
fn nth(call: &'static str, times: usize) -> Trap {
    Box::new(move |calls| {
        calls.last().is_some_and(|last| last == call)
            && calls.iter().filter(|earlier| *earlier == call).count() == times
    })
}
