//! Files that get their name once they are complete, and their removal after the process that wrote them was killed.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;
use uuid::Uuid;

const PREFIX: &str = ".flocker-embedded-";
/// The prefix that earlier versions gave such files.
const FORMER_PREFIX: &str = ".tmp";
/// Length of the random part of a name.
const RANDOM: usize = 6;
const UNFINISHED: &str = "unfinished";

/// Creates a file that replaces another one of the same directory once it is complete.
pub(crate) fn temporary_file(directory: &Path, mode: u32) -> io::Result<NamedTempFile> {
    tempfile::Builder::new()
        .prefix(PREFIX)
        .rand_bytes(RANDOM)
        .permissions(Permissions::from_mode(mode))
        .tempfile_in(directory)
}

/// Returns whether a name has the form of those of [`temporary_file`].
pub(crate) fn is_temporary(name: &str) -> bool {
    is_random_after(PREFIX, name)
}

/// Returns whether a name has the form of a temporary file of this version or of an earlier one. The form of the
/// earlier one is not specific, so this is only for directories that no other process uses.
pub(crate) fn is_private_temporary(name: &str) -> bool {
    is_temporary(name) || is_random_after(FORMER_PREFIX, name)
}

/// Returns the path under which the file of a dataset is written before it is renamed to its own.
pub(crate) fn unfinished(path: &Path) -> PathBuf {
    path.with_extension(UNFINISHED)
}

/// Returns whether a name is that of an [`unfinished`] file of a dataset.
pub(crate) fn is_unfinished(name: &str) -> bool {
    name.rsplit_once('.')
        .is_some_and(|(dataset, extension)| extension == UNFINISHED && Uuid::parse_str(dataset).is_ok())
}

/// Removes the regular files of a directory that `is_leftover` selects by their name. A file that cannot be removed
/// does no harm, so the start continues.
pub(crate) fn remove(directory: &Path, is_leftover: fn(&str) -> bool) {
    if let Err(error) = try_remove(directory, is_leftover) {
        tracing::warn!(
            %error,
            "Cannot remove what an earlier process has not finished writing in {}",
            directory.display()
        );
    }
}

fn try_remove(directory: &Path, is_leftover: fn(&str) -> bool) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let is_leftover = entry.file_name().to_str().is_some_and(is_leftover);
        if is_leftover && entry.file_type()?.is_file() {
            fs::remove_file(entry.path())?;
            tracing::info!(
                "Removed {}, which an earlier process has not finished writing",
                entry.path().display()
            );
        }
    }
    Ok(())
}

fn is_random_after(prefix: &str, name: &str) -> bool {
    name.strip_prefix(prefix).is_some_and(|random| {
        random.len() == RANDOM && random.bytes().all(|byte| byte.is_ascii_alphanumeric())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_of_the_own_form_are_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let (_, left) = temporary_file(directory.path(), 0o600).unwrap().keep().unwrap();
        let kept = [
            ".flocker-embedded-",
            ".flocker-embedded-abc",
            ".flocker-embedded-abcde-",
            ".tmpAbC123",
            "state.json",
        ];
        for name in kept {
            fs::write(path(name), "").unwrap();
        }
        fs::create_dir(path(".flocker-embedded-dirdir")).unwrap();
        std::os::unix::fs::symlink("state.json", path(".flocker-embedded-symlnk")).unwrap();

        remove(directory.path(), is_temporary);
        assert!(!left.exists());
        assert!(kept.into_iter().all(|name| path(name).exists()));
        assert!(path(".flocker-embedded-dirdir").is_dir() && path(".flocker-embedded-symlnk").is_symlink());

        remove(directory.path(), is_private_temporary);
        assert!(!path(".tmpAbC123").exists());
    }

    #[test]
    fn an_unfinished_file_has_the_id_of_a_dataset() {
        let path = unfinished(Path::new("/volumes/5f2d8e0c-37a4-4c1e-9d52-6b1a8f3c7e90"));
        assert!(is_unfinished(path.file_name().unwrap().to_str().unwrap()));
        for name in [
            "unfinished",
            "notes.unfinished",
            "5f2d8e0c-37a4-4c1e-9d52-6b1a8f3c7e90",
        ] {
            assert!(!is_unfinished(name), "{name}");
        }
    }
}
