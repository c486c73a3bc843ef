//! Foreign text, limited to what a message may contain.

/// Returns the text as one line of at most `limit` characters, without control characters.
pub(crate) fn one_line(text: &str, limit: usize) -> String {
    let words = text
        .split(|c: char| c.is_whitespace() || c.is_control())
        .filter(|word| !word.is_empty());
    let mut line = String::new();
    let mut length = 0;
    for (index, word) in words.enumerate() {
        let separator = usize::from(index > 0);
        for c in " ".chars().take(separator).chain(word.chars()) {
            if length == limit {
                line.push('…');
                return line;
            }
            line.push(c);
            length += 1;
        }
    }
    line
}

/// Returns the text around a position in a body: about 60 bytes before it and 20 after it.
///
/// `line` counts from 1 and `column` is a number of bytes, as `serde_json` gives them.
pub(crate) fn excerpt(body: &[u8], line: usize, column: usize) -> String {
    let start_of_line: usize = body
        .split_inclusive(|byte| *byte == b'\n')
        .take(line.saturating_sub(1))
        .map(<[u8]>::len)
        .sum();
    let position = start_of_line.saturating_add(column).min(body.len());
    let around = body
        .get(position.saturating_sub(60)..body.len().min(position + 20))
        .unwrap_or_default();
    one_line(&String::from_utf8_lossy(around), 80)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_becomes_one_short_line() {
        assert_eq!(one_line("two\n  lines\x1b[31m", 80), "two lines [31m");
        assert_eq!(one_line("abcdef", 3), "abc…");
        assert_eq!(one_line("äöü", 3), "äöü");
        assert_eq!(one_line(" \n", 3), "");
    }

    #[test]
    fn an_excerpt_shows_the_position_of_the_mistake_and_stays_short() {
        let body = format!("[{}\n{{\"primary\": 7}}]", "1, ".repeat(10_000));
        let shown = excerpt(body.as_bytes(), 2, 12);
        assert!(shown.contains("\"primary\": 7"), "{shown}");
        assert!(shown.chars().count() <= 81, "{shown}");
        assert_eq!(excerpt(b"", 0, 0), "");
        assert_eq!(excerpt(b"abc", 9, 99), "abc");
    }
}
