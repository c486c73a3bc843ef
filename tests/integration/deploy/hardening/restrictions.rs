//! The restrictions of a unit, for a program that is started without systemd.
#![allow(
    unsafe_code,
    reason = "what a program starts with is set between fork and exec"
)]

use std::io;
use std::os::fd::AsRawFd;

use tokio::process::Command;

use super::super::systemd::Unit;
use super::devices::DevicePolicy;
use super::filter::Filter;

/// The capabilities that the shipped units keep, by number.
const CAPABILITIES: [(&str, u32); 4] = [
    ("CAP_DAC_OVERRIDE", 1),
    ("CAP_SYS_PTRACE", 19),
    ("CAP_SYS_ADMIN", 21),
    ("CAP_MKNOD", 27),
];
/// More than any kernel has.
const ALL_CAPABILITIES: u32 = 64;

#[derive(Clone)]
pub(super) struct Restrictions {
    kept: Vec<u32>,
    umask: libc::mode_t,
    filter: Vec<libc::sock_filter>,
}

impl Restrictions {
    pub(super) fn of(unit: &Unit) -> Self {
        let get = |directive| {
            unit.get("Service", directive)
                .unwrap_or_else(|| panic!("{directive}= is missing"))
        };
        let number = |name| {
            let found = CAPABILITIES.iter().find(|(known, _)| *known == name);
            found
                .unwrap_or_else(|| panic!("the number of {name} is not known"))
                .1
        };
        for directive in [
            "NoNewPrivileges",
            "RestrictNamespaces",
            "RestrictRealtime",
            "LockPersonality",
            "MemoryDenyWriteExecute",
        ] {
            assert_eq!(get(directive), "yes", "{directive}");
        }
        assert_eq!(get("LimitCORE"), "0");
        assert_eq!(get("SystemCallErrorNumber"), "EPERM");
        let mut filter = Filter::default();
        let refused = get("SystemCallFilter")
            .strip_prefix('~')
            .expect("a list of what is refused");
        for group in refused.split_whitespace() {
            filter.refuse_group(group);
        }
        let families: Vec<_> = get("RestrictAddressFamilies").split_whitespace().collect();
        filter.allow_only_families(&families);
        filter.refuse_namespaces();
        filter.refuse_writable_code();
        filter.refuse(libc::SYS_sched_setscheduler, libc::EPERM);
        filter.refuse(libc::SYS_personality, libc::EPERM);
        Self {
            kept: get("CapabilityBoundingSet")
                .split_whitespace()
                .map(number)
                .collect(),
            umask: libc::mode_t::from_str_radix(get("UMask"), 8).unwrap(),
            filter: filter.finish(),
        }
    }

    /// Puts a program that is not started yet under them.
    pub(super) fn apply(&self, program: &mut Command, devices: &DevicePolicy) {
        let restrictions = self.clone();
        let group = devices.processes.try_clone().unwrap();
        let prepare = move || {
            // SAFETY: the kernel reads one byte; 0 is the process that writes it.
            checked(unsafe { libc::write(group.as_raw_fd(), c"0".as_ptr().cast(), 1) })?;
            restrictions.enter()
        };
        // SAFETY: between fork and exec only system calls are made, on memory that is already allocated.
        unsafe { program.pre_exec(prepare) };
    }

    /// The order is systemd's: the filter comes last, as it refuses what the others need.
    fn enter(&self) -> io::Result<()> {
        let no_core = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        let filter = libc::sock_fprog {
            len: libc::c_ushort::try_from(self.filter.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
            filter: self.filter.as_ptr().cast_mut(),
        };
        // SAFETY: the calls read what is passed to them, and change this process alone.
        unsafe {
            libc::umask(self.umask);
            checked(libc::setrlimit(libc::RLIMIT_CORE, &raw const no_core) as isize)?;
            for capability in (0..ALL_CAPABILITIES).filter(|capability| !self.kept.contains(capability)) {
                // The kernel has fewer of them.
                libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(capability), 0, 0, 0);
            }
            checked(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) as isize)?;
            let mode = libc::c_ulong::from(libc::SECCOMP_MODE_FILTER);
            checked(libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const filter) as isize)?;
        }
        Ok(())
    }
}

fn checked(answer: isize) -> io::Result<()> {
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
