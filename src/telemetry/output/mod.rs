//! Standard streams that are written without blocking, failing or panicking.
//!
//! Log lines are written by the one thread that serves all calls. A reader that stops reading, a disk that is full or a file
//! system that hangs must not stop that thread, so a line that cannot be written at once is lost, counted, and mentioned by
//! the first line that can be written again.
//!
//! Pipes, terminals and sockets are written directly, one system call for a line, which the kernel refuses rather than
//! waits. For a regular file it offers no such call on every file system, so a thread of its own writes it, from a queue of
//! bounded size. (`tracing-appender` has such a thread for every kind of stream, which costs a wake of it for each line, and
//! does not report lines that could not be written.)

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, Mode, OFlags, fstat, open};
use rustix::net::{SendFlags, send};
use tokio::time::Instant;

use super::counters::{Counter, Counters};

/// How many bytes of memory the lines may take that wait for the thread that writes a file.
const QUEUE_BYTES: usize = 1 << 20;
/// What a line takes beside its text.
const ENTRY_BYTES: usize = 64;

/// Returns the line, without its end, that says how many lines were lost.
pub type Remark = fn(lost: u64) -> String;

/// A stream of the process. It never blocks unless a caller says for how long it may, and it reports no errors.
pub struct Output {
    way: Way,
    losses: Arc<Losses>,
}

enum Way {
    Direct(Mutex<Stream>),
    Queue(Queue),
}

/// The lines that were lost.
struct Losses {
    /// Those that no remark has mentioned yet.
    unmentioned: AtomicU64,
    /// Those that were lost before there was a registry of counters.
    uncounted: AtomicU64,
    counters: OnceLock<Counters>,
}

