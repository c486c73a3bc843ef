//! One writer: what a node still writes to a volume that another node has.
//!
//! All nodes share one kernel here, so what two machines have is two loop devices of one file, and two file systems on it.

mod courses;
mod kept_pins;
mod manager;
mod played;
mod replaced;
mod stopped;
mod unbroken;

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use flocker_embedded::Options;
use flocker_embedded::faults::{AgentState, FaultPlan, NodeFault};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use uuid::Uuid;

use crate::support::csi::{Csi, Usage};
use crate::support::eventually;
use crate::support::flocker::Flocker;
use crate::support::machine::{Machine, Running};
use crate::support::process::Process;
use crate::support::scratch::loop_devices_on;

/// How long a node may be silent before it is no longer listed.
const EXPIRY: Duration = Duration::from_millis(500);
/// The shortest grace with which the leases are read often.
const SOON: Duration = Duration::from_secs(1);
/// How many writes of a task are waited for, to see that they succeed or fail.
const SOME: u64 = 20;

/// Two nodes of a Flocker that attaches a file twice: the plugin of the first is a process of its own, which is killed.
struct Fixture {
    flocker: Flocker,
    old: Machine,
    new: Machine,
    controller: Running,
}

impl Fixture {
    async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// As [`Self::start`], with changed settings of the second node.
    async fn with(change: impl FnOnce(&mut Machine)) -> Self {
        let flocker = Flocker::with(|options| Options {
            nodes: 2,
            double_attach: true,
            node_expiry: Some(EXPIRY),
            ..options
        })
        .await;
        let (old, mut new) = (Machine::new(&flocker, 1), Machine::new(&flocker, 2));
        change(&mut new);
        let controller = new.plugin().await;
        Self {
            flocker,
            old,
            new,
            controller,
        }
    }

    fn csi(&self) -> &Csi {
        &self.controller.csi
    }

    /// Starts the plugin of the first node.
    async fn old_plugin(&self) -> Process {
        self.old.process(&["--abandoned-grace=1s"]).await
    }

    /// Creates a volume and publishes it on the first node.
    async fn published(&self, plugin: &Process) -> Usage {
        let volume = self.csi().create("data").await;
        let context = self.csi().attach(volume, self.old.node()).await;
        let usage = self.old.usage("data", volume, &context);
        plugin.csi.stage(&usage).await.unwrap();
        plugin.csi.publish(&usage).await.unwrap();
        usage
    }

    /// Detaches a volume from the first node by force, and attaches it to the second.
    async fn moved(&self, usage: &Usage) -> Usage {
        self.csi().detach(usage.dataset(), self.old.node()).await;
        let context = self.csi().attach(usage.dataset(), self.new.node()).await;
        self.new.usage("data", usage.dataset(), &context)
    }

    /// Publishes a volume on the second node, which writes to it.
    async fn used_by_the_new_node(&self, usage: &Usage) {
        self.csi().stage(usage).await.unwrap();
        self.csi().publish(usage).await.unwrap();
        write_and_sync(&usage.target.join("new"), b"the new node's");
    }

    /// Stops the agent of a node, which Flocker lists no more after a while.
    async fn stop_agent(&self, number: usize) {
        let faults = self.flocker.embedded().faults();
        faults.change(|plan| {
            let dead = NodeFault {
                agent: AgentState::Stopped,
                ..NodeFault::default()
            };
            plan.nodes.insert(number, dead);
        });
        faults.until_in_force().await;
    }

    /// Lets every agent run again.
    fn start_agents(&self) {
        self.flocker.embedded().faults().set(FaultPlan::default());
    }

    /// Returns how many loop devices have the one backing file.
    fn devices(&self) -> usize {
        loop_devices_on(self.flocker.path()).len()
    }

    /// Returns the text of the backing file that begins with `marker`, wherever it is.
    fn on_disk(&self, dataset: Uuid, marker: &str) -> Vec<String> {
        let file = self.flocker.path().join("data/volumes").join(dataset.to_string());
        let bytes = fs::read(file).unwrap();
        let mut found = Vec::new();
        let mut rest = &bytes[..];
        while let Some(at) = memchr(rest, marker.as_bytes()) {
            rest = &rest[at..];
            let end = rest.iter().position(|byte| !byte.is_ascii_graphic());
            let text = &rest[..end.unwrap_or(rest.len())];
            found.push(String::from_utf8(text.to_vec()).unwrap());
            rest = &rest[marker.len()..];
        }
        found
    }
}

fn memchr(text: &[u8], marker: &[u8]) -> Option<usize> {
    text.windows(marker.len()).position(|window| window == marker)
}

fn write_and_sync(path: &Path, content: &[u8]) {
    fs::write(path, content).unwrap();
    fs::File::open(path).unwrap().sync_all().unwrap();
}

/// A task that writes to a volume without end, through a copy of the mount in a mount namespace of its own.
struct Task {
    child: Child,
    seen: Arc<Seen>,
}

/// The numbers of the writes that have ended.
#[derive(Default)]
struct Seen {
    succeeded: AtomicU64,
    failed: AtomicU64,
}

/// What every write of a task begins with; its number follows.
const WRITTEN: &str = "written-by-a-task-";

impl Task {
    /// Starts one, and waits until it writes.
    async fn start(target: &Path) -> Self {
        let script = format!(
            r#"n=0; while :; do n=$((n+1)); if printf '{WRITTEN}%08d' $n | dd of="$0/file" conv=notrunc,fsync status=none 2>/dev/null
               then echo ok $n; else echo failed $n; fi; done"#
        );
        let mut child = Command::new("unshare")
            .args(["--mount", "--propagation=private", "sh", "-c", &script])
            .arg(target)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let seen = Arc::new(Seen::default());
        let counts = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                let (how, number) = line.split_once(' ').unwrap();
                let count = if how == "ok" {
                    &counts.succeeded
                } else {
                    &counts.failed
                };
                count.store(number.parse().unwrap(), Ordering::SeqCst);
            }
        });
        let task = Self { child, seen };
        task.writes("it begins").await;
        task
    }

    fn succeeded(&self) -> u64 {
        self.seen.succeeded.load(Ordering::SeqCst)
    }

    fn failed(&self) -> u64 {
        self.seen.failed.load(Ordering::SeqCst)
    }

    /// Waits until some more writes have succeeded, and checks that none fails.
    async fn writes(&self, when: &str) {
        let before = self.succeeded();
        eventually(when, async || (self.succeeded() >= before + SOME).then_some(())).await;
        assert_eq!(self.failed(), 0, "{when}");
    }

    /// Waits until a write has failed.
    async fn is_stopped(&self) {
        eventually("the task is stopped", async || (self.failed() > 0).then_some(())).await;
    }

    /// Waits until some more writes have failed, and checks that none succeeds any more.
    async fn stays_stopped(&self) {
        let (failed, succeeded) = (self.failed(), self.succeeded());
        eventually("its writes fail", async || {
            (self.failed() >= failed + SOME).then_some(())
        })
        .await;
        assert_eq!(self.succeeded(), succeeded, "a write succeeded after the stop");
    }

    async fn end(mut self) -> u64 {
        self.child.kill().await.unwrap();
        self.succeeded()
    }
}
