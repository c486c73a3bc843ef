//! A check of the rewriting for any bytes that a client may send.
//!
//! It parses input and output with a second implementation of RFC 9113 and RFC 7541, which keeps every representation
//! as it is and so shows that only the value of `:authority` has changed.

use super::frames::{MOST_HELD, Rewriter};
use super::hpack::AUTHORITY;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const LARGEST_PAYLOAD: usize = 16_384;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 0x04;
const PADDED: u8 = 0x08;
const PRIORITY: u8 = 0x20;

/// Rewrites any bytes as a client's side of a connection.
///
/// # Panics
/// If the output depends on how the input was cut, if the bytes held back or the output exceed their bound, or if
/// anything but the value of an `:authority` has changed.
pub fn authority(input: &[u8]) {
    let output = rewrite(input.chunks(input.len().max(1)));
    assert_eq!(rewrite(input.chunks(1)), output, "byte by byte");
    assert_eq!(rewrite(pieces(input)), output, "in pieces");
    if let (Some(sent), Some(read)) = (input.strip_prefix(PREFACE), output.strip_prefix(PREFACE)) {
        compare(sent, read);
    } else {
        assert_eq!(input, output, "this is not HTTP/2");
    }
}

fn rewrite<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut rewriter = Rewriter::default();
    let mut output = Vec::new();
    for piece in pieces {
        let before = output.len();
        rewriter.push(piece, &mut output);
        assert!(rewriter.held() <= MOST_HELD, "{} bytes are held", rewriter.held());
        assert!(output.len() - before <= (MOST_HELD + piece.len()) * 3 / 2);
    }
    rewriter.finish(&mut output);
    output
}

/// Cuts the input at positions that its own bytes decide, so that the fuzzing engine can try others.
fn pieces(mut rest: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let first = usize::from(*rest.first()?);
        let (piece, tail) = rest.split_at(rest.len().min(1 + first % 37));
        rest = tail;
        Some(piece)
    })
}

/// Compares frame by frame, up to the first violation of the protocol: what follows one is no request.
fn compare(mut sent: &[u8], mut read: &[u8]) {
    while let Some(block) = Frames::next(&mut sent) {
        if !block.is_header_block() {
            let same = read.strip_prefix(block.bytes);
            read = same.expect("a frame that is no header block has changed");
            continue;
        }
        if block.bytes.len() > MOST_HELD {
            return;
        }
        let fragments = block.fragments().unwrap_or_default();
        let fields = fields(&fragments);
        if let Some(tail) = read.strip_prefix(block.bytes) {
            let left = fields.unwrap_or_default();
            assert!(may_stay(&left), "an :authority was left: {left:?}");
            read = tail;
            continue;
        }
        let rewritten = Frames::next(&mut read).expect("a header block is missing");
        assert!(rewritten.is_header_block() && rewritten.stream() == block.stream());
        assert_eq!(
            rewritten.flags() | PADDED | PRIORITY | END_HEADERS,
            block.flags() | PADDED | PRIORITY | END_HEADERS
        );
        let rewritten = rewritten
            .fragments()
            .expect("the frames of a rewritten block are well-formed");
        let before = fields.expect("a malformed header block has changed");
        let after = self::fields(&rewritten).expect("a rewritten block is well-formed");
        assert_eq!(before.len(), after.len());
        for (before, after) in before.iter().zip(&after) {
            before.became(after);
        }
    }
    assert!(
        !sent.is_empty() || read.is_empty(),
        "the output is longer than the input"
    );
}

/// A frame, or a HEADERS frame with all that continue it.
struct Frames<'a> {
    bytes: &'a [u8],
}

impl<'a> Frames<'a> {
    /// Removes the next ones from `rest`, unless that is incomplete or violates the protocol.
    fn next(rest: &mut &'a [u8]) -> Option<Self> {
        let whole = *rest;
        let mut end = frame(whole)?.len();
        let first = Self { bytes: whole };
        if first.is_header_block() {
            let mut flags = first.flags();
            while flags & END_HEADERS == 0 {
                let next = frame(&whole[end..])?;
                let next = Self { bytes: next };
                if next.kind() != CONTINUATION || next.stream() != first.stream() {
                    return None;
                }
                flags = next.flags();
                end += next.bytes.len();
            }
        }
        let (bytes, tail) = whole.split_at(end);
        *rest = tail;
        Some(Self { bytes })
    }

    fn kind(&self) -> u8 {
        self.bytes[3]
    }

    fn flags(&self) -> u8 {
        self.bytes[4]
    }

    fn stream(&self) -> &[u8] {
        &self.bytes[5..9]
    }

    fn is_header_block(&self) -> bool {
        self.kind() == HEADERS
    }

