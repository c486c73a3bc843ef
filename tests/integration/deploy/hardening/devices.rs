//! `DevicePolicy=closed` with `DeviceAllow=block-* rwm`, as systemd enforces it: a BPF program on a control group.
#![allow(unsafe_code, reason = "no crate of the workspace wraps bpf(2)")]

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::PathBuf;

use host_fs::mount::MountTable;
use uuid::Uuid;

use super::super::systemd::Unit;

const PROG_LOAD: libc::c_int = 5;
const PROG_ATTACH: libc::c_int = 8;
const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_TYPE_CGROUP_DEVICE: u32 = 6;

/// The character devices that `closed` allows, by their numbers: null, zero, full, random and urandom; tty and ptmx; and
/// every pseudo-terminal.
const STANDARD: [(u32, &[u32]); 3] = [(1, &[3, 5, 7, 8, 9]), (5, &[0, 2]), (136, &[])];

/// A control group whose processes may use only these devices. It is removed at the end.
pub(super) struct DevicePolicy {
    path: PathBuf,
    pub(super) processes: File,
    _program: OwnedFd,
}

impl DevicePolicy {
    /// Creates it by what a unit says, of which one form is known.
    pub(super) fn of(unit: &Unit) -> Self {
        let get = |directive| unit.get("Service", directive);
        assert_eq!(get("DevicePolicy"), Some("closed"));
        assert_eq!(get("DeviceAllow"), Some("block-* rwm"));
        let table = MountTable::read().unwrap();
        let mounted = table.mounts().iter().find(|mount| mount.fs_type == "cgroup2");
        let mounted = mounted.expect("a file system of type cgroup2 is mounted");
        let own = fs::read_to_string("/proc/self/cgroup").unwrap();
        let own = own
            .lines()
            .find_map(|line| line.strip_prefix("0::/"))
            .unwrap_or_default();
        let path = mounted
            .point
            .join(own)
            .join(format!("flocker-csi-test-{}", Uuid::new_v4()));
        fs::create_dir(&path).unwrap();
        let attached = (|| -> io::Result<_> {
            let program = load(&program())?;
            let group = File::open(&path)?;
            attach(&program, &group)?;
            let processes = File::options().write(true).open(path.join("cgroup.procs"))?;
            Ok((program, processes))
        })();
        match attached {
            Ok((program, processes)) => Self {
                path,
                processes,
                _program: program,
            },
            Err(error) => {
                fs::remove_dir(&path).ok();
                panic!("cannot restrict devices by BPF: {error}");
            }
        }
    }
}

impl Drop for DevicePolicy {
    fn drop(&mut self) {
        fs::remove_dir(&self.path).ok();
    }
}

/// One instruction: operation, target register, jump distance or offset, number. The source is always the first register.
fn step(operation: u64, target: u64, distance: usize, number: u32) -> u64 {
    const SOURCE: u64 = 1 << 12;
    operation | target << 8 | SOURCE | (distance as u64) << 16 | u64::from(number) << 32
}

/// Returns the program, which allows block devices and the standard character devices, and nothing else.
fn program() -> Vec<u64> {
    const LOAD: u64 = 0x61;
    const AND: u64 = 0x57;
    const IF_EQUAL: u64 = 0x15;
    const UNLESS_EQUAL: u64 = 0x55;
    const SET: u64 = 0xb7;
    const EXIT: u64 = 0x95;
    const BLOCK: u32 = 1;
    /// The distance of a jump that is not known yet.
    const TO_ALLOWED: usize = 0xffff;
    let (answer, kind, major, minor) = (0, 2, 3, 4);

    let mut steps = vec![
        step(LOAD, kind, 0, 0),
        step(AND, kind, 0, 0xffff),
        step(IF_EQUAL, kind, TO_ALLOWED, BLOCK),
        step(LOAD, major, 4, 0),
        step(LOAD, minor, 8, 0),
    ];
    for (number, minors) in STANDARD {
        steps.push(step(UNLESS_EQUAL, major, minors.len().max(1), number));
        if minors.is_empty() {
            steps.push(step(IF_EQUAL, major, TO_ALLOWED, number));
        }
        steps.extend(
            minors
                .iter()
                .map(|wanted| step(IF_EQUAL, minor, TO_ALLOWED, *wanted)),
        );
    }
    steps.extend([step(SET, answer, 0, 0), step(EXIT, 0, 0, 0)]);
    let allowed = steps.len();
    for (at, step) in steps.iter_mut().enumerate() {
        if *step >> 16 & 0xffff == TO_ALLOWED as u64 {
            *step = *step & !(0xffff << 16) | ((allowed - at - 1) as u64) << 16;
        }
    }
    steps.extend([step(SET, answer, 0, 1), step(EXIT, 0, 0, 0)]);
    // What sets a register, jumps by a number or ends has no source.
    for step in &mut steps {
        if *step & 0xff != LOAD {
            *step &= !(0xf << 12);
        }
    }
    steps
}

fn load(program: &[u64]) -> io::Result<OwnedFd> {
    #[repr(C)]
    #[derive(Default)]
    struct Request {
        program_type: u32,
        steps: u32,
        program: u64,
        license: u64,
        rest: [u64; 12],
    }
    let request = Request {
        program_type: PROG_TYPE_CGROUP_DEVICE,
        steps: u32::try_from(program.len()).unwrap(),
        program: program.as_ptr() as u64,
        license: c"".as_ptr() as u64,
        rest: [0; 12],
    };
    let loaded = bpf(PROG_LOAD, &request)?;
    // SAFETY: the kernel has just created this descriptor, and no other code has its number.
    Ok(unsafe { OwnedFd::from_raw_fd(i32::try_from(loaded).map_err(io::Error::other)?) })
}

fn attach(program: &OwnedFd, group: &File) -> io::Result<()> {
    let request = [
        group.as_raw_fd().cast_unsigned(),
        program.as_raw_fd().cast_unsigned(),
        ATTACH_TYPE_CGROUP_DEVICE,
        0,
    ];
    bpf(PROG_ATTACH, &request).map(drop)
}

fn bpf<T>(command: libc::c_int, request: &T) -> io::Result<libc::c_long> {
    // SAFETY: the kernel reads a request of the stated size, and what it points to lives as long as the request.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_ref(request),
            size_of::<T>(),
        )
    };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(answer)
}
