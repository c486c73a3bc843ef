//! The system calls that change files or mounts, and a name for each of them.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::seccomp::{Rule, Waiting};

/// How a call names a file.
#[derive(Clone, Copy)]
enum Place {
    /// By a path in this argument.
    Path(usize),
    /// By a descriptor in one argument and a path from there in the next one.
    At(usize),
    /// By a descriptor in this argument.
    Descriptor(usize),
}
use Place::{At, Descriptor, Path as Named};

/// A system call that changes something.
struct SystemCall {
    verb: &'static str,
    number: libc::c_long,
    /// The argument that must have one of these bits, if any, for the call to change something.
    with: Option<(u32, i32)>,
    places: &'static [Place],
}

const fn call(verb: &'static str, number: libc::c_long, places: &'static [Place]) -> SystemCall {
    let with = None;
    SystemCall {
        verb,
        number,
        with,
        places,
    }
}

impl SystemCall {
    const fn with(self, argument: u32, bits: i32) -> Self {
        Self {
            with: Some((argument, bits)),
            ..self
        }
    }

    fn is(&self, waiting: &Waiting) -> bool {
        let has = |argument: u32, bits: i32| {
            waiting.arguments[argument as usize] & u64::from(bits.unsigned_abs()) != 0
        };
        self.number == waiting.number && self.with.is_none_or(|(argument, bits)| has(argument, bits))
    }
}

/// The flags with which open(2) changes something by itself.
const MAKES: i32 = libc::O_CREAT | libc::O_TRUNC | (libc::O_TMPFILE & !libc::O_DIRECTORY);
const CLONE: i32 = libc::OPEN_TREE_CLONE.cast_signed();

/// The calls of every architecture. If two rows have one number, the first that fits counts.
const CALLS: &[SystemCall] = &[
    call("create", libc::SYS_openat, &[At(0)]).with(2, MAKES),
    call("create", libc::SYS_openat2, &[At(0)]),
    call("mkdir", libc::SYS_mkdirat, &[At(0)]),
    call("rmdir", libc::SYS_unlinkat, &[At(0)]).with(2, libc::AT_REMOVEDIR),
    call("unlink", libc::SYS_unlinkat, &[At(0)]),
    call("rename", libc::SYS_renameat2, &[At(0), At(2)]),
    call("link", libc::SYS_linkat, &[At(0), At(2)]),
    call("symlink", libc::SYS_symlinkat, &[At(1)]),
    call("mknod", libc::SYS_mknodat, &[At(0)]),
    call("chmod", libc::SYS_fchmodat, &[At(0)]),
    call("chmod", libc::SYS_fchmod, &[Descriptor(0)]),
    call("chown", libc::SYS_fchownat, &[At(0)]),
    call("chown", libc::SYS_fchown, &[Descriptor(0)]),
    call("utimens", libc::SYS_utimensat, &[At(0)]),
    call("setxattr", libc::SYS_setxattr, &[Named(0)]),
    call("setxattr", libc::SYS_lsetxattr, &[Named(0)]),
    call("setxattr", libc::SYS_fsetxattr, &[Descriptor(0)]),
    call("removexattr", libc::SYS_removexattr, &[Named(0)]),
    call("removexattr", libc::SYS_lremovexattr, &[Named(0)]),
    call("removexattr", libc::SYS_fremovexattr, &[Descriptor(0)]),
    call("truncate", libc::SYS_truncate, &[Named(0)]),
    call("truncate", libc::SYS_ftruncate, &[Descriptor(0)]),
    call("allocate", libc::SYS_fallocate, &[Descriptor(0)]),
    call("write", libc::SYS_write, &[Descriptor(0)]),
    call("write", libc::SYS_writev, &[Descriptor(0)]),
    call("write", libc::SYS_pwrite64, &[Descriptor(0)]),
    call("write", libc::SYS_pwritev, &[Descriptor(0)]),
    call("write", libc::SYS_pwritev2, &[Descriptor(0)]),
    call("write", libc::SYS_sendfile, &[Descriptor(0)]),
    call("write", libc::SYS_splice, &[Descriptor(2)]),
    call("write", libc::SYS_copy_file_range, &[Descriptor(2)]),
    call("sync", libc::SYS_fsync, &[Descriptor(0)]),
    call("sync", libc::SYS_fdatasync, &[Descriptor(0)]),
    call("sync", libc::SYS_sync_file_range, &[Descriptor(0)]),
    call("sync", libc::SYS_syncfs, &[Descriptor(0)]),
];

