//! The memory of a process, and what it may be after an attack.

use std::fs;
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// What a plugin has at least that has served something, in KiB.
const SERVING: u64 = 4096;
/// How long after an attack the memory has to be back.
const AFTER: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);

/// The anonymous memory of a process, watched while it is attacked.
pub(crate) struct Watched {
    process: u32,
    before: u64,
}

impl Watched {
    /// Begins to watch a process that is idle.
    pub(crate) fn begin(process: u32) -> Self {
        Self {
            process,
            before: status(process, "RssAnon").max(SERVING),
        }
    }

    /// Asserts that the process has not had more than that many MiB in addition.
    pub(crate) fn assert_peak(&self, most: u64) {
        let peak = status(self.process, "VmHWM");
        let files = status(self.process, "RssFile");
        let added = peak.saturating_sub(files + self.before) >> 10;
        println!(
            "peak: {} KiB before, about {added} MiB more at the peak",
            self.before
        );
        assert!(
            added <= most,
            "{added} MiB more than the {} KiB before",
            self.before
        );
    }

    /// Waits until the process has at most half as much again as before.
    pub(crate) async fn returns(&self) {
        let began = Instant::now();
        loop {
            let now = status(self.process, "RssAnon");
            if now * 2 <= self.before * 3 {
                println!(
                    "{} KiB before, {now} KiB {:?} after",
                    self.before,
                    began.elapsed()
                );
                return;
            }
            assert!(
                began.elapsed() < AFTER,
                "{} KiB before, {now} KiB a minute after",
                self.before
            );
            sleep(POLL).await;
        }
    }
}

/// Returns a number of a process's status, in KiB.
fn status(process: u32, key: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let mut lines = status.lines();
    let line = lines.find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    let value = line.unwrap().trim().trim_end_matches(" kB");
    value.parse().unwrap()
}
