//! The directories of the host that a pod requires.

use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

use super::super::mount::{MountVisibility, VisibilityError, on_root_of_host};
use crate::error;
use crate::host::HostSettings;
use host_fs::durable::make_directory;
use host_fs::mount::{TableError, holding};

/// Returns what is missing or wrong, a sentence each with the volume that the pod requires.
pub(crate) fn unmet(
    visibility: &MountVisibility,
    paths: &HostSettings,
    registration_dir: &Path,
) -> Vec<String> {
    let mut problems = hidden(visibility, paths, registration_dir);
    problems.extend(state_dir(visibility, &paths.state_dir).err());
    problems
}

/// As [`unmet`], without the state directory, which that makes.
pub(super) fn hidden(
    visibility: &MountVisibility,
    paths: &HostSettings,
    registration_dir: &Path,
) -> Vec<String> {
    let problems = [
        registration(visibility, registration_dir),
        mount_root(visibility, &paths.mount_root),
    ];
    problems.into_iter().filter_map(Result::err).collect()
}

/// Checks the kubelet's directory: sockets and targets are below it, and mounts below it must be visible on the host.
fn registration(visibility: &MountVisibility, directory: &Path) -> Result<(), String> {
    let kubelet = directory.parent().unwrap_or(directory);
    let add = |what: &str| {
        format!(
            "{what}; {}",
            instruction(
                kubelet,
                "Bidirectional (which takes securityContext.privileged: true)"
            )
        )
    };
    if !directory.is_dir() {
        return Err(add(&format!(
            "the kubelet_registration_dir {} does not exist",
            directory.display()
        )));
    }
    match holder(visibility, kubelet)? {
        None => Ok(()),
        Some(HoldingMount::OwnRoot) => Err(add(&format!("{} is the container's own", kubelet.display()))),
        Some(HoldingMount::Mount) => {
            let target = resolved(kubelet).join("pods");
            visibility.check(&target).map_err(|error| match error {
                VisibilityError::Hidden { holder, .. } => add(&format!(
                    "what the plugin mounts below {} would be visible to no pod, because {holder} is not shared with the \
                     host",
                    kubelet.display()
                )),
                error => error::chain(&error),
            })
        }
    }
}

/// Checks the directory below which Flocker's agent mounts.
fn mount_root(visibility: &MountVisibility, directory: &Path) -> Result<(), String> {
    let path = directory.display();
    let add = |what: &str| format!("{what}; {}", instruction(directory, "HostToContainer"));
    if !directory.is_dir() {
        return Err(add(&format!("the mount_root {path} does not exist")));
    }
    if let Some(HoldingMount::OwnRoot) = holder(visibility, directory)? {
        return Err(add(&format!("the mount_root {path} is the container's own")));
    }
    match cut_off(visibility, directory)? {
        None => Ok(()),
        Some(text) => Err(add(&text)),
    }
}

/// Returns why mounts that the host makes below a directory do not reach this process, if they do not. The directory may be
/// missing: it would be made on the mount that holds the nearest one that exists.
pub(super) fn cut_off(visibility: &MountVisibility, directory: &Path) -> Result<Option<String>, String> {
    let existing = directory
        .ancestors()
        .find_map(|above| above.canonicalize().ok())
        .unwrap_or_else(|| PathBuf::from("/"));
    let holder = visibility.not_receiving(&existing);
    let holder = holder.map_err(|error| error::chain(&error))?;
    Ok(holder.map(|holder| {
        format!(
            "what Flocker mounts below the mount_root {} would not be visible to the plugin, because {holder} receives no \
             mounts from the host",
            directory.display()
        )
    }))
}

/// Checks the directory that must outlive the pod.
fn state_dir(visibility: &MountVisibility, directory: &Path) -> Result<(), String> {
    let path = directory.display();
    let volume = format!(
        "give the pod a volume with hostPath {{path: {path}, type: DirectoryOrCreate}}, mounted at {path}"
    );
    let made =
        make_directory(directory).and_then(|()| Ok(access(directory, Access::WRITE_OK | Access::EXEC_OK)?));
    made.map_err(|error| format!("the state_dir {path} cannot be written: {error}; {volume}"))?;
    match holder(visibility, directory)? {
        Some(HoldingMount::OwnRoot) => Err(format!(
            "the state_dir {path} is the container's own, and is lost with it; {volume}"
        )),
        None | Some(HoldingMount::Mount) => Ok(()),
    }
}

/// The mount that holds a directory where the plugin has a mount namespace of its own.
enum HoldingMount {
    /// The root file system of the container.
    OwnRoot,
    /// A mount of the host's.
    Mount,
}

fn holder(visibility: &MountVisibility, directory: &Path) -> Result<Option<HoldingMount>, String> {
    if visibility.is_host() {
        return Ok(None);
    }
    let failed = |error: TableError| {
        let error = error::chain(&error);
        format!(
            "cannot find the mount that holds {}: {error}",
            directory.display()
        )
    };
    let holder = holding(&resolved(directory)).map_err(failed)?;
    Ok(holder.map(|holder| {
        if holder.point == Path::new("/") && !on_root_of_host() {
            HoldingMount::OwnRoot
        } else {
            HoldingMount::Mount
        }
    }))
}

/// Returns how to give a pod a directory of the host's.
fn instruction(directory: &Path, propagation: &str) -> String {
    let path = resolved(directory);
    let path = path.display();
    format!(
        "give the pod a volume with hostPath {{path: {path}}}, mounted at {path} with mountPropagation: {propagation}; \
         and on the host, if needed: mount --make-shared on the mount that holds it"
    )
}

/// Returns a path without symbolic links, as far as it exists.
fn resolved(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}
