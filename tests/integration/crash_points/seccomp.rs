//! Seccomp's user notification: chosen system calls of a program wait until this process lets them continue.
#![allow(
    unsafe_code,
    reason = "no crate without a C library wraps seccomp(2) and its notifications"
)]

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::cmsg_space;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use rustix::process::Pid;
use tokio::process::Command;

/// A system call that waits.
pub(super) struct Rule {
    pub(super) number: libc::c_long,
    /// The argument that must have one of these bits, if any.
    pub(super) with: Option<(u32, u32)>,
}

/// How the kernel handles the system calls of a program; calls that no rule names continue.
#[derive(Clone)]
pub(super) struct Filter(Vec<libc::sock_filter>);

impl Filter {
    /// Stops the calls of `rules`, and makes the kernel one that lacks the calls in `missing`.
    pub(super) fn new(rules: &[Rule], missing: &[libc::c_long]) -> Self {
        const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
        const IF_EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
        const IF_SET: u32 = libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K;
        const ANSWER: u32 = libc::BPF_RET | libc::BPF_K;
        /// The offsets of the number, and of the lower half of the first argument, in `struct seccomp_data`.
        const NUMBER: u32 = 0;
        const ARGUMENTS: u32 = if cfg!(target_endian = "big") { 20 } else { 16 };

        let mut steps = Vec::new();
        let mut step = |code: u32, k: u32, otherwise: u8| {
            steps.push(libc::sock_filter {
                code: u16::try_from(code).unwrap(),
                jt: 0,
                jf: otherwise,
                k,
            });
        };
        for number in missing {
            step(LOAD, NUMBER, 0);
            step(IF_EQUAL, u32::try_from(*number).unwrap(), 1);
            step(ANSWER, libc::SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs(), 0);
        }
        for rule in rules {
            step(LOAD, NUMBER, 0);
            step(
                IF_EQUAL,
                u32::try_from(rule.number).unwrap(),
                if rule.with.is_some() { 3 } else { 1 },
            );
            if let Some((argument, bits)) = rule.with {
                step(LOAD, ARGUMENTS + 8 * argument, 0);
                step(IF_SET, bits, 1);
            }
            step(ANSWER, libc::SECCOMP_RET_USER_NOTIF, 0);
        }
        step(ANSWER, libc::SECCOMP_RET_ALLOW, 0);
        Self(steps)
    }

    /// Puts this thread, and the processes it starts, under the filter.
    fn install(&self) -> io::Result<OwnedFd> {
        let program = libc::sock_fprog {
            len: libc::c_ushort::try_from(self.0.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
            filter: self.0.as_ptr().cast_mut(),
        };
        // SAFETY: the program has the stated length, and the kernel only reads it.
        let listener = unsafe {
            libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
                &raw const program,
            )
        };
        match i32::try_from(listener) {
            // SAFETY: the kernel has just created this descriptor, and no other code has its number.
            Ok(listener) if listener >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(listener) }),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// Puts a program that is not started yet under a filter, and returns where its listener will arrive.
pub(super) fn confine(program: &mut Command, filter: Filter) -> UnixStream {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let prepare = move || {
        let listener = filter.install()?;
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
        let mut message = SendAncillaryBuffer::new(&mut space);
        let descriptors = [listener.as_fd()];
        message.push(SendAncillaryMessage::ScmRights(&descriptors));
        let pid = std::process::id().to_ne_bytes();
        sendmsg(&theirs, &[IoSlice::new(&pid)], &mut message, SendFlags::empty())?;
        Ok(())
    };
    // SAFETY: between fork and exec only system calls are made, on memory that is already allocated.
    unsafe { program.pre_exec(prepare) };
    ours
}

/// A system call that waits.
pub(super) struct Waiting {
    id: u64,
    /// The thread that makes it.
    pub(super) thread: u32,
    pub(super) number: libc::c_long,
    pub(super) arguments: [u64; 6],
}

/// Where the calls of one program wait.
pub(super) struct Listener(OwnedFd);

impl Listener {
    /// Waits for the program's start; `None` when it was not started.
    pub(super) fn receive(from: &UnixStream) -> Option<(Self, Pid)> {
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
        let mut message = RecvAncillaryBuffer::new(&mut space);
        let mut pid = [0; 4];
        recvmsg(
            from,
            &mut [IoSliceMut::new(&mut pid)],
            &mut message,
            RecvFlags::CMSG_CLOEXEC,
        )
        .unwrap();
        let listener = message.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        })?;
        Some((Self(listener), Pid::from_raw(i32::from_ne_bytes(pid))?))
    }

    /// Waits for the next call; `None` when the program has ended.
    pub(super) fn next(&self) -> Option<Waiting> {
        loop {
            let mut listener = [PollFd::new(&self.0, PollFlags::IN)];
            match poll(&mut listener, None) {
                Err(Errno::INTR) => continue,
                polled => polled.unwrap(),
            };
            if !listener[0].revents().contains(PollFlags::IN) {
                return None;
            }
            // SAFETY: it consists of numbers, and the kernel requires it to be filled with zeros.
            let mut found: libc::seccomp_notif = unsafe { MaybeUninit::zeroed().assume_init() };
            // SAFETY: this request writes one such structure.
            let answer =
                unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut found) };
            // The waiting process may have been killed since.
            if answer == 0 {
                return Some(Waiting {
                    id: found.id,
                    thread: found.pid,
                    number: found.data.nr.into(),
                    arguments: found.data.args,
                });
            }
        }
    }

    /// Lets the kernel carry out a call.
    pub(super) fn let_go_on(&self, call: &Waiting) {
        let answer = libc::seccomp_notif_resp {
            id: call.id,
            val: 0,
            error: 0,
            flags: u32::try_from(libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE).unwrap(),
        };
        // SAFETY: this request reads one such structure. It fails if the process has been killed.
        unsafe {
            libc::ioctl(
                self.0.as_raw_fd(),
                libc::SECCOMP_IOCTL_NOTIF_SEND,
                &raw const answer,
            )
        };
    }
}
