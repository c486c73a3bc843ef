//! The heap of the process: how the C library keeps it, and when memory that is no longer used is returned to the kernel.
//!
//! The C library returns the end of the heap only, and one object that is still in use keeps everything before it: after a
//! list of 38 MB, more than 500 MiB stayed. So a task compares what is resident with what is in use, and has the C library
//! return the difference when it is worth that. With another C library than glibc nothing is done: musl's returns memory
//! as it is freed.

/// Allocations of this size in bytes, or more, are mapped apart from the heap.
#[cfg(target_env = "gnu")]
const MAPPED_SIZE: i32 = 128 << 10;

/// Makes all threads share one heap, and returns the memory of a long mount table or list to the kernel at once.
///
/// By default the C library gives each thread a heap of its own and raises the threshold for mappings of their own: nine
/// heaps of up to 5 MiB were measured with a thousand volumes.
#[allow(unsafe_code, reason = "no crate wraps these calls")]
pub fn share_one_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the calls only change settings of the allocator, which is allowed at any time.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_SIZE);
    }
}

#[cfg(not(target_env = "gnu"))]
pub use other::return_unused;

#[cfg(target_env = "gnu")]
pub use glibc::return_unused;

#[cfg(not(target_env = "gnu"))]
mod other {
    /// Does nothing.
    pub async fn return_unused() {}
}

#[cfg(target_env = "gnu")]
mod glibc {
    use std::time::Duration;

    use crate::telemetry::spawn_blocking;
    use tokio::time::{MissedTickBehavior, interval};

    /// How often to compare. A comparison takes some microseconds, or milliseconds after a peak.
    const CHECK_EVERY: Duration = Duration::from_secs(10);
    /// The least number of bytes that is worth returning.
    const LEAST: usize = 512 << 10;

    /// Returns unused memory to the kernel whenever there is much of it. Never ends.
    pub async fn return_unused() {
        let mut ticks = interval(CHECK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut trigger = Trigger::default();
        loop {
            ticks.tick().await;
            let Some(before) = Memory::read() else { continue };
            if !trigger.is_worthwhile(before) {
                continue;
            }
            // It holds the lock of the heap for a moment, a millisecond for every few megabytes.
            let Ok(after) = spawn_blocking(trim).await else {
                continue;
            };
            if let Some(after) = after {
                trigger.returned(before, after);
                let returned = before.resident.saturating_sub(after.resident) >> 10;
                tracing::debug!("Returned {returned} KiB of unused memory to the kernel");
            }
        }
    }

    /// The memory of the process in bytes.
    #[derive(Clone, Copy, Debug)]
    struct Memory {
        /// Resident, and not of a file.
        resident: usize,
        /// Allocated.
        used: usize,
    }

    impl Memory {
        /// Reads both. What is allocated or freed in the meantime counts as used.
        fn read() -> Option<Self> {
            let earlier = allocated();
            let status = std::fs::read_to_string("/proc/self/status").ok()?;
            Some(Self {
                resident: resident(&status)?,
                used: allocated().max(earlier),
            })
        }

        fn unused(self) -> usize {
            self.resident.saturating_sub(self.used)
        }
    }

    /// Returns how many bytes are resident that are not of a file.
    fn resident(status: &str) -> Option<usize> {
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
        let kibibytes: usize = line.trim().strip_suffix(" kB")?.parse().ok()?;
        Some(kibibytes << 10)
    }

    #[allow(unsafe_code, reason = "no crate wraps this call")]
    fn allocated() -> usize {
        // SAFETY: the call only reads the state of the allocator, which it locks. Its successor, mallinfo2, is missing in
        // versions of the library that are in use.
        let info = unsafe { libc::mallinfo() };
        // Numbers above 2 GiB appear as negative ones.
        info.uordblks.cast_unsigned() as usize + info.hblkhd.cast_unsigned() as usize
    }

    #[allow(unsafe_code, reason = "no crate wraps this call")]
    fn trim() -> Option<Memory> {
        // SAFETY: the call returns unused pages of the allocator, which it locks.
        unsafe { libc::malloc_trim(0) };
        Memory::read()
    }

    /// Decides when returning memory is worth it.
    #[derive(Debug, Default)]
    struct Trigger {
        /// What was unused and could not be returned: stacks, and pages that are in use in part.
        futile: usize,
    }

    impl Trigger {
        fn is_worthwhile(&mut self, memory: Memory) -> bool {
            let unused = memory.unused();
            self.futile = self.futile.min(unused);
            unused - self.futile >= LEAST.max(memory.used / 8)
        }

        /// Notes what was unused before memory was returned, and still is. What other threads freed while it was returned,
        /// or waited to free, may be returned the next time.
        fn returned(&mut self, before: Memory, after: Memory) {
            self.futile = before.unused().min(after.unused());
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        fn memory(resident: usize, used: usize) -> Memory {
            Memory {
                resident: resident << 20,
                used: used << 20,
            }
        }

        #[test]
        fn what_a_peak_leaves_behind_is_returned_once() {
            let mut trigger = Trigger::default();
            assert!(!trigger.is_worthwhile(memory(3, 3)));
            assert!(!trigger.is_worthwhile(memory(600, 590)), "it is in use");
            assert!(trigger.is_worthwhile(memory(600, 4)));
            trigger.returned(memory(600, 4), memory(10, 4));
            assert!(
                !trigger.is_worthwhile(memory(10, 4)),
                "the rest could not be returned"
            );
            assert!(trigger.is_worthwhile(memory(11, 4)));
            trigger.returned(memory(11, 4), memory(10, 4));
            assert!(!trigger.is_worthwhile(memory(5, 4)));
            assert!(
                trigger.is_worthwhile(memory(8, 5)),
                "what could not be returned has become less"
            );
            assert!(
                !trigger.is_worthwhile(memory(3, 4)),
                "used is mapped, and not resident yet"
            );
        }

        #[test]
        fn what_is_freed_while_memory_is_returned_is_returned_the_next_time() {
            let mut trigger = Trigger::default();
            let before = memory(192, 189);
            trigger.returned(before, memory(44, 4));
            assert!(trigger.is_worthwhile(memory(44, 4)));
            trigger.returned(memory(44, 4), memory(6, 4));
            assert!(!trigger.is_worthwhile(memory(6, 4)));
        }

        #[test]
        fn the_memory_of_this_process_can_be_read_and_returned() {
            let blocks: Vec<_> = (0..100).map(|_| vec![1_u8; 100 << 10]).collect();
            let memory = Memory::read().unwrap();
            assert!(memory.used > 100 * (100 << 10), "{memory:?}");
            drop(blocks);
            assert!(trim().is_some());
            assert_eq!(
                resident("VmRSS:\t 9 kB\nRssAnon:\t    4096 kB\nRssFile:\t 5 kB\n"),
                Some(4 << 20)
            );
            assert_eq!(resident("VmRSS:\t 9 kB\n"), None);
        }
    }
}
