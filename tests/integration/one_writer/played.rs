//! Courses of the protocol's model (`tests/protocol`), played by a real plugin, a real kernel and the embedded Flocker.
//!
//! The agents of the embedded Flocker act by themselves, so a course's step of an agent is waited for, and a step inside a
//! call of CSI is part of that call: the call is made at its first step, and what its later steps have done is checked.

use std::fs;

use flocker_csi::flocker::attach::Takeover;

use super::{Fixture, SOON, Task};
use crate::support::csi::{Csi, Usage, to_attach};
use crate::support::eventually;
use crate::support::mounts::Mounts;
use crate::support::namespace::in_own_namespace;
use crate::support::process::Process;
use course::{At, Course, Fate, Step, What};

#[path = "../../protocol/src/course.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    reason = "the model, a crate of its own, uses the rest"
)]
mod course;

/// A course that is being played. Node A is the first one, whose plugin is a process of its own; B is the second.
struct Player {
    fixture: Fixture,
    old_plugin: Option<Process>,
    volume: uuid::Uuid,
    /// The volume on A and B, from the publish contexts on.
    usage: [Option<Usage>; 2],
    /// The task on A.
    task: Option<Task>,
}

impl Player {
    async fn start(course: &Course) -> Self {
        assert_eq!(
            (course.back_end.as_str(), course.flow.as_str()),
            ("attaches-twice", "controller")
        );
        let fixture = Fixture::with(|new| {
            if course.takeover {
                new.config.node_loss.takeover = Takeover::NodeGone;
                new.config.node_loss.takeover_grace = SOON;
            }
        })
        .await;
        let old_plugin = Some(fixture.old_plugin().await);
        let volume = fixture.csi().create("data").await;
        fixture.csi().attach(volume, fixture.old.node()).await;
        fixture.flocker.reports(1, volume).await;
        fixture.csi().detach(volume, fixture.old.node()).await;
        Self {
            fixture,
            old_plugin,
            volume,
            usage: [None, None],
            task: None,
        }
    }

    fn csi(&self, at: At) -> &Csi {
        match at {
            At::A => &self.old_plugin.as_ref().expect("the plugin of node A runs").csi,
            At::B => self.fixture.csi(),
        }
    }

    fn usage(&self, at: At) -> &Usage {
        self.usage[at as usize].as_ref().expect("it is attached")
    }

    async fn holds_lease(&self, at: At) {
        let node = self.machine(at).node();
        let holder = self.fixture.flocker.leaseholder(self.volume).await;
        assert_eq!(holder, Some(node), "the lease is that of node {at:?}");
    }

    fn machine(&self, at: At) -> &crate::support::machine::Machine {
        match at {
            At::A => &self.fixture.old,
            At::B => &self.fixture.new,
        }
    }

    async fn is_mounted(&self, at: At, expected: bool) {
        let path = self.fixture.flocker.mount_of(at as usize + 1, self.volume);
        eventually(&format!("mounted on {at:?}: {expected}"), async || {
            (Mounts::read().at(&path).is_empty() != expected).then_some(())
        })
        .await;
    }

    async fn play(&mut self, step: Step) {
        assert_eq!(step.fate(), Fate::Answered, "lost requests are not played");
        let at = step.at();
        match step.what() {
            What::AttachReads => {
                let machine = self.machine(at);
                let context = eventually("the volume is attached", async || {
                    let request = to_attach(self.volume, machine.node());
                    self.fixture.csi().try_attach(request).await.ok()
                })
                .await;
                self.usage[at as usize] = Some(machine.usage("data", self.volume, &context));
            }
            What::AttachTakesOver | What::AttachLeases => self.holds_lease(at).await,
            What::AttachMoves => {
                let datasets = self.fixture.flocker.datasets().await;
                let dataset = datasets.iter().find(|dataset| dataset.dataset_id == self.volume);
                assert_eq!(dataset.unwrap().primary, self.machine(at).node());
            }
            What::DetachReleases => {
                self.fixture
                    .csi()
                    .detach(self.volume, self.machine(at).node())
                    .await;
            }
            What::StageBegins => self.csi(at).stage(self.usage(at)).await.unwrap(),
            What::StageMounts => assert!(!Mounts::read().at(&self.usage(at).alias()).is_empty()),
            What::Publish => self.publish(at).await,
            What::AgentUnmounts => self.is_mounted(at, false).await,
            What::AgentMounts => self.is_mounted(at, true).await,
            What::KillAgent => self.fixture.stop_agent(at as usize + 1).await,
            What::StartAgent => self.fixture.start_agents(),
            What::KillPlugin => self.old_plugin.take().expect("it runs").kill().await,
            What::StartPlugin => {
                let task = self.task.as_ref().expect("it writes");
                task.writes("the task on node A writes although node B has the volume")
                    .await;
                self.old_plugin = Some(self.fixture.old_plugin().await);
            }
            What::WatchReads => {
                let task = self.task.as_ref().expect("it writes");
                task.is_stopped().await;
                task.stays_stopped().await;
            }
            // Part of a call, or by themselves.
            What::Place
            | What::DetachByForce
            | What::AttachEnds
            | What::DetachReads
            | What::StagePins
            | What::StageReads
            | What::NodeExpires
            | What::AgentReceives
            | What::AgentReports
            | What::AgentDetaches
            | What::AgentAttaches => {}
            other => panic!("{other:?} is not played"),
        }
    }

    async fn publish(&mut self, at: At) {
        self.csi(at).publish(self.usage(at)).await.unwrap();
        match at {
            At::A => self.task = Some(Task::start(&self.usage(at).target).await),
            At::B => super::write_and_sync(&self.usage(at).target.join("new"), b"the new node's"),
        }
    }

    /// Ends what the course has left, and checks what node B wrote.
    async fn end(self) {
        let plugin = self.old_plugin.expect("it runs");
        self.task.expect("it was started").end().await;
        let [old, new] = self.usage.map(|usage| usage.expect("it was attached"));
        plugin.csi.unpublish(&old).await.unwrap();
        plugin.csi.unstage(&old).await.unwrap();
        // Where its task has not run, only its agent has mounted the volume.
        if new.target.exists() {
            assert_eq!(fs::read(new.target.join("new")).unwrap(), b"the new node's");
        }
        plugin.terminate().await;
    }
}

fn plays(text: &'static str) {
    in_own_namespace(move || async move {
        let course: Course = serde_json::from_str(text).unwrap();
        let mut player = Player::start(&course).await;
        for step in &course.steps {
            println!("{step:?}");
            player.play(*step).await;
        }
        player.end().await;
    });
}

#[test]
fn the_course_of_the_model_with_a_forced_detachment_is_that_of_the_plugin() {
    plays(include_str!("../../protocol/courses/detached-by-force.json"));
}

#[test]
fn the_course_of_the_model_with_a_takeover_is_that_of_the_plugin() {
    plays(include_str!("../../protocol/courses/taken-over.json"));
}

#[test]
fn the_course_of_the_model_where_no_node_has_the_lease_is_that_of_the_plugin() {
    plays(include_str!("../../protocol/courses/not-leased-when-read.json"));
}
