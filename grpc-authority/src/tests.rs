//! Tests of the rewriting as a whole, against an independent HPACK implementation.

use httlib_hpack::{Decoder, Encoder};
use proptest::collection::vec;
use proptest::prelude::*;
use tokio::io::AsyncReadExt;

use super::AuthorityStream;
use super::frames::{MOST_HELD, Rewriter};
use super::hpack::{AUTHORITY, replace_authority};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const END_HEADERS: u8 = 0x04;
const PADDED: u8 = 0x08;
const PRIORITY: u8 = 0x20;

type Field = (Vec<u8>, Vec<u8>);

/// A header block as a client may encode it: its fields with the flags of the encoder.
#[derive(Clone, Debug)]
struct Request {
    table_size: Option<u32>,
    fields: Vec<(Field, u8)>,
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        vec(any::<u8>(), 1..20),
        vec(b' '..=b'~', 1..40),
        vec(any::<u8>(), 100..900)
    ]
}

fn field() -> impl Strategy<Value = (Field, u8)> {
    let name = prop_oneof![
        3 => Just(b":authority".to_vec()),
        1 => Just(b":path".to_vec()),
        1 => Just(b"x-authority".to_vec()),
        1 => Just(b"grpc-timeout".to_vec()),
        1 => vec(b'a'..=b'z', 1..30),
    ];
    (name, value(), 0_u8..0x20).prop_map(|(name, value, flags)| ((name, value), flags))
}

/// Requests that repeat fields of earlier ones, so that they refer to the dynamic table.
fn requests() -> impl Strategy<Value = Vec<Request>> {
    let table_size = proptest::option::weighted(0.1, 0_u32..4096);
    let field_and_repeat = (field(), any::<prop::sample::Index>());
    vec((table_size, vec(field_and_repeat, 1..8)), 1..24).prop_map(|drawn| {
        let mut said = Vec::new();
        let mut requests = Vec::new();
        for (table_size, drawn_fields) in drawn {
            let mut fields = Vec::new();
            for (field, repeat) in drawn_fields {
                said.push(field);
                let back = repeat.index(said.len().min(12));
                fields.push(said[said.len() - 1 - back].clone());
            }
            requests.push(Request { table_size, fields });
        }
        requests
    })
}

fn encode(encoder: &mut Encoder<'_>, request: &Request) -> Vec<u8> {
    let mut block = Vec::new();
    if let Some(size) = request.table_size {
        encoder.update_max_dynamic_size(size, &mut block).unwrap();
    }
    for ((name, value), flags) in &request.fields {
        encoder
            .encode((name.clone(), value.clone(), *flags), &mut block)
            .unwrap();
    }
    block
}

fn decode(decoder: &mut Decoder<'_>, mut block: Vec<u8>) -> Vec<Field> {
    let mut fields = Vec::new();
    decoder.decode(&mut block, &mut fields).unwrap();
    fields.into_iter().map(|(name, value, _)| (name, value)).collect()
}

/// The fields that the server has to read.
fn expected(request: &Request) -> Vec<Field> {
    let seen = |((name, value), _): &(Field, u8)| {
        let value = if name == b":authority" {
            &AUTHORITY[..value.len().min(9)]
        } else {
            value
        };
        (name.clone(), value.to_vec())
    };
    request.fields.iter().map(seen).collect()
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Puts a header block into frames: cut at the given places, padded, with a priority, or neither.
fn header_frames(stream: u32, block: &[u8], extra: u8, cuts: &[prop::sample::Index]) -> Vec<u8> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(block.len() + 1)).collect();
    cuts.extend([0, block.len()]);
    cuts.sort_unstable();
    let last = cuts.len() - 2;
    let fragments = cuts.windows(2).enumerate().map(|(number, cut)| {
        let end = if number == last { END_HEADERS } else { 0 };
        let fragment = &block[cut[0]..cut[1]];
        if number > 0 {
            return frame(9, end, stream, fragment);
        }
        let mut payload = Vec::new();
        let extra = extra & (PADDED | PRIORITY);
        if extra & PADDED != 0 {
            payload.push(3);
        }
        if extra & PRIORITY != 0 {
            payload.extend([0, 0, 0, 0, 16]);
        }
        payload.extend(fragment);
        if extra & PADDED != 0 {
            payload.extend([0; 3]);
        }
        frame(1, end | extra, stream, &payload)
    });
    fragments.flatten().collect()
}