/// The calls that change mounts, which matter in every directory.
const MOUNT_CALLS: &[SystemCall] = &[
    call("mount", libc::SYS_mount, &[Named(0), Named(1)]),
    call("umount", libc::SYS_umount2, &[Named(0)]),
    call("pivot_root", libc::SYS_pivot_root, &[Named(0), Named(1)]),
    call("open_tree", libc::SYS_open_tree, &[At(0)]).with(2, CLONE),
    call("move_mount", libc::SYS_move_mount, &[At(0), At(2)]),
    call("mount_setattr", libc::SYS_mount_setattr, &[At(0)]),
    call("fsopen", libc::SYS_fsopen, &[]),
    call("fsconfig", libc::SYS_fsconfig, &[]),
    call("fsmount", libc::SYS_fsmount, &[]),
    call("fspick", libc::SYS_fspick, &[At(0)]),
];

/// The calls that newer architectures lack.
#[cfg(target_arch = "x86_64")]
const OLDER_CALLS: &[SystemCall] = &[
    call("create", libc::SYS_open, &[Named(0)]).with(1, MAKES),
    call("create", libc::SYS_creat, &[Named(0)]),
    call("mkdir", libc::SYS_mkdir, &[Named(0)]),
    call("rmdir", libc::SYS_rmdir, &[Named(0)]),
    call("unlink", libc::SYS_unlink, &[Named(0)]),
    call("rename", libc::SYS_rename, &[Named(0), Named(1)]),
    call("rename", libc::SYS_renameat, &[At(0), At(2)]),
    call("link", libc::SYS_link, &[Named(0), Named(1)]),
    call("symlink", libc::SYS_symlink, &[Named(1)]),
    call("mknod", libc::SYS_mknod, &[Named(0)]),
    call("chmod", libc::SYS_chmod, &[Named(0)]),
    call("chmod", libc::SYS_fchmodat2, &[At(0)]),
    call("chown", libc::SYS_chown, &[Named(0)]),
    call("chown", libc::SYS_lchown, &[Named(0)]),
    call("utimens", libc::SYS_utime, &[Named(0)]),
    call("utimens", libc::SYS_utimes, &[Named(0)]),
    call("utimens", libc::SYS_futimesat, &[At(0)]),
];
#[cfg(not(target_arch = "x86_64"))]
const OLDER_CALLS: &[SystemCall] = &[];

fn calls() -> impl Iterator<Item = &'static SystemCall> {
    CALLS.iter().chain(MOUNT_CALLS).chain(OLDER_CALLS)
}

/// Returns the calls that the kernel must stop.
pub(super) fn rules() -> Vec<Rule> {
    let rule = |call: &SystemCall| Rule {
        number: call.number,
        with: call.with.map(|(argument, bits)| (argument, bits.cast_unsigned())),
    };
    calls().map(rule).collect()
}

/// The directories in which changes matter, and their names.
pub(super) struct Sight {
    pub(super) places: Vec<(&'static str, PathBuf)>,
    pub(super) dataset: Uuid,
    /// Whether changes of loop devices matter.
    pub(super) loops: bool,
}

impl Sight {
    /// Returns what a stopped call is about to do; `None` when that does not matter.
    ///
    /// Parts that differ from run to run are left out, so the same step has the same name.
    pub(super) fn describe(&self, waiting: &Waiting) -> Option<String> {
        let call = calls().find(|call| call.is(waiting))?;
        let thread = Thread(waiting.thread);
        // A filter cannot read its flags.
        if call.number == libc::SYS_openat2 && !thread.opens_to_make(waiting.arguments[2]) {
            return None;
        }
        let place = |place: &Place| self.name(&thread.resolve(*place, waiting)?);
        let names: Vec<_> = call.places.iter().map(place).collect();
        let mounts = MOUNT_CALLS.iter().any(|mounting| mounting.number == call.number);
        if !mounts && names.iter().all(Option::is_none) {
            return None;
        }
        let names: Vec<_> = names
            .into_iter()
            .map(|name| name.unwrap_or_else(|| "-".to_owned()))
            .collect();
        let kind = match call.verb {
            "mount" => kind_of_mount(waiting.arguments[3]),
            _ => "",
        };
        Some(format!("{}{kind} {}", call.verb, names.join(" -> ")))
    }

