//! A service manager that keeps descriptors, as systemd does.

use std::collections::BTreeMap;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rustix::cmsg_space;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use uuid::Uuid;

use crate::support::eventually;
use crate::support::machine::Machine;
use crate::support::process::{Process, program_under};

/// What the manager keeps, by names.
type Kept = Arc<Mutex<BTreeMap<String, OwnedFd>>>;

pub(super) struct Manager {
    socket: PathBuf,
    kept: Kept,
}

impl Manager {
    /// Listens at a path.
    pub(super) fn at(socket: PathBuf) -> Self {
        let listening = UnixDatagram::bind(&socket).unwrap();
        let kept = Kept::default();
        let keeps = Arc::clone(&kept);
        std::thread::spawn(move || receive(&listening, &keeps));
        Self { socket, kept }
    }

    /// Returns the names under which it keeps something.
    pub(super) fn names(&self) -> Vec<String> {
        self.kept.lock().unwrap().keys().cloned().collect()
    }

    /// Keeps something else too.
    pub(super) fn add(&self, name: &str, descriptor: OwnedFd) {
        self.kept.lock().unwrap().insert(name.to_owned(), descriptor);
    }

    /// Starts the plugin of a machine with what is kept.
    pub(super) async fn start(&self, machine: &Machine) -> Process {
        let mut flags = machine.flags();
        flags.extend(["serve".to_owned(), "--abandoned-grace=1s".to_owned()]);
        flags.rotate_right(2);
        let flags: Vec<_> = flags.iter().map(String::as_str).collect();
        // A shell keeps its process id for what it executes, and passes on the descriptors that it has.
        let shell = ["sh", "-c", "LISTEN_PID=$$ exec \"$@\"", "sh"];
        let mut command = program_under(&shell, &flags);
        // They stay open until the process has its own.
        let passed: Vec<(String, OwnedFd)> = {
            let kept = self.kept.lock().unwrap();
            kept.iter()
                .map(|(name, descriptor)| (name.clone(), descriptor.try_clone().unwrap()))
                .collect()
        };
        let names: Vec<_> = passed.iter().map(|(name, _)| name.as_str()).collect();
        command
            .env("NOTIFY_SOCKET", &self.socket)
            .env("PATH", "/usr/bin:/bin")
            .env("LISTEN_FDS", passed.len().to_string())
            .env("LISTEN_FDNAMES", names.join(":"));
        let numbers: Vec<_> = passed
            .iter()
            .map(|(_, descriptor)| descriptor.as_raw_fd())
            .collect();
        pass_from_3(&mut command, numbers);
        let started = Process::attempt(command, &machine.path("plugin.log")).await;
        drop(passed);
        started.unwrap_or_else(|said| panic!("{said}"))
    }
}

#[allow(unsafe_code, reason = "descriptors are passed on by their numbers")]
fn pass_from_3(command: &mut tokio::process::Command, numbers: Vec<i32>) {
    let passing = move || {
        // First out of the way of each other.
        let mut moved = [0; 16];
        for (moved, number) in moved.iter_mut().zip(&numbers) {
            // SAFETY: of numbers, and safe after a fork.
            *moved = unsafe { libc::fcntl(*number, libc::F_DUPFD, 100) };
        }
        for (target, moved) in (3..).zip(moved.iter().take(numbers.len())) {
            // SAFETY: the same.
            if unsafe { libc::dup2(*moved, target) } < 0 {
                return Err(std::io::Error::last_os_error());
            }
            // SAFETY: the same.
            unsafe { libc::close(*moved) };
        }
        Ok(())
    };
    // SAFETY: it calls nothing but fcntl, dup2 and close, and allocates nothing.
    unsafe { command.pre_exec(passing) };
}

fn receive(socket: &UnixDatagram, kept: &Kept) {
    loop {
        let mut text = [0; 4096];
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC;
        let received = recvmsg(socket, &mut [IoSliceMut::new(&mut text)], &mut control, flags).unwrap();
        let descriptor = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        });
        let text = std::str::from_utf8(&text[..received.bytes]).unwrap();
        let field = |name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
        };
        let name = field("FDNAME").unwrap().to_owned();
        assert!(name.len() <= 255 && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':'));
        let mut kept = kept.lock().unwrap();
        match (field("FDSTORE"), field("FDSTOREREMOVE")) {
            (Some("1"), None) => {
                assert_eq!(
                    field("FDPOLL"),
                    Some("0"),
                    "a descriptor of a path cannot be polled"
                );
                kept.insert(name, descriptor.unwrap());
            }
            (None, Some("1")) => drop(kept.remove(&name)),
            _ => panic!("{text:?}"),
        }
    }
}

impl Manager {
    /// Waits until the only thing that is kept is the pin of a dataset, and returns its name.
    pub(super) async fn keeps_pin_of(&self, dataset: Uuid) -> String {
        let name = format!("pin-{dataset}");
        eventually("the pin is kept", async || {
            (self.names() == [name.clone()]).then_some(())
        })
        .await;
        name
    }
}

/// Opens a directory as a pin.
pub(super) fn open_path(path: &Path) -> OwnedFd {
    use rustix::fs::{Mode, OFlags, open};
    open(
        path,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .unwrap()
}
