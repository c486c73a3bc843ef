//! Reading files that any other process may have made, or replaced by something that is no file.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, fstat, open};
use rustix::io::Errno;

/// What a symbolic link in the place of a file means. Links above it are followed in either case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Links {
    /// It is a legitimate set-up, as with the secrets and config maps that Kubernetes mounts.
    Follow,
    /// The file is written by this program only, and a link was put there by another.
    Refuse,
}

/// Reads a regular file of at most `limit` bytes.
///
/// Nothing else is opened: reading a pipe, a terminal or a device could block permanently, have an effect or have no end.
///
/// # Errors
/// What is at the path is no regular file, or is a link that is refused, or is too large: [`ErrorKind::InvalidData`] with a
/// text that says what it is. Or the file system refused.
pub fn read_regular(path: &Path, limit: u64, links: Links) -> io::Result<Vec<u8>> {
    let file = open_regular(path, links)?;
    let mut content = Vec::new();
    // A file can grow while it is read, so what was read is measured.
    let read = file.take(limit.saturating_add(1)).read_to_end(&mut content)?;
    if u64::try_from(read).is_ok_and(|read| read > limit) {
        return Err(invalid(format!(
            "it is larger than {limit} bytes, the most that is read of it"
        )));
    }
    Ok(content)
}

fn open_regular(path: &Path, links: Links) -> io::Result<File> {
    let found = match links {
        Links::Follow => OFlags::empty(),
        Links::Refuse => OFlags::NOFOLLOW,
    };
    // Only a name for it: even opening a device can have an effect.
    let named = open(path, OFlags::PATH | OFlags::CLOEXEC | found, Mode::empty())?;
    let kind = FileType::from_raw_mode(fstat(&named)?.st_mode);
    if kind != FileType::RegularFile {
        return Err(invalid(format!("it is {}, not a regular file", describe(kind))));
    }
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let link = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&named));
    match open(link, flags, Mode::empty()) {
        Ok(file) => Ok(file.into()),
        // Without /proc it is opened by its name, and examined again.
        Err(Errno::NOENT) => {
            let file = File::from(open(path, flags | found, Mode::empty())?);
            if file.metadata()?.is_file() {
                Ok(file)
            } else {
                Err(invalid("it is not a regular file".to_owned()))
            }
        }
        Err(error) => Err(error.into()),
    }
}

fn invalid(text: String) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, text)
}

fn describe(kind: FileType) -> &'static str {
    match kind {
        FileType::Directory => "a directory",
        FileType::Symlink => "a symbolic link",
        FileType::Fifo => "a named pipe",
        FileType::Socket => "a socket",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        FileType::RegularFile | FileType::Unknown => "something else",
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_file_is_read_up_to_its_limit() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("file");
        fs::write(&path, "12345").unwrap();
        for links in [Links::Follow, Links::Refuse] {
            assert_eq!(read_regular(&path, 5, links).unwrap(), b"12345");
            let refused = read_regular(&path, 4, links).unwrap_err();
            assert!(refused.to_string().contains("larger than 4 bytes"), "{refused}");
        }
        let missing = read_regular(&root.path().join("missing"), 4, Links::Refuse);
        assert_eq!(missing.unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn a_link_is_followed_only_where_that_is_legitimate() {
        let root = tempfile::tempdir().unwrap();
        let link = root.path().join("link");
        fs::write(root.path().join("file"), "text").unwrap();
        symlink("file", &link).unwrap();
        assert_eq!(read_regular(&link, 9, Links::Follow).unwrap(), b"text");
        let refused = read_regular(&link, 9, Links::Refuse).unwrap_err();
        assert!(refused.to_string().contains("a symbolic link"), "{refused}");
    }

    #[test]
    fn what_is_no_file_is_named_and_never_waited_for() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        let made = std::process::Command::new("mkfifo").arg(at("pipe")).status();
        assert!(made.unwrap().success());
        fs::create_dir(at("directory")).unwrap();
        symlink("/dev/zero", at("zero")).unwrap();
        symlink("/dev/tty", at("tty")).unwrap();
        let _listener = UnixListener::bind(at("socket")).unwrap();
        for (name, kind) in [
            ("pipe", "a named pipe"),
            ("directory", "a directory"),
            ("zero", "a device"),
            ("tty", "a device"),
            ("socket", "a socket"),
        ] {
            let refused = read_regular(&at(name), 9, Links::Follow).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::InvalidData, "{name}");
            assert!(refused.to_string().contains(kind), "{name}: {refused}");
        }
    }
}
