//! How many file systems the machine can make in a second, which no Flocker exceeds.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use futures::stream::{StreamExt, TryStreamExt, iter};
use tokio::task::spawn_blocking;
use tokio::time::{Duration, Instant};

use crate::Result;
use crate::flocker::VOLUME_SIZE;

/// A file with its loop device.
struct Volume {
    file: PathBuf,
    device: PathBuf,
}

/// Makes `count` file systems as the embedded Flocker does, `at_once` of them at a time, and returns how long that takes. Files
/// and loop devices exist before.
pub(super) async fn make_file_systems(directory: &Path, count: usize, at_once: usize) -> Result<Duration> {
    let directory = directory.join(format!("mkfs-{at_once}"));
    fs::create_dir_all(&directory)?;
    let volumes: Vec<_> = (0..count)
        .map(|number| Volume::attach(directory.join(number.to_string())).map(Arc::new))
        .collect::<Result<_>>()?;
    let begun = Instant::now();
    iter(&volumes)
        .map(|volume| {
            let volume = Arc::clone(volume);
            async move { spawn_blocking(move || volume.format()).await? }
        })
        .buffer_unordered(at_once)
        .try_collect::<Vec<()>>()
        .await?;
    let taken = begun.elapsed();
    for volume in volumes {
        run(Command::new("losetup").arg("--detach").arg(&volume.device))?;
    }
    fs::remove_dir_all(directory)?;
    Ok(taken)
}

impl Volume {
    fn attach(file: PathBuf) -> Result<Self> {
        File::create(&file)?.set_len(VOLUME_SIZE)?;
        let mut attach = Command::new("losetup");
        attach.args(["--find", "--show", "--direct-io=on"]).arg(&file);
        let device = run(&mut attach)?.trim().into();
        Ok(Self { file, device })
    }

    fn format(&self) -> Result<()> {
        run(Command::new("mkfs.ext4")
            .args(["-F", "-b", "4096"])
            .arg(&self.device))?;
        File::open(&self.device)?.sync_all()?;
        File::open(&self.file)?.sync_all()?;
        Ok(())
    }
}

fn run(command: &mut Command) -> Result<String> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(String::from_utf8(output.stdout)?);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{command:?} ended with {}: {}", output.status, said.trim()).into())
}
