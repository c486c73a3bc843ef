//! A program that is killed right before a chosen system call.

use std::sync::Arc;
use std::thread;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Command;
use tokio::sync::watch;

use super::calls::{Sight, rules};
use super::seccomp::{Filter, Listener, confine};

/// Decides from the calls so far, including the one that waits, whether that one must not be carried out.
pub(super) type Trap = Box<dyn Fn(&[String]) -> bool + Send + Sync>;

/// Watches the changes that a program makes.
#[derive(Clone, Default)]
pub(super) struct Tripwire(Arc<watch::Sender<State>>);

#[derive(Default)]
struct State {
    /// Absent as long as calls are not recorded.
    trap: Option<Trap>,
    calls: Vec<String>,
    sprung: bool,
}

impl Tripwire {
    /// Watches a program that is not started yet. For it, the kernel lacks the calls in `missing`.
    pub(super) fn watch(&self, program: &mut Command, sight: Sight, missing: &[libc::c_long]) {
        let from = confine(program, Filter::new(&rules(), missing));
        let wire = self.clone();
        thread::spawn(move || {
            if let Some((listener, pid)) = Listener::receive(&from) {
                wire.serve(&listener, pid, &sight);
            }
        });
    }

    /// Records calls from now on, and kills the program when the trap says so.
    pub(super) fn arm(&self, trap: Trap) {
        self.0.send_modify(|state| {
            state.trap = Some(trap);
            state.calls.clear();
        });
    }

    /// Returns the recorded calls. If the trap has fired, the last one was not carried out.
    pub(super) fn calls(&self) -> Vec<String> {
        self.0.borrow().calls.clone()
    }

    /// Stops recording, and returns the recorded calls.
    pub(super) fn disarm(&self) -> Vec<String> {
        self.0.send_modify(|state| state.trap = None);
        self.calls()
    }

    /// Whether the program was killed.
    pub(super) fn has_sprung(&self) -> bool {
        self.0.borrow().sprung
    }

    fn serve(&self, listener: &Listener, pid: Pid, sight: &Sight) {
        while let Some(waiting) = listener.next() {
            let goes_on = sight.describe(&waiting).is_none_or(|call| self.goes_on(call));
            if goes_on {
                listener.let_go_on(&waiting);
            } else {
                // It has been reached: one of the program's threads waits, or one of a program that it runs, and its
                // operation waits with it.
                let caller = Pid::from_raw(waiting.thread.cast_signed());
                for process in caller.into_iter().chain([pid]) {
                    kill_process(process, Signal::KILL).ok();
                }
            }
        }
    }

    fn goes_on(&self, call: String) -> bool {
        let mut goes_on = true;
        self.0.send_modify(|state| {
            if let Some(trap) = state.trap.as_ref().filter(|_| !state.sprung) {
                // A process that reads open files makes a mount busy for a moment; then the plugin tries again.
                let again = call.starts_with("umount") && state.calls.last() == Some(&call);
                if !again {
                    state.calls.push(call);
                    state.sprung = trap(&state.calls);
                }
            }
            goes_on = !state.sprung;
        });
        goes_on
    }
}
