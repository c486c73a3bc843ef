//! Many life cycles of volumes, several concurrently, on all nodes, while plugins are killed, disks are full or read-only for a
//! moment, and requests to Flocker fail.
//!
//! The plugin of the second node is killed repeatedly. That of the first one is not, so its memory and its descriptors
//! show leaks. `SOAK_CYCLES` and `SOAK_SEED` in the environment choose the number of life cycles, and their seed; `make
//! soak` has enough of them to see memory grow.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use futures::stream::{self, StreamExt};
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use sha2::{Digest, Sha256};
use tokio::sync::{Mutex, Notify};
use tokio::time::{Instant, sleep};
use tonic::Code;

use super::calls::{Access, Action, Flow, Kind, NODES, TARGETS};
use super::fixture::{Fixture, dataset_id};
use super::random_faults::{self, RandomFault};
use super::scenarios::Answer;
use super::{LONGEST, setting};
use crate::support::csi::Csi;
use crate::support::namespace::in_own_namespace_for;
use crate::support::{PATIENCE, eventually};

/// As many life cycles as `make test` has time for.
const CYCLES: u32 = 60;
const SEED: u64 = 4523;
/// The number of cycles after which everything is checked.
const ROUND: u32 = 50;
/// The number of concurrent volumes.
const TOGETHER: usize = 4;
/// The number of life cycles that warm a process up.
const WARM_UP: u32 = 200;
/// The limit of the memory's growth after that, in KiB.
const GROWTH: u64 = 2 << 10;
/// The limit of a plugin's connections to Flocker.
const CONNECTIONS: usize = 5;
/// The index of the plugin that is not killed, and of the one that is.
const STEADY: usize = 0;
const MORTAL: usize = 1;

#[test]
fn lives_of_volumes_leave_nothing_behind_and_cost_no_memory_while_plugins_are_killed() {
    in_own_namespace_for(LONGEST, soak);
}

async fn soak() {
    let seed = setting("SOAK_SEED", SEED);
    let cycles = setting("SOAK_CYCLES", CYCLES);
    println!("soak: {cycles} lives, {TOGETHER} at a time, with SOAK_SEED={seed}");
    let fixture = Fixture::start_on(random_faults::prepare).await;
    let soak = Soak {
        csi: std::array::from_fn(|node| fixture.csi(node).unwrap()),
        fixture: &fixture,
        seed,
        calls: AtomicU32::new(0),
        due: AtomicU32::new(10),
        kill: Notify::new(),
        kills: AtomicU32::new(0),
        faults: AtomicU32::new(0),
        injecting: Mutex::default(),
        round_over: AtomicBool::new(false),
    };
    tokio::select! {
        never = soak.reaper() => never,
        never = soak.faults() => never,
        () = soak.rounds(cycles) => {}
    }
    println!(
        "soak: {} kills, {} faults, {} calls",
        soak.kills.load(Ordering::Relaxed),
        soak.faults.load(Ordering::Relaxed),
        soak.calls.load(Ordering::Relaxed)
    );
    assert!(
        soak.faults.load(Ordering::Relaxed) > cycles / 4,
        "disks and Flocker had faults"
    );
    assert!(
        soak.kills.load(Ordering::Relaxed) > cycles / 20,
        "plugins were killed"
    );
}

struct Soak<'a> {
    fixture: &'a Fixture,
    /// They reconnect by themselves.
    csi: [Csi; NODES],
    seed: u64,
    /// The number of calls so far, and the call at which the next kill is due.
    calls: AtomicU32,
    due: AtomicU32,
    kill: Notify,
    kills: AtomicU32,
    faults: AtomicU32,
    /// Held while there is a fault.
    injecting: Mutex<()>,
    /// Whether all volumes are deleted, so that no fault may keep what is left from being removed.
    round_over: AtomicBool,
}

/// The resources of a process at one moment.
#[derive(Clone, Copy, Debug)]
struct Footprint {
    /// In KiB.
    resident: u64,
    anonymous: u64,
    descriptors: usize,
    /// Connections of callers, and those to Flocker, of which a process keeps up to five: how many the first cycle needed
    /// varies.
    sockets: usize,
}

