//! One sequence of steps, with the possible states after each.

use std::collections::BTreeSet;
use std::time::Duration;

use flocker_embedded::faults::{Effect, Flicker, RequestFault};
use tokio::time::{Instant, sleep};
use tonic::Code;

use super::calls::{
    Access, Action, Death, Flow, Kind, Loss, Moment, NODES, Nth, Step, TARGETS, VOLUMES, VolumeCall,
};
use super::fixture::{Fixture, Request, list};
use super::invariants::{check, check_origins};
use super::scenarios::{Answer, Around, Dataset, Scenario};
use super::tally::{RESTARTED, TAKEN_OVER, Tally};
use crate::support::PATIENCE;

/// The deadline of a call that nothing should block.
const PATIENT: Duration = Duration::from_secs(30);
/// The deadline of a call that will hardly succeed.
const BRIEF: Duration = Duration::from_millis(1200);
/// The deadline of two calls that may block each other.
const TOGETHER: Duration = Duration::from_secs(4);
/// How long a temporary violation may last.
const GRACE: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(20);
/// The interval after which an orchestrator repeats a refused call.
const RETRY: Duration = Duration::from_millis(200);
const FAULT: &str = "of the sequence";

/// A violated rule, in words.
pub(super) type Verdict = Result<(), String>;

/// A volume, with all its possible states.
pub(super) struct Volume {
    pub(super) name: String,
    scenarios: BTreeSet<Scenario>,
}

impl Volume {
    /// Returns the number of possible generations.
    pub(super) fn generations(&self) -> usize {
        let lengths = self.scenarios.iter().map(|scenario| scenario.generations.len());
        lengths.max().unwrap_or_default()
    }

    fn latest(&self) -> usize {
        self.generations().saturating_sub(1)
    }

    pub(super) fn possible(&self, generation: usize) -> BTreeSet<Dataset> {
        self.scenarios
            .iter()
            .map(|scenario| scenario.dataset(generation))
            .collect()
    }

    fn may_wait(&self, generation: usize, action: Action) -> bool {
        self.possible(generation)
            .iter()
            .any(|dataset| dataset.may_wait(action))
    }

    /// Rules out the states that contradict the answers to concurrent calls.
    fn learn(&mut self, answered: &[Answered], around: Around) -> Verdict {
        let mut after = BTreeSet::new();
        for order in orders(answered) {
            let mut scenarios = self.scenarios.clone();
            for Answered {
                call,
                generation,
                answer,
                ..
            } in order
            {
                let outcomes = scenarios
                    .iter()
                    .flat_map(|scenario| scenario.outcomes(*generation, call.action, around));
                scenarios = outcomes
                    .filter(|(possible, _)| possible == answer)
                    .map(|(_, scenario)| scenario)
                    .collect();
                Scenario::drift(&mut scenarios, around);
            }
            after.append(&mut scenarios);
        }
        if after.is_empty() {
            return Err(self.unexpected(answered, around));
        }
        self.scenarios = after;
        Ok(())
    }

    fn unexpected(&self, answered: &[Answered], around: Around) -> String {
        let possible: Vec<_> = answered
            .iter()
            .map(|answered| {
                let scenarios = self.scenarios.iter();
                let outcomes = scenarios.flat_map(|scenario| {
                    scenario.outcomes(answered.generation, answered.call.action, around)
                });
                let answers: BTreeSet<_> = outcomes.map(|(answer, _)| format!("{answer:?}")).collect();
                format!(
                    "{:?} was answered {:?} ({}), possible is {answers:?}",
                    answered.call, answered.answer, answered.said
                )
            })
            .collect();
        let what = if answered
            .iter()
            .any(|answered| matches!(answered.call.action, Action::Create { .. }))
        {
            super::invariants::ONE_DATASET
        } else {
            "answers say what is true"
        };
        format!(
            "broken: {what}: {}; before, {:?}",
            possible.join("; "),
            self.scenarios
        )
    }
}

/// A call and its answer.
#[derive(Clone)]
struct Answered {
    call: VolumeCall,
    generation: usize,
    answer: Answer,
    said: String,
}

/// Returns the orders in which concurrent calls may have been carried out.
fn orders(answered: &[Answered]) -> Vec<Vec<&Answered>> {
    let forth: Vec<_> = answered.iter().collect();
    let back: Vec<_> = answered.iter().rev().collect();
    if answered.len() > 1 {
        vec![forth, back]
    } else {
        vec![forth]
    }
}