    fn name(&self, path: &Path) -> Option<String> {
        let number = path.to_str().and_then(|path| path.strip_prefix("/dev/loop"));
        if self.loops && number.is_some_and(|number| number.parse::<u32>().is_ok()) {
            return Some("loop".to_owned());
        }
        let (name, below) = self
            .places
            .iter()
            .find_map(|(name, place)| Some((*name, path.strip_prefix(place).ok()?)))?;
        let below = below.iter().map(|component| {
            let component = component.to_string_lossy();
            // Temporary files of the plugin, and of the crate that makes them.
            for temporary in [".new-", ".tmp"] {
                if component.starts_with(temporary) {
                    return format!("{temporary}*");
                }
            }
            let id = self.dataset.to_string();
            match component.split_once(&id) {
                Some(("", digest)) if digest.starts_with('-') => "RECORD".to_owned(),
                Some((before, after)) => format!("{before}ID{after}"),
                None => component.into_owned(),
            }
        });
        Some(
            [name.to_owned()]
                .into_iter()
                .chain(below)
                .collect::<Vec<_>>()
                .join("/"),
        )
    }
}

fn kind_of_mount(flags: libc::c_ulong) -> &'static str {
    let kinds = [
        (libc::MS_REMOUNT, " (flags)"),
        (libc::MS_BIND, " (bind)"),
        (libc::MS_MOVE, " (move)"),
        (
            libc::MS_PRIVATE | libc::MS_SLAVE | libc::MS_SHARED | libc::MS_UNBINDABLE,
            " (propagation)",
        ),
    ];
    let kind = kinds.iter().find(|(bits, _)| flags & bits != 0);
    kind.map_or("", |(_, kind)| kind)
}

/// A thread that is stopped in the kernel.
struct Thread(u32);

impl Thread {
    fn resolve(&self, place: Place, waiting: &Waiting) -> Option<PathBuf> {
        let argument = |index: usize| waiting.arguments[index];
        let path = match place {
            Named(index) => self.read_path(argument(index))?,
            Descriptor(index) => self.descriptor(argument(index))?,
            At(index) => {
                let below = self.read_path(argument(index + 1))?;
                if below.is_absolute() {
                    below
                } else {
                    self.descriptor(argument(index))?.join(below)
                }
            }
        };
        // A descriptor may be written as a path.
        let spelled = ["/proc/self/fd", "/proc/thread-self/fd"];
        match spelled.iter().find_map(|fd| path.strip_prefix(fd).ok()) {
            Some(descriptor) => {
                let mut components = descriptor.components();
                let number = components.next()?.as_os_str().display().to_string();
                let below = components.as_path();
                self.link(&format!("fd/{number}")).map(|path| path.join(below))
            }
            None => Some(path),
        }
    }

    fn descriptor(&self, argument: u64) -> Option<PathBuf> {
        // A descriptor is the lower half of the argument.
        let low = u32::try_from(argument & u64::from(u32::MAX)).ok()?.cast_signed();
        if low == libc::AT_FDCWD {
            self.link("cwd")
        } else {
            self.link(&format!("fd/{low}"))
        }
    }

    fn link(&self, name: &str) -> Option<PathBuf> {
        fs::read_link(format!("/proc/{}/{name}", self.0)).ok()
    }

    /// Reads the first field of `struct open_how`.
    fn opens_to_make(&self, address: u64) -> bool {
        let mut flags = [0; 8];
        self.read(&mut flags, address) == Some(flags.len())
            && u64::from_ne_bytes(flags) & u64::from(MAKES.unsigned_abs()) != 0
    }

    fn read(&self, into: &mut [u8], address: u64) -> Option<usize> {
        let memory = File::open(format!("/proc/{}/mem", self.0)).ok()?;
        memory.read_at(into, address).ok()
    }

    fn read_path(&self, address: u64) -> Option<PathBuf> {
        let mut text = [0; 4096];
        let read = self.read(&mut text, address)?;
        let end = text[..read].iter().position(|byte| *byte == 0)?;
        Some(PathBuf::from(String::from_utf8_lossy(&text[..end]).into_owned()))
    }
}
