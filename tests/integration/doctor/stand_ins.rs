//! Stand-ins for the programs that recommended commands call, and that exist only on other machines.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tokio::process::Command;

/// A directory with stand-ins, which note how they were called.
pub(crate) struct StandIns {
    directory: PathBuf,
}

impl StandIns {
    /// Makes the stand-ins in a directory of their own. `ssh` runs the command here, `systemctl` only notes it.
    pub(crate) fn new(in_directory: &Path) -> Self {
        let directory = in_directory.join("bin");
        fs::create_dir_all(&directory).unwrap();
        let stand_ins = Self { directory };
        stand_ins.add("ssh", "shift; exec \"$@\"");
        stand_ins.add("systemctl", "");
        let program = env!("CARGO_BIN_EXE_flocker-csi");
        std::os::unix::fs::symlink(program, stand_ins.directory.join("flocker-csi")).unwrap();
        stand_ins
    }

    /// Adds a program, a shell script that is called with the arguments.
    pub(crate) fn add(&self, name: &str, script: &str) {
        let file = self.directory.join(name);
        let calls = self.calls_file();
        let note = format!("echo \"{name} $*\" >> {}", calls.display());
        fs::write(&file, format!("#!/bin/sh\nset -e\n{note}\n{script}\n")).unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o755)).unwrap();
    }

    fn calls_file(&self) -> PathBuf {
        self.directory.join("calls")
    }

    /// Runs a command as a person would in a shell, and returns its output.
    pub(crate) async fn run(&self, command: &str) -> String {
        self.run_with(command, &[]).await
    }

    /// As [`Self::run`], with variables in the environment.
    pub(crate) async fn run_with(&self, command: &str, variables: &[(String, String)]) -> String {
        println!("$ {command}\n");
        let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", self.directory.display());
        let mut shell = Command::new("sh");
        shell.args(["-c", command]).env_clear().env("PATH", path);
        shell.envs(variables.iter().cloned());
        let ended = shell.output().await.unwrap();
        assert!(ended.status.success(), "{command}: {ended:?}");
        String::from_utf8(ended.stdout).unwrap()
    }

    /// Returns how the stand-ins were called.
    pub(crate) fn calls(&self) -> String {
        fs::read_to_string(self.calls_file()).unwrap_or_default()
    }
}
