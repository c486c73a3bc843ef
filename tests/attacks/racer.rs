//! Another process exchanges directories and links while the plugin stages, publishes, unpublishes and unstages below them.
//!
//! What has to hold: no mount outside of the attacker's directory is touched, no mount appears there, and once the attacker
//! stops, unpublishing and unstaging leave nothing. `RACER_SECONDS` sets how long it goes on.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{chown, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::mount::{MountFlags, mount};
use tokio::time::Instant;

use crate::support::csi::{Csi, Usage};
use crate::support::eventually;
use crate::support::flocker::Flocker;
use crate::support::machine::Machine;
use crate::support::mounts::Mounts;
use crate::support::namespace::in_own_namespace_for;

const SECONDS: u64 = 20;
/// The attacker: any user but root.
const NOBODY: u32 = 65534;
/// Longer than the set-up and the end take.
const MARGIN: Duration = Duration::from_secs(100);

/// Two names that the attacker exchanges, and exchanges again.
struct Pair {
    /// What is at the first name while the attacker rests: a directory, or nothing.
    real: PathBuf,
    /// What is at the second one then.
    other: PathBuf,
}

/// The attacker's directory, and the pairs of names in it.
struct Attacker {
    directory: PathBuf,
    pairs: Vec<Pair>,
}