    /// Joins the fragments of the header block, or returns `None` if the padding is longer than the frame.
    fn fragments(&self) -> Option<Vec<u8>> {
        let mut rest = self.bytes;
        let mut joined = Vec::new();
        while let Some(bytes) = frame(rest) {
            rest = &rest[bytes.len()..];
            let mut payload = &bytes[9..];
            if bytes[3] == HEADERS {
                let mut padding = 0;
                if bytes[4] & PADDED != 0 {
                    padding = usize::from(*payload.first()?);
                    payload = &payload[1..];
                }
                if bytes[4] & PRIORITY != 0 {
                    payload = payload.get(5..)?;
                }
                payload = payload.get(..payload.len().checked_sub(padding)?)?;
            }
            joined.extend_from_slice(payload);
        }
        Some(joined)
    }
}

/// Returns the first frame, if it is complete and of a size that the server accepts.
fn frame(bytes: &[u8]) -> Option<&[u8]> {
    let [high, middle, low, kind, ..] = *bytes.first_chunk::<9>()?;
    let length = u32::from_be_bytes([0, high, middle, low]) as usize;
    if matches!(kind, HEADERS | CONTINUATION) && length > LARGEST_PAYLOAD {
        return None;
    }
    bytes.get(..9 + length)
}

/// A field of a header block as it is represented.
#[derive(Debug, PartialEq)]
struct Field<'a> {
    /// The bits that distinguish the representations.
    form: u8,
    index: usize,
    name: Option<Text<'a>>,
    value: Option<Text<'a>>,
}

#[derive(Debug, PartialEq)]
struct Text<'a> {
    huffman: bool,
    bytes: &'a [u8],
}

impl Field<'_> {
    fn is_authority(&self) -> bool {
        let huffman_name: &[u8] = &[0xb8, 0x3b, 0x53, 0x39, 0xec, 0x32, 0x7d, 0x7f];
        self.value.is_some()
            && match &self.name {
                None => self.index == 1,
                Some(name) if name.huffman => name.bytes == huffman_name,
                Some(name) => name.bytes == b":authority",
            }
    }

    fn became(&self, after: &Self) {
        let (Some(old), Some(new)) = (&self.value, &after.value) else {
            return assert_eq!(self, after);
        };
        if !self.is_authority() || old.bytes.is_empty() {
            return assert_eq!(self, after);
        }
        assert_eq!(
            (self.form, self.index, &self.name),
            (after.form, after.index, &after.name)
        );
        assert!(
            !new.huffman && !new.bytes.is_empty() && AUTHORITY.starts_with(new.bytes),
            "{after:?}"
        );
        if !old.huffman {
            assert_eq!(new.bytes.len(), old.bytes.len().min(AUTHORITY.len()), "{self:?}");
        }
    }
}

/// Whether a block with these fields may pass unchanged: every `:authority` is empty or a prefix of `localhost`
/// already, or one is in Huffman code, in which a wrong bit makes the whole block malformed.
fn may_stay(fields: &[Field<'_>]) -> bool {
    let mut values = fields
        .iter()
        .filter(|field| field.is_authority())
        .filter_map(|field| field.value.as_ref());
    let encoded = values.clone().any(|value| value.huffman);
    encoded || values.all(|value| AUTHORITY.starts_with(value.bytes))
}

/// Returns the fields of a header block, or `None` if it is malformed.
fn fields(mut block: &[u8]) -> Option<Vec<Field<'_>>> {
    let mut fields = Vec::new();
    while let Some(first) = block.first() {
        let (form, bits, literal) = match first {
            0x80.. => (0x80, 7, false),
            0x40.. => (0x40, 6, true),
            0x20.. => (0x20, 5, false),
            _ => (first & 0xf0, 4, true),
        };
        let index = integer(&mut block, bits)?;
        let name = if literal && index == 0 {
            Some(text(&mut block)?)
        } else {
            None
        };
        let value = if literal { Some(text(&mut block)?) } else { None };
        fields.push(Field {
            form,
            index,
            name,
            value,
        });
    }
    Some(fields)
}

fn integer(rest: &mut &[u8], bits: u32) -> Option<usize> {
    let (first, mut tail) = rest.split_first()?;
    let full = 0xff >> (8 - bits);
    let mut value = usize::from(first & full);
    if first & full == full {
        for shift in [0, 7, 14, 21] {
            let (byte, after) = tail.split_first()?;
            tail = after;
            value += usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                *rest = tail;
                return Some(value);
            }
        }
        return None;
    }
    *rest = tail;
    Some(value)
}

fn text<'a>(rest: &mut &'a [u8]) -> Option<Text<'a>> {
    let huffman = rest.first()? & 0x80 != 0;
    let length = integer(rest, 7)?;
    let (bytes, tail) = rest.split_at_checked(length)?;
    *rest = tail;
    Some(Text { huffman, bytes })
}

#[cfg(test)]
#[path = "../../fuzz/corpus.rs"]
mod corpus;

#[cfg(test)]
mod tests {
    use super::{authority, corpus::read_corpus};

    #[test]
    fn the_corpus_of_client_streams_keeps_every_promise() {
        read_corpus("authority", authority);
    }
}
