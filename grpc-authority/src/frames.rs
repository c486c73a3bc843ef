//! Cuts what a client sends into HTTP/2 frames (RFC 9113, section 4) and rewrites its header blocks.

use super::hpack;

/// The connection preface: the first bytes of every HTTP/2 client (RFC 9113, section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const HEAD_LEN: usize = 9;

/// The largest payload of a frame in bytes, as the server announces no other (RFC 9113, section 6.5.2).
const LARGEST_PAYLOAD: usize = 16_384;

/// The most bytes of frames that are kept until a header block is complete.
///
/// The server refuses a header list of more than 16 KiB, and no client needs so many bytes to encode less.
pub(super) const MOST_HELD: usize = 64 * 1024;

mod kind {
    pub(super) const HEADERS: u8 = 1;
    pub(super) const CONTINUATION: u8 = 9;
}

mod flag {
    pub(super) const END_HEADERS: u8 = 0x04;
    pub(super) const PADDED: u8 = 0x08;
    pub(super) const PRIORITY: u8 = 0x20;
}

/// Rewrites the client's side of an HTTP/2 connection, which arrives in pieces of any size.
///
/// Only header blocks are held back until they are complete; everything else is passed on at once. A block that
/// is malformed, or longer than [`MOST_HELD`], is passed on unchanged, for the server to refuse.
#[derive(Debug, Default)]
pub(super) struct Rewriter {
    state: State,
    /// The frames of an incomplete header block, and the beginning of the frame that is being read.
    held: Vec<u8>,
    /// Where in `held` the frame that is being read begins.
    frame_at: usize,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// So many bytes of the preface have arrived.
    Preface { seen: usize },
    /// The head of a frame is being read.
    Head,
    /// So much is left of the payload of a frame that belongs to a header block.
    Hold { left: usize },
    /// So much is left of the payload of a frame that is passed on.
    Pass { left: usize },
    /// This is not HTTP/2.
    PassAll,
}

impl Default for State {
    fn default() -> Self {
        Self::Preface { seen: 0 }
    }
}

impl Rewriter {
    /// Returns whether the client has sent the whole preface, or something else.
    pub(super) fn is_greeted(&self) -> bool {
        !matches!(self.state, State::Preface { .. })
    }

    /// Returns how many bytes are held back.
    #[cfg(any(test, fuzzing))]
    pub(super) fn held(&self) -> usize {
        self.held.len()
    }

    /// Takes the next bytes of the client and appends the bytes for the server.
    pub(super) fn push(&mut self, mut input: &[u8], output: &mut Vec<u8>) {
        while !input.is_empty() {
            let taken = match self.state {
                State::Preface { seen } => self.preface(seen, input, output),
                State::Head => self.head(input, output),
                State::Hold { left } => self.hold(left, input, output),
                State::Pass { left } => {
                    let (now, _) = input.split_at(left.min(input.len()));
                    output.extend_from_slice(now);
                    self.pass(left - now.len());
                    now.len()
                }
                State::PassAll => {
                    output.extend_from_slice(input);
                    input.len()
                }
            };
            (_, input) = input.split_at(taken);
        }
    }

    /// Appends what is held back when the client has closed its side.
    pub(super) fn finish(&mut self, output: &mut Vec<u8>) {
        output.append(&mut self.held);
        self.state = State::PassAll;
    }

    fn preface(&mut self, seen: usize, input: &[u8], output: &mut Vec<u8>) -> usize {
        let (_, expected) = PREFACE.split_at(seen);
        let len = expected.len().min(input.len());
        let (now, _) = input.split_at(len);
        if !expected.starts_with(now) {
            self.state = State::PassAll;
            return 0;
        }
        output.extend_from_slice(now);
        self.state = if len == expected.len() {
            State::Head
        } else {
            State::Preface { seen: seen + len }
        };
        len
    }

    /// Reads a frame's head and decides whether to hold the frame or pass it on.
    fn head(&mut self, input: &[u8], output: &mut Vec<u8>) -> usize {
        let missing = HEAD_LEN - (self.held.len() - self.frame_at);
        let len = missing.min(input.len());
        let (now, _) = input.split_at(len);
        self.held.extend_from_slice(now);
        if len < missing {
            return len;
        }
        let Some(head) = self.held.get(self.frame_at..).and_then(Head::parse) else {
            return len;
        };
        if self.belongs_to_header_block(&head) {
            self.state = State::Hold { left: head.len };
            if head.len == 0 {
                self.end_of_frame(output);
            }
        } else {
            output.append(&mut self.held);
            self.frame_at = 0;
            self.pass(head.len);
        }
        len
    }

