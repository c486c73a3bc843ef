//! JSON as Python 2 reads it, which is more than JSON: texts may hold halves of surrogate pairs, integers have no limit, and
//! `NaN` and `Infinity` are numbers. What a value of Rust cannot hold has a stand-in here:
//!
//! - a half of a pair is a character of a private range, so that texts can be stored and compared like any other;
//! - a number is a text that begins with a mark.
//!
//! A client's own characters of that range, and the mark, become the two halves of their pair, so no text of a client is a
//! stand-in. An answer has them as they were.

use std::ops::RangeInclusive;

use serde_json::Value;

use super::reply::Refusal;

/// The halves of surrogate pairs.
const HALVES: RangeInclusive<u16> = 0xd800..=0xdfff;
/// Their stand-ins begin here.
const STAND_INS: u32 = 0x10_f000;
/// Begins the text of a number.
const MARK: char = '\u{10ffff}';

/// Decodes the body of a request.
pub(super) fn decode(body: &[u8]) -> Result<Value, Refusal> {
    let text = str::from_utf8(body).map_err(|_| Refusal::Undecodable)?;
    serde_json::from_str(&with_stand_ins(text)).map_err(|_| Refusal::Undecodable)
}

/// Returns the half of a surrogate pair that a character stands for.
pub(super) fn half(character: char) -> Option<u16> {
    let offset = u32::from(character).checked_sub(STAND_INS)?;
    let half = u16::try_from(offset).ok()?.checked_add(*HALVES.start())?;
    HALVES.contains(&half).then_some(half)
}

/// Returns the text of a value, if it is a text.
pub(super) fn text(value: &Value) -> Option<&str> {
    value.as_str().filter(|text| !text.starts_with(MARK))
}

/// Returns the digits of a number that only Python knows, or the name that Python gives it: `nan`, `inf` or `-inf`.
pub(super) fn foreign_number(value: &Value) -> Option<&str> {
    value.as_str()?.strip_prefix(MARK)
}

/// Returns whether a value is a number.
pub(super) fn is_number(value: &Value) -> bool {
    value.is_number() || foreign_number(value).is_some()
}

/// Returns a number as floating-point number.
pub(super) fn as_f64(value: &Value) -> Option<f64> {
    value
        .as_f64()
        .or_else(|| foreign_number(value).and_then(|number| number.parse().ok()))
}

/// Returns the remainder of the division of a decimal integer of any length, without its sign.
pub(super) fn remainder(digits: &str, divisor: u64) -> u64 {
    let digits = digits.chars().filter_map(|digit| digit.to_digit(10));
    digits.fold(0, |remainder, digit| {
        (remainder * 10 + u64::from(digit)) % divisor
    })
}

fn stand_in(half: u16) -> char {
    char::from_u32(STAND_INS + u32::from(half - HALVES.start())).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// Replaces what Rust cannot hold.
fn with_stand_ins(text: &str) -> String {
    let mut whole = String::with_capacity(text.len());
    let mut rest = text;
    let mut in_string = false;
    while let Some(character) = rest.chars().next() {
        let length = if in_string {
            copy_character(&mut whole, rest, &mut in_string)
        } else if character == '"' {
            in_string = true;
            whole.push('"');
            1
        } else if character.is_ascii_alphanumeric() || "+-.".contains(character) {
            copy_word(&mut whole, rest)
        } else {
            whole.push(character);
            character.len_utf8()
        };
        rest = rest.get(length..).unwrap_or_default();
    }
    whole
}

/// Copies the first character of `rest`, which is within a string, and returns its length.
fn copy_character(whole: &mut String, rest: &str, in_string: &mut bool) -> usize {
    let Some(character) = rest.chars().next() else {
        return 0;
    };
    if character == '"' {
        *in_string = false;
    }
    let (character, length) = match (escaped_unit(rest), character) {
        (Some(first), _) => {
            let second = rest.get(6..).and_then(escaped_unit);
            let pair = second.and_then(|second| char::decode_utf16([first, second]).next()?.ok());
            match pair {
                Some(pair) if pair.len_utf16() == 2 => (pair, 12),
                _ if HALVES.contains(&first) => {
                    whole.push(stand_in(first));
                    return 6;
                }
                _ => {
                    whole.push_str(&rest[..6]);
                    return 6;
                }
            }
        }
        (None, '\\') => {
            let length = 1 + rest[1..].chars().next().map_or(0, char::len_utf8);
            whole.push_str(&rest[..length]);
            return length;
        }
        (None, character) => (character, character.len_utf8()),
    };
    if half(character).is_some() || character == MARK {
        let mut units = [0; 2];
        whole.extend(character.encode_utf16(&mut units).iter().copied().map(stand_in));
    } else {
        whole.push(character);
    }
    length
}

/// Returns the unit of the escape `\uXXXX` at the beginning of a text.
fn escaped_unit(text: &str) -> Option<u16> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    let is_hexadecimal = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    is_hexadecimal.then(|| u16::from_str_radix(digits, 16).ok())?
}