impl Losses {
    fn count(&self) {
        self.unmentioned.fetch_add(1, Ordering::Relaxed);
        match self.counters.get() {
            Some(counters) => counters.count(Counter::LogLinesLost),
            None => {
                self.uncounted.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

impl Output {
    /// Makes the output of an open stream. `remark` is written before the first line that follows lost ones.
    pub fn new(stream: BorrowedFd<'_>, remark: Remark) -> Self {
        let losses = Arc::new(Losses {
            unmentioned: AtomicU64::new(0),
            uncounted: AtomicU64::new(0),
            counters: OnceLock::new(),
        });
        let way = match Target::without_blocking(stream) {
            Ok(target) => Way::Direct(Mutex::new(Stream::new(target, remark, Arc::clone(&losses)))),
            Err(_) => Way::Queue(Queue::begin(stream, remark, &losses)),
        };
        Self { way, losses }
    }

    /// Counts lost lines in this registry from now on, and those that were lost before. Only the first call has an effect.
    pub fn count_losses_in(&self, counters: &Counters) {
        if self.losses.counters.set(counters.clone()).is_ok() {
            let before = self.losses.uncounted.swap(0, Ordering::Relaxed);
            counters.add(Counter::LogLinesLost, before);
        }
    }

    /// Writes a line, which ends in a line feed, if that is possible at once.
    pub fn write_line(&self, line: &[u8]) {
        match &self.way {
            Way::Direct(stream) => {
                if !lock(stream).write_line(line) {
                    self.losses.count();
                }
            }
            Way::Queue(queue) => {
                if !queue.push(line) {
                    self.losses.count();
                }
            }
        }
    }

    /// Waits until what was written has reached the stream, at most for so long.
    pub fn flush(&self, within: Duration) {
        match &self.way {
            Way::Direct(stream) => lock(stream).flush(within),
            Way::Queue(queue) => queue.flush(within),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A stream and the part of a line that it has not taken yet.
struct Stream {
    target: Target,
    rest: Vec<u8>,
    remark: Remark,
    losses: Arc<Losses>,
}

impl Stream {
    fn new(target: Target, remark: Remark, losses: Arc<Losses>) -> Self {
        Self {
            target,
            rest: Vec::new(),
            remark,
            losses,
        }
    }

    /// Writes a line and what has to be written before it. Returns whether the stream took the line or a part of it: the
    /// rest follows with the next line.
    fn write_line(&mut self, line: &[u8]) -> bool {
        if !self.write_rest() {
            return false;
        }
        let lost = self.losses.unmentioned.load(Ordering::Relaxed);
        if lost > 0 {
            let remark = (self.remark)(lost) + "\n";
            if !self.begin(remark.as_bytes()) {
                return false;
            }
            self.losses.unmentioned.fetch_sub(lost, Ordering::Relaxed);
            if !self.rest.is_empty() {
                return false;
            }
        }
        self.begin(line)
    }

    /// Writes a line after nothing else. Returns whether the stream took at least a part.
    fn begin(&mut self, line: &[u8]) -> bool {
        match self.target.write(line) {
            Ok(0) | Err(_) => false,
            Ok(written) => {
                self.rest
                    .extend_from_slice(line.get(written..).unwrap_or_default());
                true
            }
        }
    }

    /// Returns whether no part of an earlier line is left.
    fn write_rest(&mut self) -> bool {
        if !self.rest.is_empty() {
            let written = self.target.write(&self.rest).unwrap_or(0);
            self.rest.drain(..written.min(self.rest.len()));
        }
        self.rest.is_empty()
    }

    fn flush(&mut self, within: Duration) {
        let deadline = Instant::now() + within;
        while !self.write_rest() {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(wait) = Timespec::try_from(left) else {
                return;
            };
            let mut writable = [PollFd::from_borrowed_fd(self.target.descriptor(), PollFlags::OUT)];
            let ready = poll(&mut writable, Some(&wait));
            // A stream whose reader no longer exists is never writable again.
            let [stream] = &writable;
            if !matches!(ready, Ok(1)) || !stream.revents().contains(PollFlags::OUT) {
                return;
            }
        }
    }
}

/// What is written to.
enum Target {
    /// The kernel is asked with each message not to wait.
    Socket(OwnedFd),
    /// A description of the stream of our own, in non-blocking mode: other processes share the one that was given.
    Reopened(OwnedFd),
    /// A write may wait.
    Blocking(OwnedFd),
}

impl Target {
    fn without_blocking(stream: BorrowedFd<'_>) -> io::Result<Self> {
        match FileType::from_raw_mode(fstat(stream)?.st_mode) {
            FileType::Socket => Ok(Self::Socket(stream.try_clone_to_owned()?)),
            FileType::Fifo | FileType::CharacterDevice => {
                let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&stream));
                let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
                Ok(Self::Reopened(open(path, flags, Mode::empty())?))
            }
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        let written = rustix::io::retry_on_intr(|| match self {
            Self::Socket(socket) => send(socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL),
            Self::Reopened(stream) | Self::Blocking(stream) => rustix::io::write(stream, bytes),
        });
        Ok(written?)
    }

    fn descriptor(&self) -> BorrowedFd<'_> {
        match self {
            Self::Socket(stream) | Self::Reopened(stream) | Self::Blocking(stream) => stream.as_fd(),
        }
    }
}

/// The lines that wait for the thread that writes them.
struct Queue {
    sender: Sender<Entry>,
    bytes: Arc<AtomicUsize>,
}

enum Entry {
    Line(Vec<u8>),
    /// Everything before this has been written once the sender is dropped.
    Mark(SyncSender<()>),
}

impl Queue {
    /// Starts the thread. Without one, every line is lost.
    fn begin(stream: BorrowedFd<'_>, remark: Remark, losses: &Arc<Losses>) -> Self {
        let (sender, receiver) = channel();
        let bytes = Arc::new(AtomicUsize::new(0));
        let waiting = Arc::clone(&bytes);
        if let Ok(descriptor) = stream.try_clone_to_owned() {
            let stream = Stream::new(Target::Blocking(descriptor), remark, Arc::clone(losses));
            std::thread::Builder::new()
                .name("log".to_owned())
                .stack_size(64 << 10)
                .spawn(move || write_all(stream, &receiver, &waiting))
                .ok();
        }
        Self { sender, bytes }
    }

    fn push(&self, line: &[u8]) -> bool {
        let bytes = line.len() + ENTRY_BYTES;
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let queued = before <= QUEUE_BYTES && self.sender.send(Entry::Line(line.to_owned())).is_ok();
        if !queued {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        queued
    }

    fn flush(&self, within: Duration) {
        let (mark, written) = sync_channel(0);
        if self.sender.send(Entry::Mark(mark)).is_ok() {
            // Either the thread has dropped the mark, or the time is over.
            written.recv_timeout(within).ok();
        }
    }
}

fn write_all(mut stream: Stream, queue: &Receiver<Entry>, bytes: &AtomicUsize) {
    for entry in queue {
        match entry {
            Entry::Line(line) => {
                bytes.fetch_sub(line.len() + ENTRY_BYTES, Ordering::Relaxed);
                if !stream.write_line(&line) {
                    stream.losses.count();
                }
            }
            Entry::Mark(mark) => {
                stream.write_rest();
                drop(mark);
            }
        }
    }
}

#[cfg(test)]
mod tests;
