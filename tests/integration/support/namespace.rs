//! A mount namespace for each test.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::thread;
use std::time::Duration;

use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use tokio::runtime::Builder;
use tokio::time::timeout;

use super::scratch::clean_up_after_runtime;

/// Longer than any test takes, unless it waits for an event that does not happen.
const LONGEST: Duration = Duration::from_secs(180);

/// Runs a test on a runtime whose threads share mounts with each other, but with no other process.
///
/// Within, `/` is a shared mount, as it is on a host. The mounts end with the namespace, and the namespace with the test.
pub(crate) fn in_own_namespace<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    in_own_namespace_for(LONGEST, test);
}

/// As [`in_own_namespace`], for a test that may take that long.
pub(crate) fn in_own_namespace_for<F: Future<Output = ()>>(
    longest: Duration,
    test: impl FnOnce() -> F + Send + 'static,
) {
    let run = move || {
        enter_own_namespace();
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let run =
            || runtime.block_on(async { timeout(longest, test()).await.expect("the test ends in time") });
        let outcome = catch_unwind(AssertUnwindSafe(run));
        // Waits for blocking steps: the files that they make are removed afterwards.
        drop(runtime);
        clean_up_after_runtime();
        if let Err(panic) = outcome {
            resume_unwind(panic);
        }
    };
    let name = thread::current().name().unwrap_or("test").to_owned();
    if let Err(panic) = thread::Builder::new().name(name).spawn(run).unwrap().join() {
        resume_unwind(panic);
    }
}

#[allow(
    unsafe_code,
    reason = "the descriptor table, which is what makes unshare unsafe, stays shared"
)]
fn enter_own_namespace() {
    // SAFETY: without CLONE_FILES every descriptor stays valid in every thread.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::FS) }.expect("these tests need root");
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
    mount_change("/", MountPropagationFlags::SHARED | MountPropagationFlags::REC).unwrap();
}
