//! The programs of the system that create and recognise file systems.

use std::env;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use super::error::StepError;
use crate::Error;

/// Where the superblock of ext2, ext3 and ext4 has its magic number, and the number.
const EXT_MAGIC: (u64, [u8; 2]) = (1080, [0x53, 0xEF]);

/// The exit status of blkid(8) when it finds nothing.
const BLKID_NOTHING: i32 = 2;

/// The programs, found once at the start.
#[derive(Debug)]
pub(super) struct Programs {
    mkfs: PathBuf,
    blkid: PathBuf,
}

impl Programs {
    pub(super) fn find() -> Result<Self, Error> {
        Ok(Self {
            mkfs: find("mkfs.ext4", "e2fsprogs")?,
            blkid: find("blkid", "util-linux")?,
        })
    }

    /// Returns whether a device has a file system of any type.
    pub(super) fn has_file_system(&self, device: &Path) -> Result<bool, StepError> {
        let open = StepError::io("open", device);
        let mut magic = [0; 2];
        File::open(device)
            .and_then(|file| file.read_exact_at(&mut magic, EXT_MAGIC.0))
            .map_err(open)?;
        if magic == EXT_MAGIC.1 {
            return Ok(true);
        }
        let output = run(Command::new(&self.blkid)
            .args(["-p", "-u", "filesystem"])
            .arg(device))?;
        match output.status.code() {
            Some(0) => Ok(true),
            Some(BLKID_NOTHING) => Ok(false),
            _ => Err(program_error(&self.blkid, device, &output)),
        }
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

    #[test]
    fn a_file_system_is_recognised_once_it_is_made() {
        let programs = Programs::find().unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(4 << 20).unwrap();
        assert!(!programs.has_file_system(file.path()).unwrap());
        programs.make_file_system(file.path()).unwrap();
        assert!(programs.has_file_system(file.path()).unwrap());
    }
}
