//! The decoded length of a string in HPACK's Huffman code.

/// How many symbols have a code of each length, from 0 to 30 bits (RFC 7541, appendix B).
///
/// The code is canonical: sorted by length, codes are consecutive numbers. So these counts suffice to find where
/// one symbol ends and the next begins; which symbol it is does not matter for a length.
const CODES_OF_LENGTH: [u32; 31] = [
    0, 0, 0, 0, 0, 10, 26, 32, 6, 0, 5, 3, 2, 6, 2, 3, 0, 0, 0, 3, 8, 13, 26, 29, 12, 4, 15, 19, 29, 0, 4,
];

/// The longest padding in bits: the rest of the last byte.
const MOST_PADDING: usize = 7;

/// Returns the number of bytes that `encoded` decodes to.
///
/// Returns `None` when no sequence of bytes is encoded like this: the end-of-string symbol occurs, or the
/// padding is longer than seven bits or has a bit that is not set.
pub(super) fn decoded_len(encoded: &[u8]) -> Option<usize> {
    let mut symbols = 0;
    let mut code = Code::default();
    for byte in encoded {
        for shift in (0..8).rev() {
            if code.push(byte >> shift & 1)? {
                symbols += 1;
                code = Code::default();
            }
        }
    }
    (code.bits <= MOST_PADDING && code.all_set).then_some(symbols)
}

/// The bits of a symbol read so far.
struct Code {
    /// How many bits.
    bits: usize,
    /// Their value minus the value of the first code of that many bits.
    offset: u32,
    /// Whether every one of them is set, as padding must be.
    all_set: bool,
}

impl Default for Code {
    fn default() -> Self {
        Self {
            bits: 0,
            offset: 0,
            all_set: true,
        }
    }
}

impl Code {
    /// Adds a bit and returns whether the symbol is complete, or `None` if it is the end-of-string symbol.
    fn push(&mut self, bit: u8) -> Option<bool> {
        self.bits += 1;
        self.all_set &= bit == 1;
        let count = *CODES_OF_LENGTH.get(self.bits)?;
        let offset = self.offset * 2 + u32::from(bit);
        if offset >= count {
            self.offset = offset - count;
            return Some(false);
        }
        // The last code of all, thirty set bits, is the end of the string, which must not be sent.
        let end_of_string = self.bits + 1 == CODES_OF_LENGTH.len() && self.all_set;
        (!end_of_string).then_some(true)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_table_has_a_code_for_every_byte_and_the_end() {
        assert_eq!(CODES_OF_LENGTH.iter().sum::<u32>(), 257);
        let space: u64 = CODES_OF_LENGTH
            .iter()
            .zip((0..31).rev())
            .map(|(n, bits)| u64::from(*n) << bits)
            .sum();
        assert_eq!(space, 1 << 30, "a complete prefix code");
    }

    #[test]
    fn padding_is_at_most_seven_set_bits() {
        assert_eq!(decoded_len(&[]), Some(0));
        assert_eq!(decoded_len(&[0b0001_1111]), Some(1), "the letter a");
        assert_eq!(decoded_len(&[0b0001_1110]), None, "a clear bit in the padding");
        assert_eq!(decoded_len(&[0xff]), None, "eight bits of padding");
    }

    #[test]
    fn the_end_of_string_is_refused() {
        assert_eq!(decoded_len(&[0xff; 4]), None);
    }

    proptest! {
        #[test]
        fn the_length_is_that_of_what_was_encoded(text: Vec<u8>) {
            let mut encoded = Vec::new();
            httlib_huffman::encode(&text, &mut encoded).unwrap();
            prop_assert_eq!(decoded_len(&encoded), Some(text.len()));
        }

        #[test]
        fn arbitrary_bytes_have_a_possible_length_or_none(encoded: Vec<u8>) {
            if let Some(len) = decoded_len(&encoded) {
                prop_assert!(len * 5 <= encoded.len() * 8);
                prop_assert!(len * 30 + 7 >= encoded.len() * 8);
            }
        }
    }
}