/// A running sequence.
pub(super) struct Case<'a> {
    fixture: &'a Fixture,
    tally: &'a Tally,
    volumes: [Volume; VOLUMES],
    /// Whether state has left a dataset out: an operation that is still running may have seen that.
    hazy: bool,
}

impl<'a> Case<'a> {
    /// Makes one with volumes of its own.
    pub(super) fn new(fixture: &'a Fixture, tally: &'a Tally, number: usize) -> Self {
        let volumes = std::array::from_fn(|volume| Volume {
            name: format!("case-{number}-{volume}"),
            scenarios: BTreeSet::from([Scenario::default()]),
        });
        Self {
            fixture,
            tally,
            volumes,
            hazy: false,
        }
    }

    /// Carries out all steps, undoes them, and checks that nothing is left.
    pub(super) async fn run(mut self, steps: &[Step]) -> Verdict {
        for (number, step) in steps.iter().enumerate() {
            let carried_out = self.step(step).await;
            carried_out.map_err(|broken| format!("{broken}\nafter step {number}, {step:?}"))?;
        }
        let undone = self.undo().await;
        undone.map_err(|broken| format!("{broken}\nwhile everything was undone at the end"))
    }

    async fn step(&mut self, step: &Step) -> Verdict {
        match *step {
            Step::Call(call) => self.call(call).await,
            Step::Up {
                volume,
                node,
                flow,
                crash,
            } => self.up(volume, (node, flow), crash).await,
            Step::Down { volume, node } => self.down(volume, node).await,
            Step::Pair(one, other) => self.pair(one, other).await,
            Step::Losing(call, nth, loss) => self.losing(call, nth, loss).await,
            Step::Killing(call, moment) => self.killing(call, moment).await,
            Step::Restart(plugin) => {
                self.kill(plugin).await;
                self.start(plugin).await;
                self.check().await
            }
            Step::Kill(plugin) => {
                self.kill(plugin).await;
                self.check().await
            }
            Step::Die(node, death) => {
                self.die(node, death).await;
                self.check().await
            }
            Step::TakeOver {
                volume,
                from,
                to,
                death,
            } => self.take_over(volume, (from, to), death).await,
            Step::Restarting(call, after) => self.restarting(call, after).await,
            Step::Flicker(flicker) => {
                self.hazy |= flicker != Flicker::Off;
                self.fixture.flicker(flicker);
                self.check().await
            }
            Step::Start(node) => {
                self.start(node).await;
                self.check().await
            }
            Step::Collect { node, killed } => {
                if killed {
                    self.kill(node).await;
                }
                self.fixture.collect(node, self.tally).await?;
                self.check().await
            }
            Step::List(plugin) => self.list(plugin).await,
        }
    }

    async fn up(&mut self, volume: usize, (node, flow): (usize, Flow), crash: Option<Moment>) -> Verdict {
        let create = Action::Create {
            kind: Kind::Small,
            plugin: node,
        };
        self.call(VolumeCall {
            volume,
            action: create,
        })
        .await?;
        if flow == Flow::Controller {
            self.call(VolumeCall {
                volume,
                action: Action::Attach { node },
            })
            .await?;
        }
        let stage = Action::Stage { node, flow };
        if let Some(moment) = crash {
            let call = VolumeCall {
                volume,
                action: stage,
            };
            self.killing(call, moment).await?;
        }
        let publish = Action::Publish {
            node,
            target: 0,
            access: Access::ReadWrite,
        };
        for action in [stage, publish] {
            self.call(VolumeCall { volume, action }).await?;
        }
        Ok(())
    }

    async fn down(&mut self, volume: usize, node: usize) -> Verdict {
        let unpublish = (0..TARGETS).map(|target| Action::Unpublish { node, target });
        let rest = [Action::Unstage { node }, Action::Detach { node: Some(node) }];
        for action in unpublish.chain(rest) {
            self.call(VolumeCall { volume, action }).await?;
        }
        Ok(())
    }

    /// Makes a call, and repeats it while its answer is open and nothing should block it.
    async fn call(&mut self, call: VolumeCall) -> Verdict {
        let generation = self.volumes[call.volume].latest();
        self.call_about(call, generation).await
    }

