//! The life of a volume of `standalone`, timed.

use std::fs;
use std::future::Future;
use std::path::{Path, PathBuf};

use futures::stream::{StreamExt, TryStreamExt, iter};
use tokio::time::{Duration, Instant, sleep};
use uuid::Uuid;

use super::history::{self, Deleted};
use crate::Result;
use crate::csi::{Csi, Staged};
use crate::plugin::{Memory, Plugin};
use crate::samples::Samples;

/// How long deleted datasets are listed.
pub(super) const LISTED: Duration = Duration::from_secs(1);
/// The storage of a thousand volumes would take 64 GiB if it was taken when they are made.
const ARGUMENTS: [&str; 3] = ["--allocation=thin", "--capacity=1TiB", "--deleted-listed-for=1s"];

/// How long mounts are waited for, and how often they are looked for.
const LONGEST: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(5);

/// A running `standalone`, and how long its volumes took.
pub(super) struct Standalone {
    directory: PathBuf,
    plugin: Plugin,
    csi: Csi,
    node: Uuid,
    pub(super) times: Times,
}

/// How long the steps of lives took.
#[derive(Default)]
pub(super) struct Times {
    pub(super) create: Samples,
    pub(super) attach: Samples,
    /// From the request to create it until a file can be written.
    pub(super) usable: Samples,
    pub(super) delete: Samples,
}

impl Times {
    pub(super) fn extend(&mut self, more: Self) {
        self.create.extend_with(more.create);
        self.attach.extend_with(more.attach);
        self.usable.extend_with(more.usable);
        self.delete.extend_with(more.delete);
    }
}

/// Calls `call` so often, with so many calls at once, and returns what they return.
pub(super) async fn at_once<T, F: Future<Output = Result<T>>>(
    csi: &Csi,
    count: usize,
    at_once: usize,
    mut call: impl FnMut(Csi) -> F,
) -> Result<Vec<T>> {
    let calls = iter(0..count).map(|_| call(csi.clone()));
    calls.buffer_unordered(at_once).try_collect().await
}

/// A volume in use.
struct Used {
    volume: String,
    staged: Staged,
    target: PathBuf,
}

impl Standalone {
    /// Starts one whose datasets of before were deleted long ago, with its files in `directory`.
    pub(super) async fn start(directory: &Path, deleted: Deleted<'_>) -> Result<Self> {
        history::write(&directory.join("data"), deleted)?;
        let plugin = Plugin::standalone(directory, &ARGUMENTS).await?;
        let mut csi = plugin.csi();
        let node = csi.node_id().await?;
        Ok(Self {
            directory: directory.to_owned(),
            plugin,
            csi,
            node,
            times: Times::default(),
        })
    }

    /// Lets this many volumes live, one after the other.
    pub(super) async fn lives(&mut self, count: usize) -> Result<()> {
        for _ in 0..count {
            self.live(&Uuid::new_v4().to_string()).await?;
        }
        Ok(())
    }

    /// Lets a volume be created, used and deleted, and notes how long that took.
    pub(super) async fn live(&mut self, name: &str) -> Result<()> {
        let used = self.use_new(name).await?;
        self.end(used).await
    }

    async fn use_new(&mut self, name: &str) -> Result<Used> {
        let directory = self.directory.join(Uuid::new_v4().to_string());
        fs::create_dir_all(&directory)?;
        let (staging, target) = (directory.join("staging"), directory.join("target"));
        fs::create_dir_all(&staging)?;
        let (csi, times) = (&mut self.csi, &mut self.times);
        let begun = Instant::now();
        let volume = csi.create_named(name).await?;
        times.create.add(begun.elapsed());
        let attaching = Instant::now();
        let context = csi.attach(&volume, self.node).await?;
        times.attach.add(attaching.elapsed());
        let staged = csi.stage(&volume, context, &staging).await?;
        csi.publish(&staged, &target).await?;
        fs::write(target.join("data"), "used")?;
        times.usable.add(begun.elapsed());
        Ok(Used {
            volume,
            staged,
            target,
        })
    }

    async fn end(&mut self, used: Used) -> Result<()> {
        let Used {
            volume,
            staged,
            target,
        } = used;
        let csi = &mut self.csi;
        csi.unpublish(&staged, &target).await?;
        csi.unstage(&staged).await?;
        csi.detach(&volume, self.node).await?;
        let begun = Instant::now();
        csi.delete(&volume).await?;
        self.times.delete.add(begun.elapsed());
        Ok(())
    }

    /// Returns how long it takes to create a volume; it is deleted again.
    pub(super) async fn create_and_delete(&mut self, name: &str) -> Result<Duration> {
        let begun = Instant::now();
        let volume = self.csi.create_named(name).await?;
        let taken = begun.elapsed();
        self.csi.delete(&volume).await?;
        Ok(taken)
    }

    /// Waits until as many of its volumes are mounted.
    pub(super) async fn until_mounted(&self, count: usize) -> Result<()> {
        let below = self.directory.join("data/flocker").display().to_string();
        let deadline = Instant::now() + LONGEST;
        loop {
            let table = fs::read_to_string("/proc/thread-self/mountinfo")?;
            let points = table.lines().filter_map(|line| line.split(' ').nth(4));
            if points.filter(|point| point.starts_with(&below)).count() >= count {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(format!("{count} volumes are not mounted after {LONGEST:?}").into());
            }
            sleep(LOOK).await;
        }
    }

    /// Returns a client that shares its connection.
    pub(super) fn csi(&self) -> Csi {
        self.csi.clone()
    }

    pub(super) fn memory(&self) -> Result<Memory> {
        self.plugin.memory()
    }

    /// Stops it in good order.
    pub(super) async fn stop(self) -> Result<()> {
        let Self { plugin, csi, .. } = self;
        drop(csi);
        plugin.stop().await
    }
}
