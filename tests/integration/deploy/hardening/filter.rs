//! The seccomp filter that systemd makes for a service.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use super::systemd_analyze;

/// Where an argument of a system call lies in `struct seccomp_data`: its lower half.
const ARGUMENTS: u32 = if cfg!(target_endian = "big") { 20 } else { 16 };

/// The namespaces that clone(2) and unshare(2) make.
const NAMESPACES: libc::c_int = libc::CLONE_NEWNS
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWCGROUP;

/// A filter under construction: system calls that no rule refuses are allowed.
#[derive(Default)]
pub(super) struct Filter(Vec<libc::sock_filter>);

impl Filter {
    fn step(&mut self, code: u32, k: u32, then: u8, otherwise: u8) {
        self.0.push(libc::sock_filter {
            code: u16::try_from(code).unwrap(),
            jt: then,
            jf: otherwise,
            k,
        });
    }

    fn load(&mut self, offset: u32) {
        self.step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset, 0, 0);
    }

    fn answer(&mut self, answer: u32) {
        self.step(libc::BPF_RET | libc::BPF_K, answer, 0, 0);
    }

    fn refuse_with(&mut self, error: libc::c_int) {
        self.answer(libc::SECCOMP_RET_ERRNO | error.unsigned_abs());
    }

    /// Continues with the next `length` steps only for this system call.
    fn only(&mut self, number: libc::c_long, length: u8) {
        self.load(0);
        self.step(
            libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
            u32::try_from(number).unwrap(),
            0,
            length,
        );
    }

    /// Refuses a system call.
    pub(super) fn refuse(&mut self, number: libc::c_long, error: libc::c_int) {
        self.only(number, 1);
        self.refuse_with(error);
    }

    /// Refuses a system call whose argument has one of the bits in each of `masks`.
    fn refuse_bits(&mut self, number: libc::c_long, argument: u32, masks: &[libc::c_int]) {
        let tests = u8::try_from(masks.len()).unwrap();
        self.only(number, tests + 2);
        self.load(ARGUMENTS + 8 * argument);
        for (index, mask) in (0..).zip(masks) {
            let code = libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K;
            self.step(code, mask.cast_unsigned(), 0, tests - index);
        }
        self.refuse_with(libc::EPERM);
    }

    /// Refuses every call of a group, by the installed systemd.
    pub(super) fn refuse_group(&mut self, group: &str) {
        let numbers = numbers();
        for name in members(group) {
            // Others belong to other architectures.
            if let Some(number) = numbers.get(&name) {
                self.refuse(*number, libc::EPERM);
            }
        }
    }

    /// `RestrictAddressFamilies=`.
    pub(super) fn allow_only_families(&mut self, families: &[&str]) {
        let tests = u8::try_from(families.len()).unwrap();
        self.only(libc::SYS_socket, tests + 2);
        self.load(ARGUMENTS);
        for (index, family) in (0..).zip(families) {
            let number = match *family {
                "AF_UNIX" => libc::AF_UNIX,
                "AF_INET" => libc::AF_INET,
                "AF_INET6" => libc::AF_INET6,
                "AF_NETLINK" => libc::AF_NETLINK,
                other => panic!("the number of {other} is not known"),
            };
            let code = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
            self.step(code, number.cast_unsigned(), tests - index, 0);
        }
        self.refuse_with(libc::EAFNOSUPPORT);
    }

    /// `RestrictNamespaces=yes`. The arguments of clone3(2) are in memory, so that it is missing altogether.
    pub(super) fn refuse_namespaces(&mut self) {
        self.refuse_bits(libc::SYS_clone, 0, &[NAMESPACES]);
        self.refuse_bits(libc::SYS_unshare, 0, &[NAMESPACES]);
        self.refuse(libc::SYS_setns, libc::EPERM);
        self.refuse(libc::SYS_clone3, libc::ENOSYS);
    }

    /// `MemoryDenyWriteExecute=yes`.
    pub(super) fn refuse_writable_code(&mut self) {
        self.refuse_bits(libc::SYS_mmap, 2, &[libc::PROT_WRITE, libc::PROT_EXEC]);
        self.refuse_bits(libc::SYS_mprotect, 2, &[libc::PROT_EXEC]);
        self.refuse_bits(libc::SYS_pkey_mprotect, 2, &[libc::PROT_EXEC]);
        self.refuse_bits(libc::SYS_shmat, 2, &[libc::SHM_EXEC]);
    }

    /// Returns the filter for the kernel.
    pub(super) fn finish(mut self) -> Vec<libc::sock_filter> {
        self.answer(libc::SECCOMP_RET_ALLOW);
        self.0
    }
}

/// Returns the system calls of a group and of the groups in it.
fn members(group: &str) -> Vec<String> {
    let listed = systemd_analyze(&["syscall-filter", "--no-pager", group]);
    let mut members = Vec::new();
    for line in listed.lines().skip(1).map(str::trim) {
        match line {
            "" => {}
            line if line.starts_with('#') => {}
            inner if inner.starts_with('@') => members.extend(self::members(inner)),
            name => members.push(name.to_owned()),
        }
    }
    assert!(!members.is_empty(), "{listed}");
    members
}

/// Returns the number of every system call of this machine, as the C compiler has it.
fn numbers() -> BTreeMap<String, libc::c_long> {
    let script = "echo '#include <sys/syscall.h>' | cc -E -dM -";
    let output = Command::new("sh")
        .args(["-c", script])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let numbers: BTreeMap<_, _> = text
        .lines()
        .filter_map(|line| line.strip_prefix("#define __NR_")?.split_once(' '))
        .filter_map(|(name, number)| Some((name.to_owned(), number.parse().ok()?)))
        .collect();
    assert!(numbers.contains_key("mount"), "{text}");
    numbers
}
