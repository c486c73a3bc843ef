//! The text format of `/proc/<pid>/mountinfo`, proc(5).

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use rustix::mount::MountAttrFlags;

use super::entry::{Device, Mount, Propagation};

/// A line of the mount table that does not have the kernel's format.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
#[error("line {line} of the mount table has no valid {field}: {text:?}")]
pub struct ParseError {
    /// The number of the line, from 1.
    pub line: usize,
    /// What is missing or malformed.
    pub field: &'static str,
    /// The line.
    pub text: String,
}

/// The flags of a mount under the names the table gives them; relatime is the absence of both others.
const OPTIONS: [(&str, MountAttrFlags); 6] = [
    ("nosuid", MountAttrFlags::MOUNT_ATTR_NOSUID),
    ("nodev", MountAttrFlags::MOUNT_ATTR_NODEV),
    ("noexec", MountAttrFlags::MOUNT_ATTR_NOEXEC),
    ("noatime", MountAttrFlags::MOUNT_ATTR_NOATIME),
    ("nodiratime", MountAttrFlags::MOUNT_ATTR_NODIRATIME),
    ("nosymfollow", MountAttrFlags::MOUNT_ATTR_NOSYMFOLLOW),
];

/// Parses a whole table.
pub(super) fn parse(text: &[u8]) -> Result<Vec<Mount>, ParseError> {
    text.split(|&byte| byte == b'\n')
        .enumerate()
        .filter(|(_, line)| !line.is_empty())
        .map(|(index, line)| {
            parse_line(line).map_err(|field| ParseError {
                line: index + 1,
                field,
                text: String::from_utf8_lossy(line).into_owned(),
            })
        })
        .collect()
}

/// Parses one line, or names the field that is wrong.
fn parse_line(line: &[u8]) -> Result<Mount, &'static str> {
    // Single spaces separate the fields and a field may be empty: `mount -t tmpfs "" /mnt` has no source.
    let mut fields = line.split(|&byte| byte == b' ');
    let mut next = |name| fields.next().ok_or(name);

    let id = number(next("mount id")?).ok_or("mount id")?;
    let parent = number(next("parent id")?).ok_or("parent id")?;
    let device = device(next("device number")?).ok_or("device number")?;
    let root = unescape(next("root")?);
    let point = Some(next("mount point")?).filter(|field| field.starts_with(b"/"));
    let point = unescape(point.ok_or("mount point")?);
    let attributes = attributes(next("options")?);
    let mut propagation = Propagation::default();
    loop {
        match next("separator")? {
            b"-" => break,
            tag => add_tag(&mut propagation, tag),
        }
    }
    let fs_type = unescape(next("file system type")?);
    let source = unescape(next("source")?);
    let super_options = next("file system options")?;

    Ok(Mount {
        id,
        parent,
        device,
        root: PathBuf::from(root),
        point: PathBuf::from(point),
        attributes,
        propagation,
        fs_type: fs_type.to_string_lossy().into_owned(),
        source,
        super_options: OsStr::from_bytes(super_options).to_owned(),
    })
}

fn number(field: &[u8]) -> Option<u64> {
    std::str::from_utf8(field).ok()?.parse().ok()
}

fn device(field: &[u8]) -> Option<Device> {
    let (major, minor) = std::str::from_utf8(field).ok()?.split_once(':')?;
    Some(Device {
        major: major.parse().ok()?,
        minor: minor.parse().ok()?,
    })
}

fn attributes(field: &[u8]) -> MountAttrFlags {
    let mut attributes = MountAttrFlags::MOUNT_ATTR_STRICTATIME;
    for option in field.split(|&byte| byte == b',') {
        match option {
            b"ro" => attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY,
            b"relatime" => attributes -= MountAttrFlags::MOUNT_ATTR_STRICTATIME,
            _ => {
                if let Some((_, flag)) = OPTIONS.iter().find(|(name, _)| name.as_bytes() == option) {
                    attributes |= *flag;
                }
            }
        }
    }
    if attributes.contains(MountAttrFlags::MOUNT_ATTR_NOATIME) {
        attributes -= MountAttrFlags::MOUNT_ATTR_STRICTATIME;
    }
    attributes
}

/// Takes in an optional field; proc(5) wants unknown ones to be ignored.
fn add_tag(propagation: &mut Propagation, tag: &[u8]) {
    if tag == b"unbindable" {
        propagation.unbindable = true;
        return;
    }
    let Some(colon) = tag.iter().position(|&byte| byte == b':') else {
        return;
    };
    let (name, value) = tag.split_at(colon);
    let group = value.get(1..).and_then(number);
    match name {
        b"shared" => propagation.peer_group = group,
        b"master" => propagation.master = group,
        b"propagate_from" => propagation.propagate_from = group,
        _ => {}
    }
}

/// Undoes the kernel's octal escapes; anything else that follows a backslash stays as it is.
pub(super) fn unescape(field: &[u8]) -> OsString {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        let mut plain_byte = byte;
        if let [
            high @ b'0'..=b'3',
            middle @ b'0'..=b'7',
            low @ b'0'..=b'7',
            after @ ..,
        ] = tail
            && byte == b'\\'
        {
            plain_byte = ((high - b'0') << 6) | ((middle - b'0') << 3) | (low - b'0');
            rest = after;
        }
        plain.push(plain_byte);
    }
    OsString::from_vec(plain)
}