    async fn call_about(&mut self, call: VolumeCall, generation: usize) -> Verdict {
        let Some(request) = self.request(call, generation) else {
            return Ok(());
        };
        let deadline = Instant::now() + PATIENCE;
        loop {
            let waits = self.may_wait(call, generation);
            let (answer, said) = request.send(if waits { BRIEF } else { PATIENT }).await;
            let answered = Answered {
                call,
                generation,
                answer,
                said,
            };
            let late = format!(
                "broken: what nothing is in the way of is done: {call:?} is answered {}",
                answered.said
            );
            self.learn(&[answered])?;
            if answer != Answer::Open || (waits && !call.must_be_settled()) {
                return self.check().await;
            }
            for node in 0..NODES {
                // The process that it waits for must run again for that.
                if self.fixture.is_crippled() {
                    self.start(node).await;
                }
            }
            if Instant::now() > deadline {
                return Err(late);
            }
            sleep(POLL).await;
        }
    }

    async fn pair(&mut self, one: VolumeCall, other: VolumeCall) -> Verdict {
        let (one, other) = (by_its_controller(one), by_its_controller(other));
        if unordered(one, other) {
            self.call(one).await?;
            return self.call(other).await;
        }
        let generation = |case: &Self, call: VolumeCall| case.volumes[call.volume].latest();
        let (first, second) = (generation(self, one), generation(self, other));
        let (Some(request), Some(rival)) = (self.request(one, first), self.request(other, second)) else {
            return Ok(());
        };
        let (answer, answer_of_other) = tokio::join!(request.send(TOGETHER), rival.send(TOGETHER));
        let answered = [(one, first, answer), (other, second, answer_of_other)];
        let answered = answered.map(|(call, generation, (answer, said))| Answered {
            call,
            generation,
            answer,
            said,
        });
        if one.volume == other.volume {
            self.learn(&answered)?;
        } else {
            for answered in answered.clone() {
                self.learn(&[answered])?;
            }
        }
        self.check().await?;
        for answered in answered {
            self.settle(&answered).await?;
        }
        Ok(())
    }

    async fn losing(&mut self, call: VolumeCall, nth: Nth, loss: Loss) -> Verdict {
        let effect = match loss {
            Loss::Request => Effect::LoseRequest,
            Loss::Reply => Effect::LoseReply,
        };
        let generation = self.volumes[call.volume].latest();
        let Some(request) = self.request(call, generation) else {
            return Ok(());
        };
        let timeout = if self.may_wait(call, generation) {
            BRIEF
        } else {
            PATIENT
        };
        self.plan(effect, nth);
        let (answer, said) = request.send(timeout).await;
        self.fixture.flocker.embedded().faults().remove(FAULT);
        let answered = Answered {
            call,
            generation,
            answer,
            said,
        };
        self.learn(std::slice::from_ref(&answered))?;
        self.check().await?;
        self.settle(&answered).await
    }

    async fn killing(&mut self, call: VolumeCall, moment: Moment) -> Verdict {
        let generation = self.volumes[call.volume].latest();
        let Some(request) = self.request(call, generation) else {
            return Ok(());
        };
        let faults = self.fixture.flocker.embedded().faults().clone();
        match moment {
            Moment::Asked(nth) => self.plan(Effect::HoldRequest, nth),
            Moment::Done(nth) => self.plan(Effect::HoldReply, nth),
            Moment::Milliseconds(_) => {}
        }
        let mut answered = tokio::spawn(async move { request.send(TOGETHER).await });
        let come = async {
            match moment {
                Moment::Milliseconds(time) => sleep(Duration::from_millis(time)).await,
                Moment::Asked(_) | Moment::Done(_) => faults.until_met(FAULT, 1).await,
            }
        };
        let early = tokio::select! {
            answer = &mut answered => Some(answer.unwrap()),
            () = come => None,
        };
        self.fixture.kill_plugin(call.plugin()).await;
        faults.remove(FAULT);
        let (answer, said) = match early {
            Some(answer) => answer,
            None => answered.await.unwrap(),
        };
        // The answer on a broken connection is up to tonic.
        let answer = match answer {
            Answer::Refused(Code::Internal) => Answer::Open,
            answer => answer,
        };
        let answered = Answered {
            call,
            generation,
            answer,
            said,
        };
        self.learn(std::slice::from_ref(&answered))?;
        self.note_end_of(call.plugin());
        self.check().await?;
        self.start(call.plugin()).await;
        self.settle(&answered).await
    }