fn rewrite(input: &[u8]) -> Vec<u8> {
    let mut rewriter = Rewriter::default();
    let mut output = Vec::new();
    rewriter.push(input, &mut output);
    rewriter.finish(&mut output);
    output
}

/// The header blocks in the bytes for the server, each of which must be in well-formed frames.
fn blocks(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut rest = bytes.strip_prefix(PREFACE).unwrap();
    let mut blocks = Vec::new();
    let mut block: Option<Vec<u8>> = None;
    while !rest.is_empty() {
        let (head, tail) = rest.split_at(9);
        let (payload, tail) = tail.split_at(u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize);
        rest = tail;
        assert!(payload.len() <= 16_384);
        match head[3] {
            1 => {
                assert!(block.is_none());
                // A block without an authority keeps them.
                let padding = usize::from(head[4] & PADDED != 0);
                let priority = if head[4] & PRIORITY == 0 { 0 } else { 5 };
                block = Some(payload[padding + priority..payload.len() - 3 * padding].to_vec());
            }
            9 => block.as_mut().unwrap().extend(payload),
            _ => assert!(block.is_none(), "a header block is interrupted"),
        }
        if matches!(head[3], 1 | 9) && head[4] & END_HEADERS != 0 {
            blocks.push(block.take().unwrap());
        }
    }
    assert!(block.is_none());
    blocks
}

proptest! {
    #[test]
    fn only_the_authority_changes_and_the_tables_stay_in_step(requests in requests()) {
        let (mut encoder, mut decoder) = (Encoder::default(), Decoder::default());
        for request in &requests {
            let block = encode(&mut encoder, request);
            let seen = decode(&mut decoder, replace_authority(&block).unwrap_or(block));
            prop_assert_eq!(seen, expected(request));
        }
    }

    #[test]
    fn frames_come_out_right_however_they_are_laid_out_and_cut(
        requests in requests(),
        extra: u8,
        cuts in vec(any::<prop::sample::Index>(), 0..4),
        data in vec(any::<u8>(), 0..100),
        piece in 1_usize..200,
    ) {
        let (mut encoder, mut decoder) = (Encoder::default(), Decoder::default());
        let mut sent = PREFACE.to_vec();
        for (number, request) in (0..).zip(&requests) {
            sent.extend(header_frames(2 * number + 1, &encode(&mut encoder, request), extra, &cuts));
            sent.extend(frame(0, 1, 2 * number + 1, &data));
        }
        let whole = rewrite(&sent);

        let mut rewriter = Rewriter::default();
        let mut pieces = Vec::new();
        sent.chunks(piece).for_each(|piece| rewriter.push(piece, &mut pieces));
        prop_assert_eq!(&pieces, &whole);

        let blocks = blocks(&whole);
        prop_assert_eq!(blocks.len(), requests.len());
        for (request, block) in requests.iter().zip(blocks) {
            prop_assert_eq!(decode(&mut decoder, block), expected(request));
        }
    }

    #[test]
    fn arbitrary_blocks_do_no_harm(block: Vec<u8>) {
        if let Some(replaced) = replace_authority(&block) {
            // Nine bytes take the place of six at least, those of the shortest Huffman code for nine.
            prop_assert!(replaced.len() <= block.len() + block.len() / 2);
            // The result is well-formed, and there is nothing left to replace in it.
            prop_assert_eq!(replace_authority(&replaced), Some(replaced.clone()));
        }
    }

    #[test]
    fn arbitrary_frames_do_no_harm_and_take_bounded_memory(
        frames in vec((0_u8..11, any::<u8>(), 0_u32..3, vec(any::<u8>(), 0..200), 0_usize..20_000), 0..60),
        garbage in vec(any::<u8>(), 0..100),
        piece in 1_usize..9_000,
    ) {
        let mut sent = PREFACE.to_vec();
        for (kind, flags, stream, payload, longer) in frames {
            let payload: Vec<u8> = payload.into_iter().chain(std::iter::repeat_n(0x82, longer)).collect();
            sent.extend(frame(kind, flags, stream, &payload));
        }
        sent.extend(garbage);
        let mut rewriter = Rewriter::default();
        for piece in sent.chunks(piece) {
            let mut output = Vec::new();
            rewriter.push(piece, &mut output);
            prop_assert!(rewriter.held() <= MOST_HELD);
            prop_assert!(output.len() <= (MOST_HELD + piece.len()) * 3 / 2);
        }
    }

    #[test]
    fn bytes_that_are_not_http2_pass_unchanged(sent: Vec<u8>, preface in 0_usize..24) {
        let mut sent = [&PREFACE[..preface], &sent].concat();
        prop_assert_eq!(rewrite(&sent), sent.clone());
        sent.insert(0, b'G');
        prop_assert_eq!(rewrite(&sent), sent);
    }
}

