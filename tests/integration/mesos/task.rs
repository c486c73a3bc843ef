//! A task: a process with its volume, in a mount namespace of its own.

use std::path::Path;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

use super::failure::{Failure, failed};
use crate::support::PATIENCE;

/// The line that the shell of a task prints when its command has succeeded.
const READY: &str = "the command has succeeded";
/// Its arguments are the volume, the path for it, `rw` or `ro`, the command, and the task's own program. The task lives
/// until its input ends.
const SHELL: &str = r#"
    mount --rbind "$1" "$2" || exit
    [ "$3" = rw ] || mount -o remount,bind,ro "$2" || exit
    cd "$2" || exit
    exec $4 sh -c "set -e
        $5
        echo
        echo \"$6\"
        exec cat"
"#;

/// How a task uses a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Rw,
    Ro,
}

/// A running task. It is killed at the end of its test if not before.
pub(crate) struct Task {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Task {
    /// Starts a task in a sandbox, with a published volume as its working directory, and returns with what `command`
    /// has printed once that has ended. The task itself continues.
    pub(crate) async fn start(
        published: &Path,
        sandbox: &Path,
        mode: Mode,
        user: Option<u32>,
        command: &str,
    ) -> Result<(Self, String), Failure> {
        let user = user.map_or("exec".to_owned(), |user| {
            format!("setpriv --reuid={user} --regid={user} --clear-groups --")
        });
        let mode = match mode {
            Mode::Rw => "rw",
            Mode::Ro => "ro",
        };
        let mut task = Command::new("unshare")
            .args(["--mount", "--propagation=slave", "sh", "-c", SHELL, "sh"])
            .args([published, sandbox])
            .args([mode, if user == "exec" { "" } else { &user }, command, READY])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut task = Self {
            lines: BufReader::new(task.stdout.take().unwrap()).lines(),
            child: task,
        };
        let mut said = Vec::new();
        let succeeds = async {
            while let Some(line) = task.lines.next_line().await.unwrap() {
                if line == READY {
                    return true;
                }
                said.push(line);
            }
            false
        };
        if timeout(PATIENCE, succeeds)
            .await
            .expect("the command ends in time")
        {
            Ok((task, said.join("\n").trim().to_owned()))
        } else {
            failed(format!("TASK_FAILED: {command} ({})", said.join("\n")))
        }
    }

    /// Ends it, and waits for that: its mount namespace ends with it.
    pub(crate) async fn end(mut self) {
        drop(self.child.stdin.take());
        let ended = timeout(PATIENCE, self.child.wait()).await;
        assert!(ended.expect("it ends in time").unwrap().success());
    }
}