impl Attacker {
    /// Makes a directory that is writable by others, with links to where a volume is staged and published for another
    /// task, to where mounts could be left, and to another directory like it.
    fn new(machine: &Machine, victim: &Usage, elsewhere: &Path) -> Self {
        let directory = machine.path("attacker");
        let path = |name: &str| directory.join(name);
        for name in ["a/staging", "a/targets", "b/staging", "b/targets/target"] {
            fs::create_dir_all(path(name)).unwrap();
        }
        mount_foreign(&path("b/targets/target"));
        fs::create_dir(path("b/staging").join(&victim.volume_id)).unwrap();
        mount_foreign(&path("b/staging").join(&victim.volume_id));
        symlink(machine.path("victim"), path("to-victim")).unwrap();
        symlink(elsewhere, path("elsewhere")).unwrap();
        symlink(machine.path("victim/staging"), path("a/to-staging")).unwrap();
        symlink(machine.path("victim/targets"), path("a/to-targets")).unwrap();
        symlink(victim.alias(), path("a/staging/to-alias")).unwrap();
        symlink(&victim.target, path("a/targets/to-target")).unwrap();
        for name in ["", "a", "a/staging", "a/targets", "b", "b/staging", "b/targets"] {
            chown(path(name), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let alias = format!("a/staging/{}", victim.volume_id);
        let pairs = [
            ("a", "to-victim"),
            ("a", "elsewhere"),
            ("a", "b"),
            ("a/staging", "a/to-staging"),
            ("a/targets", "a/to-targets"),
            (alias.as_str(), "a/staging/to-alias"),
            ("a/targets/target", "a/targets/to-target"),
        ];
        let pairs = pairs.map(|(real, other)| Pair {
            real: path(real),
            other: path(other),
        });
        Self {
            directory,
            pairs: pairs.into(),
        }
    }

    /// Exchanges one pair after the other until it is to stop; everything is at its place afterwards.
    fn run(&self, stop: &AtomicBool, exchanges: &AtomicU64) {
        let mut turn = 0;
        while !stop.load(Ordering::Relaxed) {
            for pair in &self.pairs {
                // The directory at the first name may not exist at this moment, or be a mount point.
                if pair.exchange() {
                    exchanges.fetch_add(1, Ordering::Relaxed);
                    turn += 1;
                    spin(Duration::from_micros(turn * 7 % 300));
                    pair.restore();
                    // Whole calls succeed in between, so that there is something to unmount.
                    spin(Duration::from_micros(turn * 211 % 4000));
                }
            }
        }
    }
}

/// Passes a time that is shorter than a switch of threads takes.
fn spin(time: Duration) {
    let until = Instant::now() + time;
    while Instant::now() < until {
        std::thread::yield_now();
    }
}

impl Pair {
    fn exchange(&self) -> bool {
        renameat_with(CWD, &self.real, CWD, &self.other, RenameFlags::EXCHANGE).is_ok()
    }

    /// Moves both back, also when the plugin has removed the directory at its other name, or has mounted on it.
    fn restore(&self) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !self.exchange() {
            if !self.other.exists() && fs::rename(&self.real, &self.other).is_ok() {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "{} cannot be moved back: {:?}",
                self.other.display(),
                Mounts::read().below(&self.other)
            );
        }
    }
}

fn mount_foreign(at: &Path) {
    mount("foreign", at, "tmpfs", MountFlags::empty(), None).unwrap();
}

/// The mounts outside of the attacker's directory, and those in it that the plugin did not make.
fn protected(attacker: &Path) -> BTreeMap<u64, PathBuf> {
    let table = Mounts::read();
    let all = table.below(Path::new("/"));
    let protected = all
        .into_iter()
        .filter(|mount| !mount.point.starts_with(attacker) || mount.source == "foreign");
    protected.map(|mount| (mount.id, mount.point)).collect()
}

/// Returns the mounts of `protected` outside of the attacker's directory, which never move.
fn outside(attacker: &Path) -> BTreeMap<u64, PathBuf> {
    let mut mounts = protected(attacker);
    mounts.retain(|_, point| !point.starts_with(attacker));
    mounts
}

/// How the calls ended.
#[derive(Debug, Default)]
struct Tally {
    rounds: u64,
    published: u64,
    refused: u64,
}

async fn one_life(csi: &Csi, usage: &Usage, tally: &mut Tally) {
    tally.rounds += 1;
    let staged = csi.stage(usage).await;
    let published = csi.publish(usage).await;
    tally.published += u64::from(published.is_ok());
    let answers = [
        staged,
        published,
        csi.unpublish(usage).await,
        csi.unstage(usage).await,
    ];
    tally.refused += answers.iter().filter(|answer| answer.is_err()).count() as u64;
}

#[test]
fn exchanged_directories_and_links_lead_to_no_other_mount() {
    let seconds = std::env::var("RACER_SECONDS").map_or(SECONDS, |text| text.parse().unwrap());
    let lasting = Duration::from_secs(seconds);
    in_own_namespace_for(lasting + MARGIN, move || async move {
        let flocker = Flocker::start(1).await;
        let machine = Machine::new(&flocker, 1);
        let plugin = machine.plugin().await;
        let csi = &plugin.csi;
        let volume = csi.create("data").await;
        let context = csi.attach(volume, machine.node()).await;
        let planned = machine.usage("data", volume, &context);

        let victim = Usage {
            staging: machine.path("victim/staging"),
            target: machine.path("victim/targets/target"),
            ..planned.clone()
        };
        let elsewhere = machine.path("elsewhere");
        for directory in [
            &victim.staging,
            &elsewhere.join("staging"),
            &elsewhere.join("targets"),
        ] {
            fs::create_dir_all(directory).unwrap();
        }
        fs::create_dir(machine.path("victim/targets")).unwrap();
        csi.stage(&victim).await.unwrap();
        csi.publish(&victim).await.unwrap();

        let attacker = Arc::new(Attacker::new(&machine, &victim, &elsewhere));
        let directory = attacker.directory.clone();
        let exposed = Usage {
            staging: directory.join("a/staging"),
            target: directory.join("a/targets/target"),
            ..planned
        };
        let (before, before_outside) = (protected(&directory), outside(&directory));

        let (stop, exchanges) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let racing = std::thread::spawn({
            let (attacker, stop, exchanges) =
                (Arc::clone(&attacker), Arc::clone(&stop), Arc::clone(&exchanges));
            move || attacker.run(&stop, &exchanges)
        });
        let mut tally = Tally::default();
        let until = Instant::now() + lasting;
        while Instant::now() < until && !racing.is_finished() {
            one_life(csi, &exposed, &mut tally).await;
            assert_eq!(outside(&directory), before_outside, "after {tally:?}");
        }
        stop.store(true, Ordering::Relaxed);
        racing.join().unwrap();
        println!("{tally:?}, {} exchanges", exchanges.load(Ordering::Relaxed));

        eventually("everything is unpublished and unstaged", async || {
            csi.unpublish(&exposed).await.ok()?;
            csi.unstage(&exposed).await.ok()
        })
        .await;
        assert_eq!(protected(&directory), before);
        let left = Mounts::read().below(&directory);
        assert!(left.iter().all(|mount| mount.source == "foreign"), "{left:?}");
        assert_eq!(fs::read_dir(elsewhere.join("staging")).unwrap().count(), 0);
        assert_eq!(fs::read_dir(elsewhere.join("targets")).unwrap().count(), 0);
        assert_eq!(machine.records().len(), 1, "{:?}", machine.records());
        assert!(tally.published > 0 && tally.refused > 0, "{tally:?}");

        // Without the attacker, its directory is as good as any other.
        csi.stage(&exposed).await.unwrap();
        csi.publish(&exposed).await.unwrap();
        for usage in [&exposed, &victim] {
            csi.unpublish(usage).await.unwrap();
            csi.unstage(usage).await.unwrap();
        }
        plugin.stop().await;
    });
}
