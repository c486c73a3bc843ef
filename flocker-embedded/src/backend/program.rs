//! The program of the system that creates file systems.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use super::error::StepError;
use crate::Error;

/// The program, found once at the start.
#[derive(Debug)]
pub(super) struct Programs {
    mkfs: PathBuf,
}

impl Programs {
    pub(super) fn find() -> Result<Self, Error> {
        Ok(Self {
            mkfs: find("mkfs.ext4", "e2fsprogs")?,
        })
    }

    /// Creates an ext4 file system, as Flocker does: without options.
    pub(super) fn make_file_system(&self, device: &Path) -> Result<(), StepError> {
        let output = run(Command::new(&self.mkfs).arg("-F").arg(device))?;
        if output.status.success() {
            Ok(())
        } else {
            Err(program_error(&self.mkfs, device, &output))
        }
    }
}

fn run(command: &mut Command) -> Result<Output, StepError> {
    let program = PathBuf::from(command.get_program());
    command
        .stdin(Stdio::null())
        .output()
        .map_err(StepError::io("run", &program))
}

fn program_error(program: &Path, device: &Path, output: &Output) -> StepError {
    let said = String::from_utf8_lossy(&output.stderr);
    StepError::Program {
        program: program.to_owned(),
        device: device.to_owned(),
        outcome: format!("{}: {}", output.status, said.trim()),
    }
}

/// Finds a program where the shell does, or where root's shell does.
fn find(program: &'static str, package: &'static str) -> Result<PathBuf, Error> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|directory| directory.join(program))
        .find(|candidate| candidate.is_file())
        .ok_or(Error::MissingProgram { program, package })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_named_with_its_package() {
        let error = find("mkfs.no-such-file-system", "no-such-package").unwrap_err();
        assert!(error.to_string().contains("mkfs.no-such-file-system"));
        assert!(error.to_string().contains("no-such-package"));
    }
}
