//! Replaces the value of `:authority` in an HPACK header block (RFC 7541).
//!
//! The block is read without a dynamic table and without decoding a value. The server decodes and checks
//! everything that this module leaves unchanged.

use super::huffman;

/// The value that the server reads.
pub(super) const AUTHORITY: &[u8; 9] = b"localhost";

/// The static table's entry for the name `:authority`.
const AUTHORITY_INDEX: usize = 1;

/// The name spelled out, and the same in Huffman code.
const NAME: &[u8] = b":authority";
const NAME_HUFFMAN: &[u8] = &[0xb8, 0x3b, 0x53, 0x39, 0xec, 0x32, 0x7d, 0x7f];

/// The most bytes an integer may take, which is also the limit of the HTTP/2 implementation behind us.
const LONGEST_INTEGER: u32 = 5;

/// Returns the block with the value of every literal `:authority` replaced by [`AUTHORITY`].
///
/// Returns `None` when there is nothing to replace: the block has no literal `:authority` with a value, or it is
/// malformed, which the server refuses.
///
/// A field keeps its representation, so that an entry keeps its place in the dynamic table, and the entry is
/// never made larger, so that the server never evicts one that the client still refers to: the client's table
/// is at any time the newest part of the server's. Where the client's value has less than nine bytes, the new
/// one is as long: a prefix of `localhost`, which is a valid name too.
///
/// A name may also be given by its place in the dynamic table. No known encoder does that for a name of the
/// static table; the value of such a field stays as it is.
pub(super) fn replace_authority(block: &[u8]) -> Option<Vec<u8>> {
    let mut replaced = Vec::new();
    let mut copied = 0;
    let mut reader = Reader { block, position: 0 };
    while let Some(&first) = block.get(reader.position) {
        match Representation::of(first) {
            Representation::Indexed => {
                reader.integer(7)?;
            }
            Representation::SizeUpdate => {
                reader.integer(5)?;
            }
            Representation::Literal { index_bits } => {
                let is_authority = match reader.integer(index_bits)? {
                    AUTHORITY_INDEX => true,
                    0 => reader.string()?.is_name_of_authority(),
                    _ => false,
                };
                let value_at = reader.position;
                let value = reader.string()?;
                if !is_authority {
                    continue;
                }
                let len = value.decoded_len()?;
                let Some(authority) = AUTHORITY
                    .get(..len.min(AUTHORITY.len()))
                    .filter(|it| !it.is_empty())
                else {
                    continue;
                };
                replaced.extend_from_slice(block.get(copied..value_at)?);
                replaced.push(u8::try_from(authority.len()).ok()?);
                replaced.extend_from_slice(authority);
                copied = reader.position;
            }
        }
    }
    if copied == 0 {
        return None;
    }
    replaced.extend_from_slice(block.get(copied..)?);
    Some(replaced)
}

/// How a header field, or a change of the table, is represented (RFC 7541, section 6).
enum Representation {
    /// Name and value by their place in a table.
    Indexed,
    /// A new size of the dynamic table.
    SizeUpdate,
    /// A value spelled out, its name by place (in a prefix of so many bits) or spelled out too.
    Literal { index_bits: u32 },
}

impl Representation {
    fn of(first: u8) -> Self {
        match first.leading_zeros() {
            0 => Self::Indexed,
            1 => Self::Literal { index_bits: 6 },
            2 => Self::SizeUpdate,
            _ => Self::Literal { index_bits: 4 },
        }
    }
}

/// A string literal (RFC 7541, section 5.2).
struct Literal<'a> {
    huffman: bool,
    bytes: &'a [u8],
}

impl Literal<'_> {
    fn is_name_of_authority(&self) -> bool {
        self.bytes == if self.huffman { NAME_HUFFMAN } else { NAME }
    }

    /// Returns the length of the string, or `None` if it is not validly encoded.
    fn decoded_len(&self) -> Option<usize> {
        if self.huffman {
            huffman::decoded_len(self.bytes)
        } else {
            Some(self.bytes.len())
        }
    }
}

/// Reads the parts of a header block; every method returns `None` where the block ends too early.
struct Reader<'a> {
    block: &'a [u8],
    position: usize,
}

impl<'a> Reader<'a> {
    fn byte(&mut self) -> Option<u8> {
        let byte = *self.block.get(self.position)?;
        self.position += 1;
        Some(byte)
    }

    /// Reads an integer that begins with the last `prefix_bits` bits of the next byte (RFC 7541, section
    /// 5.1).
    fn integer(&mut self, prefix_bits: u32) -> Option<usize> {
        let most = (1_usize << prefix_bits) - 1;
        let mut value = usize::from(self.byte()?) & most;
        if value < most {
            return Some(value);
        }
        for place in 0..LONGEST_INTEGER - 1 {
            let byte = self.byte()?;
            value += usize::from(byte & 0x7f) << (7 * place);
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn string(&mut self) -> Option<Literal<'a>> {
        let huffman = self.block.get(self.position)? & 0x80 != 0;
        let len = self.integer(7)?;
        let end = self.position.checked_add(len)?;
        let bytes = self.block.get(self.position..end)?;
        self.position = end;
        Some(Literal { huffman, bytes })
    }
}
