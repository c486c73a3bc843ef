//! How Mesos names directories after volumes, and how it deletes them.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;

use super::failure::{Failure, failed};
use crate::support::mounts::Mounts;

/// The characters that Mesos encodes, beside control characters and all that is not ASCII.
const ENCODED: &str = " $&+,/:;=?@\"<>#%{}|\\^~[]`";

/// Whether a directory is deleted with its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Root {
    Kept,
    Removed,
}

/// Returns the name of the directory of a volume.
pub(crate) fn encode(volume_id: &str) -> String {
    let mut name = String::new();
    for byte in volume_id.bytes() {
        if byte.is_ascii_graphic() && !ENCODED.contains(char::from(byte)) {
            name.push(char::from(byte));
        } else {
            write!(name, "%{byte:02X}").unwrap();
        }
    }
    name
}

/// Returns the volume whose directory has that name.
pub(crate) fn decode(name: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), name.bytes());
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digits = [rest.next().unwrap(), rest.next().unwrap()];
            let digits = std::str::from_utf8(&digits).unwrap();
            bytes.push(u8::from_str_radix(digits, 16).unwrap());
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).unwrap()
}

/// Deletes a directory with everything in it. It descends into file systems that are mounted there and deletes their
/// content; the mount point itself is the first thing that it cannot delete.
pub(crate) fn delete_recursively(directory: &Path, root: Root) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if fs::symlink_metadata(&path)?.is_dir() {
            delete_recursively(&path, Root::Removed)?;
        } else {
            gone(fs::remove_file(&path))?;
        }
    }
    match root {
        Root::Removed => gone(fs::remove_dir(directory)),
        Root::Kept => Ok(()),
    }
}

fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Deletes Mesos' directories of a volume that it no longer uses, with every mount that a plugin has left there.
///
/// # Errors
/// A file system is mounted there, so its data would be deleted; this Mesos refuses that.
pub(crate) fn collect_garbage(directory: &Path) -> Result<(), Failure> {
    if !directory.exists() {
        return Ok(());
    }
    let words = format!("Failed to remove directory '{}'", directory.display());
    if let Some(mount) = Mounts::read().below(directory).first() {
        let point = mount.point.display();
        return failed(format!(
            "{words}: Device or resource busy: '{point}' is still mounted"
        ));
    }
    delete_recursively(directory, Root::Removed).or_else(|error| failed(format!("{words}: {error}")))
}

#[test]
fn the_name_of_a_directory_is_the_volume_id_with_special_characters_encoded() {
    for (volume_id, name) in [
        (
            "5540d6e3-392b-4da0-828a-34b724c5bb80",
            "5540d6e3-392b-4da0-828a-34b724c5bb80",
        ),
        ("a b/c%", "a%20b%2Fc%25"),
        ("größe", "gr%C3%B6%C3%9Fe"),
        ("db_1.x", "db_1.x"),
    ] {
        assert_eq!(encode(volume_id), name);
        assert_eq!(decode(name), volume_id);
    }
}