/// Copies the number or name at the beginning of `rest`, and returns its length.
fn copy_word(whole: &mut String, rest: &str) -> usize {
    let is_of_word = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
    let length = rest.bytes().take_while(|byte| is_of_word(byte)).count();
    let word = &rest[..length];
    let foreign = match word {
        "NaN" => Some("nan"),
        "Infinity" => Some("inf"),
        "-Infinity" => Some("-inf"),
        "-0" => {
            whole.push('0');
            return length;
        }
        _ => match serde_json::from_str::<Value>(word) {
            Ok(Value::Number(number)) if number.is_f64() && is_integer(word) => Some(word),
            // Out of the range of floating-point numbers, which the parser here refuses.
            Err(_) if is_huge(word) => Some(if word.starts_with('-') { "-inf" } else { "inf" }),
            Ok(_) | Err(_) => None,
        },
    };
    match foreign {
        Some(number) => {
            whole.extend(['"', MARK]);
            whole.push_str(number);
            whole.push('"');
        }
        None => whole.push_str(word),
    }
    length
}

fn is_integer(word: &str) -> bool {
    word.strip_prefix('-')
        .unwrap_or(word)
        .bytes()
        .all(|digit| digit.is_ascii_digit())
}

/// Whether a word is a number of JSON that no floating-point number is near.
fn is_huge(word: &str) -> bool {
    let digits = word.strip_prefix('-').unwrap_or(word);
    let has_leading_zero = digits.len() > 1 && digits.starts_with('0') && !digits.starts_with("0.");
    let (mantissa, exponent) = digits.split_once(['e', 'E']).unwrap_or((digits, "0"));
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, "0"));
    let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
    let is_number = !has_leading_zero && [whole, fraction, exponent].into_iter().all(is_digits);
    is_number && word.parse::<f64>().is_ok_and(f64::is_infinite)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_of_pairs_stay_apart_and_pairs_together() {
        let decoded = |text: &str| decode(format!("\"{text}\"").as_bytes()).unwrap();
        let halves = |value: Value| value.as_str().unwrap().chars().map(half).collect::<Vec<_>>();
        assert_eq!(halves(decoded(r"\ud800")), [Some(0xd800)]);
        assert_eq!(
            halves(decoded(r"\udfff\ud834x")),
            [Some(0xdfff), Some(0xd834), None]
        );
        assert_eq!(decoded(r"\ud834\udd1e"), "\u{1d11e}");
        assert_eq!(decoded(r"a\\ud800\n"), "a\\ud800\n");
        // The character U+10F000 of a client is not the stand-in for U+D800.
        let private = [Some(0xdbfc), Some(0xdc00)];
        assert_eq!(halves(decoded(r"\udbfc\udc00")), private);
        assert_eq!(halves(decoded("\u{10f000}")), private);
        assert_eq!(text(&decoded("\u{10ffff}7")).unwrap().chars().count(), 3);
    }

    #[test]
    fn numbers_that_only_python_knows_are_no_texts() {
        for (number, expected) in [
            ("NaN", "nan"),
            ("-Infinity", "-inf"),
            ("18446744073709551616", "18446744073709551616"),
            ("-9223372036854775809", "-9223372036854775809"),
            ("1e400", "inf"),
            ("-1.5E+999", "-inf"),
        ] {
            let value = decode(format!(" [{number} ]").as_bytes()).unwrap()[0].clone();
            assert_eq!(foreign_number(&value), Some(expected), "{number}");
            assert!(is_number(&value) && text(&value).is_none() && as_f64(&value).is_some());
        }
        for text in ["1", "-0", "1.5", "18446744073709551615", "1e308"] {
            let value = decode(text.as_bytes()).unwrap();
            assert!(value.is_number() && foreign_number(&value).is_none(), "{text}");
        }
        for text in [
            "nan",
            "+1",
            "01",
            "01e999",
            "1e",
            "-",
            "1e999x",
            "--1e999",
            ".e999",
            "Infinity2",
            "[1e999",
        ] {
            assert_eq!(decode(text.as_bytes()), Err(Refusal::Undecodable), "{text}");
        }
    }
}