#[test]
fn each_spelling_of_the_name_is_found() {
    let huffman_name = [
        &[0x00, 0x88][..],
        &[0xb8, 0x3b, 0x53, 0x39, 0xec, 0x32, 0x7d, 0x7f],
    ]
    .concat();
    for name in [
        &[0x41][..],
        &[0x01],
        &[0x11],
        b"\x40\x0a:authority",
        b"\x10\x0a:authority",
        &huffman_name,
    ] {
        let block = [&[0x83][..], name, b"\x09/run/sock", &[0x86]].concat();
        let replaced = [&[0x83][..], name, b"\x09localhost", &[0x86]].concat();
        assert_eq!(replace_authority(&block), Some(replaced), "{name:x?}");
    }
}

#[test]
fn a_short_value_is_replaced_by_one_as_short() {
    assert_eq!(replace_authority(b"\x41\x02/s").unwrap(), b"\x41\x02lo");
    assert_eq!(
        replace_authority(b"\x41\x00"),
        None,
        "an empty one is malformed and stays so"
    );
    assert_eq!(replace_authority(b"\x81"), None, "as does the static table's own");
}

#[test]
fn padding_and_priority_are_removed() {
    let payload = b"\x02\x00\x00\x00\x00\x10\x41\x02/s\x00\x00";
    let sent = [
        PREFACE,
        &frame(1, END_HEADERS | PADDED | PRIORITY | 1, 5, payload),
    ]
    .concat();
    assert_eq!(
        rewrite(&sent),
        [PREFACE, &frame(1, END_HEADERS | 1, 5, b"\x41\x02lo")].concat()
    );
}

#[test]
fn a_block_that_grows_past_a_frame_is_continued() {
    let mut field = vec![0x01, 0x86];
    httlib_huffman::encode(b"aaaaaaaaa", &mut field).unwrap();
    let block = field.repeat(2_000);
    let sent = [PREFACE, &frame(1, END_HEADERS, 1, &block)].concat();
    let replaced = replace_authority(&block).unwrap();
    assert!(replaced.len() > 16_384);
    assert_eq!(blocks(&rewrite(&sent)), [replaced]);
}

#[test]
fn a_header_block_that_is_too_long_passes_unchanged() {
    let block = [&b"\x41\x02/s"[..], &vec![0x82; 80_000]].concat();
    let cuts = block.len().div_ceil(16_000);
    let mut sent = PREFACE.to_vec();
    for (number, fragment) in block.chunks(16_000).enumerate() {
        let end = if number + 1 == cuts { END_HEADERS } else { 0 };
        sent.extend(frame(if number == 0 { 1 } else { 9 }, end, 1, fragment));
    }
    assert_eq!(rewrite(&sent), sent);

    // The next one is rewritten again.
    let next = sent.len();
    sent.extend(frame(1, END_HEADERS, 3, b"\x41\x02/s"));
    assert!(rewrite(&sent)[next..].ends_with(b"\x41\x02lo"));
}

#[test]
fn an_interrupted_header_block_passes_unchanged() {
    let first = frame(1, 0, 1, b"\x41\x02/s");
    for next in [
        frame(0, 0, 1, b"data"),
        frame(9, END_HEADERS, 3, b""),
        frame(1, END_HEADERS, 3, b""),
    ] {
        let sent = [PREFACE, &first, &next].concat();
        assert_eq!(rewrite(&sent), sent);
    }
}

#[test]
fn malformed_padding_passes_unchanged() {
    for payload in [&b""[..], b"\x09\x41\x02/s", b"\xff\x41\x02/s"] {
        let sent = [PREFACE, &frame(1, END_HEADERS | PADDED, 1, payload)].concat();
        assert_eq!(rewrite(&sent), sent);
    }
}

#[tokio::test]
async fn a_stream_ends_with_what_was_held_back() {
    let sent = [PREFACE, &frame(1, 0, 1, b"\x41\x02/s")].concat();
    let mut read = Vec::new();
    AuthorityStream::new(&sent[..])
        .read_to_end(&mut read)
        .await
        .unwrap();
    assert_eq!(read, sent);
}