    async fn restarting(&mut self, call: VolumeCall, after: u64) -> Verdict {
        let generation = self.volumes[call.volume].latest();
        let Some(request) = self.request(call, generation) else {
            return Ok(());
        };
        let timeout = if self.may_wait(call, generation) {
            BRIEF
        } else {
            PATIENT
        };
        self.hazy = true;
        let restart = async {
            sleep(Duration::from_millis(after)).await;
            self.fixture.restart_control().await;
        };
        let ((answer, said), ()) = tokio::join!(request.send(timeout), restart);
        self.tally.note(RESTARTED);
        let answered = Answered {
            call,
            generation,
            answer,
            said,
        };
        self.learn(std::slice::from_ref(&answered))?;
        self.check().await?;
        self.settle(&answered).await
    }

    /// Attaches a volume to a node that then dies, and requests it on another node until that gets it.
    async fn take_over(&mut self, volume: usize, (from, to): (usize, usize), death: Death) -> Verdict {
        let controller = volume % NODES;
        let create = Action::Create {
            kind: Kind::Small,
            plugin: controller,
        };
        for action in [create, Action::Attach { node: from }] {
            self.call(VolumeCall { volume, action }).await?;
        }
        let generation = self.volumes[volume].latest();
        let possible = self.volumes[volume].possible(generation);
        let is_taken = |dataset: &Dataset| dataset.is_live() && dataset.lease == Some(from);
        if !possible.iter().all(is_taken) || self.fixture.silent()[to] {
            return Ok(());
        }
        // If a controller stops with its machine, no other process attaches to another node.
        let death = if from == controller { Death::Agent } else { death };
        self.die(from, death).await;
        self.check().await?;
        let call = VolumeCall {
            volume,
            action: Action::Attach { node: to },
        };
        let Some(request) = self.request(call, generation) else {
            return Ok(());
        };
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (answer, said) = request.send(BRIEF).await;
            let answered = Answered {
                call,
                generation,
                answer,
                said,
            };
            let late = format!(
                "broken: a volume is taken from a dead node: {call:?} is answered {}",
                answered.said
            );
            self.learn(&[answered])?;
            self.check().await?;
            if answer == Answer::Done {
                self.tally.note(TAKEN_OVER);
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(late);
            }
            sleep(RETRY).await;
        }
    }

    /// Repeats the calls that no orchestrator leaves open.
    async fn settle(&mut self, answered: &Answered) -> Verdict {
        if answered.answer == Answer::Open && answered.call.must_be_settled() {
            self.call_about(answered.call, answered.generation).await?;
        }
        Ok(())
    }

    async fn list(&mut self, plugin: usize) -> Verdict {
        let Some(csi) = self.fixture.csi(plugin) else {
            return Ok(());
        };
        let listed = list(&csi, PATIENT).await;
        let listed = listed.map_err(|status| format!("broken: volumes are listed: {status:?}"))?;
        for volume in &self.volumes {
            for generation in 0..=volume.generations() {
                let id = super::fixture::dataset_id(&volume.name, generation);
                let entries: Vec<_> = listed.iter().filter(|(listed, _)| *listed == id).collect();
                let as_listed = |dataset: &Dataset| match entries[..] {
                    [] => !dataset.is_live(),
                    [(_, nodes)] => {
                        let lease = dataset
                            .lease
                            .map(|node| self.fixture.machines[node].node().to_string());
                        dataset.is_live() && nodes.iter().eq(lease.iter())
                    }
                    _ => false,
                };
                let possible = volume.possible(generation);
                if !possible.iter().any(as_listed) {
                    let name = &volume.name;
                    return Err(format!(
                        "broken: lists match what exists: {name} ({id}) is {entries:?}; possible is {possible:?}"
                    ));
                }
            }
        }
        Ok(())
    }

    /// Undoes everything that may have been done, like an orchestrator that remembers every id.
    async fn undo(&mut self) -> Verdict {
        self.fixture.flicker(Flicker::Off);
        for node in 0..NODES {
            self.start(node).await;
        }
        for volume in 0..VOLUMES {
            for generation in 0..self.volumes[volume].generations() {
                let node_calls = (0..NODES).flat_map(|node| {
                    let unpublish = (0..TARGETS).map(move |target| Action::Unpublish { node, target });
                    unpublish.chain([Action::Unstage { node }])
                });
                let plugin = volume % NODES;
                let rest = [Action::Detach { node: None }, Action::Delete { plugin }];
                for action in node_calls.chain(rest) {
                    self.call_about(VolumeCall { volume, action }, generation).await?;
                }
            }
        }
        self.fixture.nothing_is_left().await
    }

    async fn kill(&mut self, plugin: usize) {
        self.fixture.kill_plugin(plugin).await;
        self.note_end_of(plugin);
    }

    async fn die(&mut self, node: usize, death: Death) {
        match death {
            Death::Agent => self.fixture.kill_agent(node),
            Death::PowerCut { known } => {
                self.fixture.cut_power(node, known).await;
                self.note_end_of(node);
                for volume in &mut self.volumes {
                    let scenarios = volume.scenarios.iter();
                    volume.scenarios = scenarios
                        .map(|scenario| scenario.without_mounts_of(node))
                        .collect();
                }
            }
        }
    }

    /// Starts every process that has ended on a node; until then, datasets that no plugin held, and those of nodes
    /// considered dead, may have changed.
    async fn start(&mut self, node: usize) {
        self.drift();
        self.fixture.start_node(node).await;
        self.drift();
    }

    fn drift(&mut self) {
        let around = self.around();
        for volume in &mut self.volumes {
            Scenario::drift(&mut volume.scenarios, around);
        }
    }

    fn around(&self) -> Around {
        Around {
            unheld: self.fixture.without_plugin(),
            silent: self.fixture.silent(),
            hazy: self.hazy,
            contending: false,
        }
    }

    fn may_wait(&self, call: VolumeCall, generation: usize) -> bool {
        self.fixture.is_crippled() || self.volumes[call.volume].may_wait(generation, call.action)
    }

    fn note_end_of(&mut self, plugin: usize) {
        let around = self.around();
        for (number, volume) in self.volumes.iter_mut().enumerate() {
            let is_controller = number % NODES == plugin;
            let scenarios = volume.scenarios.iter();
            let mut scenarios = scenarios
                .map(|scenario| scenario.without_plugin(plugin, is_controller))
                .collect();
            Scenario::drift(&mut scenarios, around);
            volume.scenarios = scenarios;
        }
    }

    fn request(&self, call: VolumeCall, generation: usize) -> Option<Request> {
        let name = &self.volumes[call.volume].name;
        let csi = self.fixture.csi(call.plugin())?;
        Some(self.fixture.request(csi, call.action, name, generation))
    }

    fn plan(&self, effect: Effect, nth: Nth) {
        let rule = RequestFault {
            method: Some(nth.method.to_owned()),
            after: nth.after,
            ..RequestFault::new(FAULT, effect).once()
        };
        self.fixture.flocker.embedded().faults().add(rule);
    }

    fn learn(&mut self, answered: &[Answered]) -> Verdict {
        let around = Around {
            contending: answered.len() > 1,
            ..self.around()
        };
        let volume = answered[0].call.volume;
        for answered in answered {
            self.tally.count(answered.call.action, answered.answer);
        }
        self.volumes[volume].learn(answered, around)
    }

    /// Compares the observed state with the possible states.
    async fn check(&self) -> Verdict {
        let deadline = Instant::now() + GRACE;
        loop {
            let seen = self.fixture.look().await;
            let volumes = self.volumes.iter();
            let mut broken: Vec<_> = volumes
                .flat_map(|volume| check(self.fixture, &seen, volume))
                .collect();
            broken.extend(check_origins(&seen));
            let lasting = broken
                .iter()
                .find(|broken| !broken.may_pass || Instant::now() > deadline);
            match lasting {
                Some(broken) => return Err(broken.text.clone()),
                None if broken.is_empty() => return Ok(()),
                None => sleep(POLL).await,
            }
        }
    }
}

/// Lets the volume's own controller delete it, because deletions and attachments exclude each other only within one
/// process: Flocker has no means for that.
fn by_its_controller(call: VolumeCall) -> VolumeCall {
    let plugin = call.volume % NODES;
    let action = match call.action {
        Action::Delete { .. } => Action::Delete { plugin },
        action => action,
    };
    VolumeCall { action, ..call }
}

/// Whether two calls must not be concurrent, for the same reason.
fn unordered(one: VolumeCall, other: VolumeCall) -> bool {
    let is_deletion = |call: VolumeCall| matches!(call.action, Action::Delete { .. });
    let takes_lease = |call: VolumeCall| matches!(call.action, Action::Stage { flow: Flow::Node, .. });
    let either = |one: VolumeCall, other: VolumeCall| is_deletion(one) && takes_lease(other);
    one.volume == other.volume && (either(one, other) || either(other, one))
}