    /// Returns whether the frame begins a header block, or continues the one that is held, and may be held
    /// too.
    fn belongs_to_header_block(&self, head: &Head) -> bool {
        let first = self.held.get(..self.frame_at).and_then(Head::parse);
        let expected = match first {
            None => head.kind == kind::HEADERS,
            Some(first) => head.kind == kind::CONTINUATION && head.stream == first.stream,
        };
        expected && head.len <= LARGEST_PAYLOAD && self.held.len() + head.len <= MOST_HELD
    }

    fn hold(&mut self, left: usize, input: &[u8], output: &mut Vec<u8>) -> usize {
        let len = left.min(input.len());
        let (now, _) = input.split_at(len);
        self.held.extend_from_slice(now);
        self.state = State::Hold { left: left - len };
        if left == len {
            self.end_of_frame(output);
        }
        len
    }

    /// Continues with the next frame of the header block, or passes the block on after its last frame.
    fn end_of_frame(&mut self, output: &mut Vec<u8>) {
        self.state = State::Head;
        let frame = self.held.get(self.frame_at..).and_then(Head::parse);
        if frame.is_some_and(|head| head.flags & flag::END_HEADERS == 0) {
            self.frame_at = self.held.len();
            return;
        }
        match rewrite(&self.held) {
            Some(frames) => output.extend(frames),
            None => output.extend_from_slice(&self.held),
        }
        self.held.clear();
        self.frame_at = 0;
    }

    fn pass(&mut self, left: usize) {
        self.state = if left == 0 {
            State::Head
        } else {
            State::Pass { left }
        };
    }
}

/// Returns the frames of a complete header block with another `:authority`, or `None` if nothing changes.
///
/// Padding and priority, both without meaning to the server, are removed.
fn rewrite(frames: &[u8]) -> Option<Vec<u8>> {
    let first = Head::parse(frames)?;
    let block = hpack::replace_authority(&header_block(frames)?)?;
    let mut rewritten = Vec::with_capacity(block.len() + HEAD_LEN);
    let mut fragments = block.chunks(LARGEST_PAYLOAD).peekable();
    let mut kind = kind::HEADERS;
    let mut flags = first.flags & !(flag::PADDED | flag::PRIORITY | flag::END_HEADERS);
    while let Some(fragment) = fragments.next() {
        if fragments.peek().is_none() {
            flags |= flag::END_HEADERS;
        }
        rewritten.extend(
            Head {
                len: fragment.len(),
                kind,
                flags,
                stream: first.stream,
            }
            .to_bytes(),
        );
        rewritten.extend_from_slice(fragment);
        kind = kind::CONTINUATION;
        flags = 0;
    }
    Some(rewritten)
}

/// Joins the fragments of a header block, or returns `None` if its padding is malformed.
fn header_block(mut frames: &[u8]) -> Option<Vec<u8>> {
    let mut block = Vec::with_capacity(frames.len());
    while let Some(head) = Head::parse(frames) {
        let (_, rest) = frames.split_at_checked(HEAD_LEN)?;
        let (mut fragment, rest) = rest.split_at_checked(head.len)?;
        frames = rest;
        if head.kind == kind::HEADERS {
            let mut padding = 0;
            if head.flags & flag::PADDED != 0 {
                let (len, after) = fragment.split_first()?;
                padding = usize::from(*len);
                fragment = after;
            }
            if head.flags & flag::PRIORITY != 0 {
                fragment = fragment.get(5..)?;
            }
            fragment = fragment.get(..fragment.len().checked_sub(padding)?)?;
        }
        block.extend_from_slice(fragment);
    }
    Some(block)
}

/// The nine bytes that every frame begins with.
struct Head {
    len: usize,
    kind: u8,
    flags: u8,
    stream: [u8; 4],
}

impl Head {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let [high, middle, low, kind, flags, a, b, c, d] = *bytes.first_chunk::<HEAD_LEN>()?;
        let len = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        Some(Self {
            len,
            kind,
            flags,
            stream: [a, b, c, d],
        })
    }

    fn to_bytes(&self) -> [u8; HEAD_LEN] {
        // A payload has at most 16,384 bytes here, so its length fits in the two lower bytes.
        let [.., middle, low] = self.len.to_be_bytes();
        let [a, b, c, d] = self.stream;
        [0, middle, low, self.kind, self.flags, a, b, c, d]
    }
}
