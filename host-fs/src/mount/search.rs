//! The search for one mount in the table of another process.

use std::fs::File;
use std::io::{self, Read};

use super::entry::Mount;
use super::table::{MountTable, TableError};

/// How much of the text is read at once; the kernel writes at most a page for each read.
const PAGE: usize = 4096;

impl MountTable {
    /// Returns the first mount in the table of a process that passes a test, and reads no further than that.
    ///
    /// A table lists the older mounts first, so the cost of finding a mount that has existed for long does not grow with
    /// the mounts that were made after it. Only a whole table that did not change while it was read proves that there is
    /// no such mount.
    ///
    /// # Errors
    /// As [`MountTable::read_of`].
    pub fn find_in(process: &str, test: impl Fn(&Mount) -> bool) -> Result<Option<Mount>, TableError> {
        let found = first_of(process, &test).map_err(|source| TableError::Read {
            process: process.to_owned(),
            source,
        })?;
        if found.is_some() {
            return Ok(found);
        }
        let table = MountTable::read_of(process)?;
        Ok(table.mounts().iter().find(|mount| test(mount)).cloned())
    }
}

/// Reads until a line passes the test. A line that cannot be understood passes none.
fn first_of(process: &str, test: impl Fn(&Mount) -> bool) -> io::Result<Option<Mount>> {
    let mut table = File::open(format!("/proc/{process}/mountinfo"))?;
    let mut page = [0; PAGE];
    let mut unread = Vec::new();
    loop {
        let length = table.read(&mut page)?;
        if length == 0 {
            return Ok(None);
        }
        unread.extend_from_slice(page.get(..length).unwrap_or_default());
        let complete = unread
            .iter()
            .rposition(|&byte| byte == b'\n')
            .map_or(0, |end| end + 1);
        for line in unread.drain(..complete).as_slice().split(|&byte| byte == b'\n') {
            if let Ok(parsed) = MountTable::parse(line)
                && let Some(mount) = parsed.mounts().iter().find(|mount| test(mount))
            {
                return Ok(Some(mount.clone()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{in_own_namespace, tmpfs, tmpfs_named};
    use super::*;

    #[test]
    fn every_mount_of_a_long_table_is_found_and_no_other() {
        in_own_namespace(|scratch| {
            for number in 0..200 {
                tmpfs_named(&format!("number-{number}"), &scratch.join(number.to_string()));
            }
            let text = std::fs::read("/proc/thread-self/mountinfo").unwrap();
            assert!(text.len() > 2 * PAGE, "it takes several reads");
            let table = MountTable::read().unwrap();
            for mount in table.mounts() {
                let found = MountTable::find_in("thread-self", |other| other.id == mount.id).unwrap();
                assert_eq!(found.as_ref(), Some(mount));
            }
            let missing = MountTable::find_in("thread-self", |mount| mount.source == "number-200");
            assert_eq!(missing.unwrap(), None);
            tmpfs(&scratch.join("one-more"));
            let found = MountTable::find_in("thread-self", |mount| mount.point.ends_with("one-more"));
            assert!(found.unwrap().is_some());
        });
    }

    #[test]
    fn the_table_of_a_process_that_does_not_exist_is_an_error() {
        assert!(MountTable::find_in("0", |_| true).is_err());
    }
}
