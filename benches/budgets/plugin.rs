//! The plugin in its own process.

use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use rustix::io::ioctl_fionbio;
use rustix::process::{Pid, Signal, kill_process};
use tokio::task::spawn_blocking;
use tokio::time::{Duration, Instant};
use tonic::transport::Endpoint;

use crate::Result;
use crate::csi::Csi;
use crate::flocker::Flocker;
use crate::program::PROGRAM;

/// The plugin runs in a mount namespace of the benchmark's own, which the host does not see.
const UNVERIFIED: &str = "--accept-unverified-propagation";

/// No single call takes this long.
const LONGEST_CALL: Duration = Duration::from_secs(2 * 60);

/// How often the plugin's log is read. Its pipe holds many more lines than the plugin writes in that time.
const LOG_EVERY: Duration = Duration::from_millis(20);
/// The part of the log that is kept: only a failing start needs it.
const LOG_KEPT: usize = 64 << 10;

/// A running plugin; dropping it kills it.
pub(crate) struct Plugin {
    process: Process,
    endpoint: Endpoint,
    csi: Csi,
    started_in: Duration,
}

/// A process that does not outlive its owner.
struct Process(Child);

/// The memory of a process, in KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Memory {
    /// All resident memory, including the program's own file.
    pub(crate) resident: u32,
    /// The part that belongs to no file.
    pub(crate) anonymous: u32,
    /// The largest resident size so far.
    pub(crate) peak: u32,
}

impl Plugin {
    /// Starts `serve` on a node of `flocker`, with its socket in `directory`.
    pub(crate) async fn serve(
        directory: &Path,
        flocker: &Flocker,
        node: usize,
        more: &[String],
    ) -> Result<Self> {
        let node = flocker.node(node)?;
        let mut arguments = vec!["serve".to_owned()];
        arguments.extend(flocker.arguments());
        arguments.push(format!("--node-id={}", node.uuid));
        arguments.push(format!("--mount-root={}", node.mount_root.display()));
        arguments.push(format!("--state-dir={}", directory.join("state").display()));
        arguments.push(format!("--device-dir={}", directory.join("devices").display()));
        arguments.push(UNVERIFIED.to_owned());
        arguments.extend_from_slice(more);
        Self::start(directory, &arguments).await
    }

    /// Starts `standalone` with all its files in `directory`, and `more` arguments.
    pub(crate) async fn standalone(directory: &Path, more: &[&str]) -> Result<Self> {
        let data = format!("--data-dir={}", directory.join("data").display());
        let devices = format!("--device-dir={}", directory.join("devices").display());
        let mut arguments = vec!["standalone".to_owned(), data, devices, UNVERIFIED.to_owned()];
        arguments.extend(more.iter().map(ToString::to_string));
        Self::start(directory, &arguments).await
    }

    /// Starts the program and measures the time until Probe is answered.
    async fn start(directory: &Path, arguments: &[String]) -> Result<Self> {
        fs::create_dir_all(directory)?;
        let socket = directory.join("csi.sock");
        let mut command = Command::new(PROGRAM);
        // The plugin must not use the settings of the user who runs this.
        command
            .env_clear()
            .args(arguments)
            .arg(format!("--endpoint=unix://{}", socket.display()));
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display()))?.timeout(LONGEST_CALL);

        let begun = Instant::now();
        let mut child = command.spawn()?;
        let (stdout, log) = (child.stdout.take(), read_log(child.stderr.take())?);
        let process = Process(child);
        spawn_blocking(move || wait_for_announcement(stdout, &log)).await??;
        let mut csi = Csi::over(endpoint.connect().await?);
        csi.probe().await?;
        Ok(Self {
            process,
            endpoint,
            csi,
            started_in: begun.elapsed(),
        })
    }

    /// Returns a client with a connection of its own.
    pub(crate) async fn connect(&self) -> Result<Csi> {
        Ok(Csi::over(self.endpoint.connect().await?))
    }

    /// Returns a client; clones share one connection.
    pub(crate) fn csi(&self) -> Csi {
        self.csi.clone()
    }

    /// Returns the time from before the process is created until its first answer.
    pub(crate) fn started_in(&self) -> Duration {
        self.started_in
    }

    pub(crate) fn memory(&self) -> Result<Memory> {
        let directory = PathBuf::from("/proc").join(self.process.0.id().to_string());
        let read = |file: &str| fs::read_to_string(directory.join(file));
        let (rollup, status) = (read("smaps_rollup")?, read("status")?);
        Ok(Memory {
            resident: kib(&rollup, "Rss:")?,
            anonymous: kib(&rollup, "Anonymous:")?,
            peak: kib(&status, "VmHWM:")?,
        })
    }

    /// Asks the process to stop and waits until it has.
    pub(crate) async fn stop(self) -> Result<()> {
        let Self { mut process, csi, .. } = self;
        // The plugin's stop waits until open connections are closed.
        drop(csi);
        let pid = i32::try_from(process.0.id())
            .ok()
            .and_then(Pid::from_raw)
            .ok_or("a process without an id")?;
        kill_process(pid, Signal::TERM)?;
        let status = spawn_blocking(move || process.0.wait()).await??;
        if status.success() {
            Ok(())
        } else {
            Err(format!("the plugin ended with {status}").into())
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only when the process has already ended.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Measures how long a process takes that does almost nothing.
pub(crate) fn start_and_end() -> Result<Duration> {
    let begun = Instant::now();
    let status = Command::new(PROGRAM)
        .arg("--version")
        .env_clear()
        .stdout(Stdio::null())
        .status()?;
    let taken = begun.elapsed();
    if status.success() {
        Ok(taken)
    } else {
        Err("flocker-csi --version fails".into())
    }
}

/// Reads a log to its end, in a thread that no line wakes: it would compete for the processors with what is measured. Its
/// beginning arrives when it has ended.
fn read_log(log: Option<ChildStderr>) -> Result<Receiver<String>> {
    let mut log = log.ok_or("no standard error")?;
    ioctl_fionbio(&log, true)?;
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let (mut kept, mut page) = (Vec::new(), vec![0; 64 << 10]);
        loop {
            match log.read(&mut page) {
                Ok(0) => break,
                Ok(length) if kept.len() < LOG_KEPT => {
                    kept.extend_from_slice(page.get(..length).unwrap_or_default());
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::park_timeout(LOG_EVERY),
                Err(_) => break,
            }
        }
        sender.send(String::from_utf8_lossy(&kept).into_owned()).ok();
    });
    Ok(receiver)
}

/// Waits for the line that announces that it serves.
fn wait_for_announcement(stdout: Option<ChildStdout>, log: &Receiver<String>) -> Result<()> {
    let mut line = String::new();
    BufReader::new(stdout.ok_or("no standard output")?).read_line(&mut line)?;
    if line.starts_with("serving on ") {
        return Ok(());
    }
    Err(format!(
        "the plugin did not start: {}",
        log.recv().unwrap_or_default().trim()
    )
    .into())
}

fn kib(text: &str, field: &str) -> Result<u32> {
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(field)?.trim().strip_suffix(" kB"));
    Ok(value
        .ok_or_else(|| format!("the kernel does not report {field}"))?
        .parse()?)
}