/// Writes a mount the way the kernel does (`show_mountinfo`).
#[cfg(any(test, fuzzing))]
pub(crate) fn render(mount: &Mount) -> Vec<u8> {
    let escape = |text: &OsStr| {
        let mut escaped = Vec::new();
        for &byte in text.as_bytes() {
            match byte {
                b' ' | b'\t' | b'\n' | b'\\' | b'#' => escaped.extend(format!("\\{byte:03o}").bytes()),
                _ => escaped.push(byte),
            }
        }
        escaped
    };
    let mut options = vec![if mount.read_only() { "ro" } else { "rw" }];
    options.extend(
        OPTIONS
            .iter()
            .filter(|(_, flag)| mount.attributes.contains(*flag))
            .map(|(name, _)| *name),
    );
    if !mount.attributes.intersects(MountAttrFlags::MOUNT_ATTR__ATIME) {
        options.push("relatime");
    }
    let mut line = format!("{} {} {} ", mount.id, mount.parent, mount.device).into_bytes();
    line.extend(escape(mount.root.as_os_str()));
    line.push(b' ');
    line.extend(escape(mount.point.as_os_str()));
    line.extend(format!(" {}", options.join(",")).bytes());
    let tags = &mount.propagation;
    for (name, group) in [
        ("shared", tags.peer_group),
        ("master", tags.master),
        ("propagate_from", tags.propagate_from),
    ] {
        line.extend(
            group
                .map(|group| format!(" {name}:{group}"))
                .unwrap_or_default()
                .bytes(),
        );
    }
    line.extend(if tags.unbindable {
        b" unbindable".iter()
    } else {
        b"".iter()
    });
    line.extend(b" - ");
    line.extend(escape(OsStr::new(&mount.fs_type)));
    line.push(b' ');
    line.extend(escape(&mount.source));
    line.push(b' ');
    line.extend(mount.super_options.as_bytes());
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::path::Path;

    fn any_path() -> impl Strategy<Value = PathBuf> {
        prop::collection::vec(1..=255_u8, 0..40).prop_map(|bytes| PathBuf::from(OsString::from_vec(bytes)))
    }

    prop_compose! {
        fn any_mount()(
            numbers in any::<(u64, u64, u32, u32)>(),
            root in any_path(),
            point in any_path().prop_map(|path| PathBuf::from_iter([Path::new("/"), &path])),
            source in any_path(),
            flags in prop::sample::subsequence(&[0x1_u32, 0x2, 0x4, 0x8, 0x80, 0x20_0000][..], 0..=6),
            atime in prop::sample::select(&[0_u32, 0x10, 0x20][..]),
            groups in any::<(Option<u64>, Option<u64>, Option<u64>, bool)>(),
            fs_type in "[a-z0-9]{1,8}(\\.[^\0]{0,8})?",
            super_options in "(rw|ro)(,[!-~]{0,12})?",
        ) -> Mount {
            Mount {
                id: numbers.0,
                parent: numbers.1,
                device: Device { major: numbers.2, minor: numbers.3 },
                root,
                point,
                attributes: MountAttrFlags::from_bits_retain(flags.iter().sum::<u32>() | atime),
                propagation: Propagation {
                    peer_group: groups.0,
                    master: groups.1,
                    propagate_from: groups.2,
                    unbindable: groups.3,
                },
                fs_type,
                source: source.into_os_string(),
                super_options: OsString::from(super_options),
            }
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(text in prop::collection::vec(any::<u8>(), 0..400)) {
            let _parsed = parse(&text);
        }

        #[test]
        fn a_damaged_line_never_panics(mount in any_mount(), cut in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut line = render(&mount);
            let at = cut.index(line.len());
            line[at] = byte;
            let _parsed = parse(&line);
            line.truncate(at);
            let _parsed = parse(&line);
        }

        #[test]
        fn what_the_kernel_writes_is_read_back(mounts in prop::collection::vec(any_mount(), 0..4)) {
            let text = mounts.iter().flat_map(render).collect::<Vec<u8>>();
            prop_assert_eq!(parse(&text).unwrap(), mounts);
        }
    }

    #[test]
    fn spaces_and_backslashes_in_a_path_are_restored() {
        let line = br"36 35 98:0 /mnt1 /a\040b\134c rw,noatime master:1 - ext3 /dev/root rw,errors=continue";
        let mounts = parse(line).unwrap();
        assert_eq!(mounts[0].point, PathBuf::from(r"/a b\c"));
        assert_eq!(mounts[0].propagation.master, Some(1));
        assert_eq!(mounts[0].attributes, MountAttrFlags::MOUNT_ATTR_NOATIME);
    }

    #[test]
    fn an_empty_source_is_a_field_of_its_own() {
        let mounts = parse(b"40 27 0:35 / /mnt rw,relatime - tmpfs  rw,size=4k\n").unwrap();
        assert_eq!(
            (mounts[0].source.as_os_str(), mounts[0].fs_type.as_str()),
            (OsStr::new(""), "tmpfs")
        );
    }

    #[test]
    fn unknown_optional_fields_are_ignored() {
        let mounts = parse(b"40 27 0:35 / /mnt rw shared:7 weird news:3 - tmpfs t rw\n").unwrap();
        assert_eq!(
            mounts[0].propagation,
            Propagation {
                peer_group: Some(7),
                ..Propagation::default()
            }
        );
    }

    #[test]
    fn a_malformed_line_is_named_with_its_number() {
        let error =
            parse(b"40 27 0:35 / /mnt rw - tmpfs t rw\n41 27 zero / /x rw - tmpfs t rw\n").unwrap_err();
        assert_eq!((error.line, error.field), (2, "device number"));
        let error = parse(b"40 27 0:35 /  rw - tmpfs t rw\n").unwrap_err();
        assert_eq!((error.line, error.field), (1, "mount point"));
    }
}
