//! The program of the system that creates file systems.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use super::direct_io::LARGEST;
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

    /// Creates an ext4 file system.
    ///
    /// Its blocks are as large as the largest block of a device, whatever the size of the volume. With `keep_blocks` nothing
    /// is discarded, and nothing is left for the kernel to write after the first mount.
    pub(super) fn make_file_system(&self, device: &Path, keep_blocks: bool) -> Result<(), StepError> {
        let mut mkfs = Command::new(&self.mkfs);
        mkfs.arg("-F").arg("-b").arg(LARGEST.to_string());
        if keep_blocks {
            mkfs.args(["-E", "nodiscard,lazy_itable_init=0"]);
        }
        let output = run(mkfs.arg(device))?;
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
