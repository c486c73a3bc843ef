//! The program itself.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::csi::Csi;
use super::{PATIENCE, eventually};

/// The environment variable with another program than the one built with the tests, to see that they fail with it.
const ANOTHER_PROGRAM: &str = "PROGRAM_UNDER_TEST";

/// Runs a program in a PID namespace of its own, and a mount namespace that receives mounts but propagates none.
pub(crate) const CONTAINED: [&str; 7] = [
    "unshare",
    "--pid",
    "--fork",
    "--kill-child",
    "--mount-proc",
    "--mount",
    "--propagation=slave",
];

pub(crate) fn program_under_test() -> OsString {
    let another = std::env::var_os(ANOTHER_PROGRAM);
    another.unwrap_or_else(|| env!("CARGO_BIN_EXE_flocker-csi").into())
}

/// A running plugin, which is killed at the end of its test if not before.
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
    pub(crate) csi: Csi,
}

impl Process {
    /// Starts the program, and returns when it serves.
    pub(crate) async fn start(arguments: Vec<&str>, log: &Path) -> Self {
        Self::serving(program(&arguments), log).await
    }

    /// As [`Self::start`], in a PID namespace of its own, and a mount namespace that receives mounts but propagates
    /// none.
    pub(crate) async fn start_contained(arguments: Vec<&str>, log: &Path) -> Self {
        Self::serving(program_under(&CONTAINED, &arguments), log).await
    }

    async fn serving(program: Command, log: &Path) -> Self {
        let started = Self::attempt(program, log).await;
        started.unwrap_or_else(|said| panic!("{said}"))
    }

    /// Starts a program, and returns when it serves, or with its output if it ends first.
    pub(crate) async fn attempt(program: Command, log: &Path) -> Result<Self, String> {
        Self::logging_to(File::create(log).unwrap(), program, log).await
    }

    /// As [`Self::attempt`], with a stream of any kind for the log; `log` is read when it fails.
    pub(crate) async fn logging_to(
        stderr: impl Into<Stdio>,
        mut program: Command,
        log: &Path,
    ) -> Result<Self, String> {
        let mut child = program.stdout(Stdio::piped()).stderr(stderr).spawn().unwrap();
        // It holds the other end of a pipe otherwise.
        drop(program);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let serving = async {
            while let Some(line) = lines.next_line().await.unwrap() {
                if let Some(endpoint) = line.strip_prefix("serving on ") {
                    return Some(endpoint.to_owned());
                }
            }
            None
        };
        let Some(endpoint) = timeout(PATIENCE, serving).await.expect("it starts in time") else {
            child.wait().await.unwrap();
            return Err(fs::read_to_string(log).unwrap_or_default());
        };
        let csi = Csi::connect(&endpoint.parse().unwrap()).await;
        Ok(Self {
            child,
            log: log.to_owned(),
            csi,
        })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// Kills it, as a crash would, and returns when it has ended.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Asks it to stop, and returns when it has ended in good order.
    pub(crate) async fn terminate(self) {
        let log = self.log.clone();
        let status = self.ends_on(Signal::TERM).await;
        assert!(
            status.success(),
            "{status}: {}",
            fs::read_to_string(log).unwrap_or_default()
        );
    }

    /// Sends it a signal, and returns how it has ended.
    pub(crate) async fn ends_on(mut self, signal: Signal) -> ExitStatus {
        let id = Pid::from_raw(self.id().cast_signed()).unwrap();
        kill_process(id, signal).unwrap();
        let ended = timeout(PATIENCE, self.child.wait()).await;
        ended.expect("it ends in time").unwrap()
    }

    /// Returns when another process has ended it.
    pub(crate) async fn ended(mut self) {
        let ended = timeout(PATIENCE, self.child.wait()).await;
        ended.expect("it ends in time").unwrap();
    }

    /// Returns when its log has these words: lines reach a file after the call that they are about has returned.
    pub(crate) async fn logged(&self, words: &str) -> String {
        eventually(&format!("the log has {words:?}"), async || {
            let log = self.log();
            log.contains(words).then_some(log)
        })
        .await
    }

    /// Waits until it has logged the end of a call, whose other lines name the method too.
    pub(crate) async fn logged_end_of(&self, method: &str) {
        eventually(&format!("the end of {method} is logged"), async || {
            let is_end = |line: &str| line.contains("Call ended") && line.contains(&format!("/{method}"));
            self.log().lines().any(is_end).then_some(())
        })
        .await;
    }

    /// Returns its log so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }
}

/// Runs the program to its end, and returns its status and output.
pub(crate) async fn run(arguments: &[&str]) -> (ExitStatus, String) {
    finish(program(arguments), arguments).await
}

/// Returns the program with arguments, and without the environment of the tests.
pub(crate) fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(program_under_test());
    command.args(arguments).env_clear().kill_on_drop(true);
    command
}

/// Returns a command that runs the program with arguments, and without the environment of the tests.
pub(crate) fn program_under(command: &[&str], arguments: &[&str]) -> Command {
    let (first, rest) = command.split_first().expect("a command has a name");
    let mut command = Command::new(first);
    command
        .args(rest)
        .arg(program_under_test())
        .args(arguments)
        .env_clear()
        .kill_on_drop(true);
    command
}

/// As [`run`], by another command that runs the program.
pub(crate) async fn run_under(command: &[&str], arguments: &[&str]) -> (ExitStatus, String) {
    finish(program_under(command, arguments), arguments).await
}

async fn finish(mut program: Command, arguments: &[&str]) -> (ExitStatus, String) {
    let ended = timeout(PATIENCE, program.stdin(Stdio::null()).output()).await;
    let ended = ended
        .unwrap_or_else(|_| panic!("it still runs with {arguments:?}"))
        .unwrap();
    (ended.status, String::from_utf8(ended.stderr).unwrap())
}

impl Drop for Process {
    /// Waits for its end: it must not run while its files are removed.
    fn drop(&mut self) {
        self.child.start_kill().ok();
        let id = self.child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        if let Some(id) = id {
            // The runtime takes the exit status.
            waitid(WaitId::Pid(id), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT).ok();
        }
    }
}