impl Soak<'_> {
    /// Kills the second node's plugin whenever a kill is due, a moment after a call has begun, and starts another one.
    async fn reaper(&self) -> ! {
        let mut random = StdRng::seed_from_u64(self.seed);
        loop {
            self.kill.notified().await;
            sleep(Duration::from_millis(random.random_range(0..40))).await;
            self.fixture.kill_plugin(MORTAL).await;
            self.kills.fetch_add(1, Ordering::Relaxed);
            self.fixture.start_plugin(MORTAL).await;
            let next = self.calls.load(Ordering::Relaxed) + random.random_range(10..60);
            self.due.store(next, Ordering::Relaxed);
        }
    }

    /// Lets faults happen, one after another, each for a few calls.
    async fn faults(&self) -> ! {
        let mut random = StdRng::seed_from_u64(self.seed.rotate_left(1));
        loop {
            self.further_calls(random.random_range(1..30)).await;
            let _injecting = self.injecting.lock().await;
            let number = self.faults.fetch_add(1, Ordering::Relaxed);
            let fault = RandomFault::inject(&mut random, self.fixture, number);
            self.further_calls(random.random_range(1..10)).await;
            fault.end(self.fixture);
        }
    }

    /// Waits until that many more calls were made, or all volumes of a round are deleted.
    async fn further_calls(&self, number: u32) {
        let until = self.calls.load(Ordering::Relaxed) + number;
        while self.calls.load(Ordering::Relaxed) < until && !self.round_over.load(Ordering::Relaxed) {
            sleep(Duration::from_millis(2)).await;
        }
    }

    async fn rounds(&self, cycles: u32) {
        let began = Instant::now();
        let (mut done, mut first, mut warm) = (0, None, None);
        while done < cycles {
            let numbers = done..cycles.min(done + ROUND);
            done = numbers.end;
            let lives = stream::iter(numbers).map(|number| self.life(number));
            lives.buffer_unordered(TOGETHER).collect::<()>().await;
            self.round_over.store(true, Ordering::Relaxed);
            let without_faults = self.injecting.lock().await;
            self.fixture.nothing_is_left().await.unwrap();

            let first = *first.get_or_insert_with(|| self.footprint());
            let now = self.footprint();
            eventually(
                &format!("more is open than after the first cycle: {now:?} now, {first:?} then"),
                async || {
                    let now = self.footprint();
                    let kept = now.descriptors <= first.descriptors;
                    (kept && now.sockets <= first.sockets + CONNECTIONS).then_some(())
                },
            )
            .await;
            let footprint = self.footprint();
            println!(
                "soak: {done} lives in {:.0} s, {} kills, RSS {} KiB (anonymous {} KiB), {} descriptors \
                 and {} sockets",
                began.elapsed().as_secs_f64(),
                self.kills.load(Ordering::Relaxed),
                footprint.resident,
                footprint.anonymous,
                footprint.descriptors,
                footprint.sockets
            );
            self.round_over.store(false, Ordering::Relaxed);
            drop(without_faults);
            if done >= WARM_UP {
                let warm = *warm.get_or_insert(footprint.resident);
                assert!(
                    footprint.resident <= warm + GROWTH,
                    "RSS grew from {warm} KiB after {WARM_UP} lives to {} KiB",
                    footprint.resident
                );
            }
        }
    }

    /// One life cycle of a volume: all calls on one node, sometimes on the other one as well, and its deletion.
    async fn life(&self, number: u32) {
        let mut random = StdRng::seed_from_u64(self.seed ^ (u64::from(number) << 32));
        let flow = if random.random() {
            Flow::Controller
        } else {
            Flow::Node
        };
        let (node, plugin) = (random.random_range(0..NODES), random.random_range(0..NODES));
        let mut data = vec![0; 256 << 10];
        random.fill_bytes(&mut data);
        let checksum = Sha256::digest(&data);
        let call = async |plugin: usize, action: Action| self.call(number, plugin, action).await;
        let kind = Kind::Small;
        call(plugin, Action::Create { kind, plugin }).await;

        self.up(number, plugin, node, flow).await;
        let file = |node| {
            let id = dataset_id(&name(number), 0);
            self.fixture.usage(node, id, 0).target.join("file")
        };
        fs::write(file(node), &data).unwrap();
        assert_eq!(Sha256::digest(fs::read(file(node)).unwrap()), checksum);
        self.down(number, plugin, node, flow).await;
        if random.random_ratio(1, 6) {
            let other = (node + 1) % NODES;
            self.up(number, plugin, other, flow).await;
            assert_eq!(
                Sha256::digest(fs::read(file(other)).unwrap()),
                checksum,
                "it moved with its data"
            );
            self.down(number, plugin, other, flow).await;
        }
        call(plugin, Action::Delete { plugin }).await;
    }

    async fn up(&self, number: u32, plugin: usize, node: usize, flow: Flow) {
        if flow == Flow::Controller {
            self.call(number, plugin, Action::Attach { node }).await;
        }
        self.call(number, node, Action::Stage { node, flow }).await;
        let (target, access) = (0, Access::ReadWrite);
        self.call(number, node, Action::Publish { node, target, access })
            .await;
    }

    async fn down(&self, number: u32, plugin: usize, node: usize, flow: Flow) {
        for target in 0..TARGETS {
            self.call(number, node, Action::Unpublish { node, target }).await;
        }
        self.call(number, node, Action::Unstage { node }).await;
        if flow == Flow::Controller {
            self.call(number, plugin, Action::Detach { node: Some(node) })
                .await;
        }
    }

    /// Repeats a call until it succeeds.
    async fn call(&self, number: u32, plugin: usize, action: Action) {
        let request = self
            .fixture
            .request(self.csi[plugin].clone(), action, &name(number), 0);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let made = self.calls.fetch_add(1, Ordering::Relaxed);
            if made == self.due.load(Ordering::Relaxed) {
                self.kill.notify_one();
            }
            let (answer, said) = request.send(Duration::from_secs(30)).await;
            match answer {
                Answer::Done | Answer::Made(0) => return,
                // The lease of a staging whose clean-up was interrupted is released a little later.
                Answer::Open | Answer::Refused(Code::FailedPrecondition) => {}
                Answer::Made(_) | Answer::Refused(_) => {
                    panic!("volume {number}: {action:?}: {answer:?}: {said}")
                }
            }
            assert!(Instant::now() < deadline, "volume {number}: {action:?}: {said}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    fn footprint(&self) -> Footprint {
        let process = self.fixture.process(STEADY).expect("it is not killed");
        let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
        let kib = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
            line.trim_start_matches(':')
                .trim()
                .trim_end_matches(" kB")
                .parse()
                .unwrap()
        };
        let open = fs::read_dir(format!("/proc/{process}/fd")).unwrap();
        // A descriptor that was closed since is skipped.
        let open = open.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
        let (sockets, descriptors): (Vec<_>, Vec<_>) =
            open.partition(|to| to.to_string_lossy().starts_with("socket:"));
        Footprint {
            resident: kib("VmRSS"),
            anonymous: kib("RssAnon"),
            descriptors: descriptors.len(),
            sockets: sockets.len(),
        }
    }
}

fn name(number: u32) -> String {
    format!("soak-{number}")
}
