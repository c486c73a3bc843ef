//! A file system that answers no request, or stops answering: how a device that hangs looks from above.
//!
//! ext4 answers statfs(2) from memory, so only a file system with a server can make it hang.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;

use rustix::fs::{Mode, OFlags, open};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

// The requests of the kernel, and the sizes of its messages: linux/fuse.h.
const GETATTR: u32 = 3;
const STATFS: u32 = 17;
const INIT: u32 = 26;
const UNANSWERED: [u32; 3] = [2, 36, 42];
const ENOSYS: i32 = 38;

/// The requests that a server answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answers {
    Everything,
    /// All but those for the usage.
    AllButUsage,
    Nothing,
}

/// A file system with an empty root, mounted at a path.
pub(super) struct Server {
    point: PathBuf,
    state: Arc<State>,
}

struct State {
    device: File,
    requests: Mutex<Requests>,
}

struct Requests {
    answers: Answers,
    pending: Vec<(u64, u32)>,
}

impl Server {
    pub(super) fn mount(at: &Path, answers: Answers) -> Self {
        let device = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/fuse")
            .unwrap();
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0\0", device.as_raw_fd());
        let options = std::ffi::CStr::from_bytes_with_nul(options.as_bytes()).unwrap();
        mount("served", at, "fuse", MountFlags::empty(), Some(options)).unwrap();
        let requests = Mutex::new(Requests {
            answers,
            pending: Vec::new(),
        });
        let state = Arc::new(State { device, requests });
        let serving = Arc::clone(&state);
        thread::spawn(move || serving.serve());
        Self {
            point: at.to_owned(),
            state,
        }
    }

    /// Changes which requests are answered, and answers the waiting ones of them.
    pub(super) fn answers(&self, answers: Answers) {
        let mut requests = self.state.requests.lock().unwrap();
        requests.answers = answers;
        for (id, what) in std::mem::take(&mut requests.pending) {
            self.state.answer(&mut requests, id, what);
        }
    }

    /// Ends the server; its mount stays and returns errors.
    pub(super) fn die(&self) {
        // The open directory keeps the mount, so the force only aborts the connection.
        let _busy = open(&self.point, OFlags::PATH, Mode::empty()).unwrap();
        unmount(&self.point, UnmountFlags::FORCE).unwrap_err();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.answers(Answers::Everything);
        unmount(&self.point, UnmountFlags::DETACH).ok();
    }
}

impl State {
    /// Ends when the file system is unmounted.
    fn serve(&self) {
        let mut message = vec![0; 1 << 17];
        while let Ok(length) = (&self.device).read(&mut message) {
            if length < 16 {
                return;
            }
            let what = u32::from_ne_bytes(message[4..8].try_into().unwrap());
            let id = u64::from_ne_bytes(message[8..16].try_into().unwrap());
            let mut requests = self.requests.lock().unwrap();
            self.answer(&mut requests, id, what);
        }
    }

    fn answer(&self, requests: &mut Requests, id: u64, what: u32) {
        let hangs = match requests.answers {
            Answers::Everything => false,
            Answers::AllButUsage => what == STATFS,
            Answers::Nothing => what != INIT,
        };
        if UNANSWERED.contains(&what) {
            return;
        }
        if hangs {
            requests.pending.push((id, what));
            return;
        }
        let words = |words: &[u32]| {
            words
                .iter()
                .flat_map(|word| word.to_ne_bytes())
                .collect::<Vec<_>>()
        };
        let answer = match what {
            // Version 7.31, with room for one page in a message.
            INIT => Some([words(&[7, 31, 0, 0, 0, 4096, 1]), vec![0; 36]].concat()),
            GETATTR => {
                let times = [0; 3];
                let directory = [times.as_slice(), &[0o40_755, 2, 0, 0, 0, 4096, 0]].concat();
                Some([words(&[3600, 0, 0, 0, 1, 0]), vec![0; 40], words(&directory)].concat())
            }
            // 1000 blocks of 4 KiB and 100 files, half of them free.
            STATFS => Some(
                [
                    words(&[1000, 0, 500, 0, 500, 0, 100, 0, 50, 0, 4096, 255, 4096, 0]),
                    vec![0; 24],
                ]
                .concat(),
            ),
            _ => None,
        };
        let (error, answer) = answer.map_or((-ENOSYS, Vec::new()), |answer| (0, answer));
        let length = u32::try_from(16 + answer.len()).unwrap().to_ne_bytes();
        let message = [&length[..], &error.to_ne_bytes(), &id.to_ne_bytes(), &answer].concat();
        // The kernel may have abandoned the request.
        (&self.device).write_all(&message).ok();
    }
}
