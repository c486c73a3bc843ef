//! The commands of the page.

pub(super) const PAGE: &str = include_str!("../../../docs/runbook.md");

/// Returns every command, in the order of the page: each block of shell as one, and each span of code that is a command.
pub(super) fn commands() -> Vec<String> {
    let mut commands = Vec::new();
    for (number, part) in PAGE.split("```").enumerate() {
        if number % 2 == 1 {
            let block = part.strip_prefix("sh\n").expect("a block is shell");
            commands.push(block.trim_end().to_owned());
        } else {
            commands.extend(spans(part).filter(|span| is_command(span)));
        }
    }
    let mut seen = std::collections::BTreeSet::new();
    commands.retain(|command| seen.insert(command.clone()));
    commands
}

/// Returns the blocks of shell.
pub(super) fn blocks() -> Vec<&'static str> {
    let blocks = PAGE.split("```").skip(1).step_by(2);
    blocks
        .map(|block| block.strip_prefix("sh\n").unwrap().trim_end())
        .collect()
}

/// Returns the spans of code, with the pipes that a table escapes.
fn spans(text: &str) -> impl Iterator<Item = String> {
    let spans = text.split('`').skip(1).step_by(2);
    spans.map(|span| span.replace("\\|", "|"))
}

/// Whether a span is a command: it has several words, and is no setting.
fn is_command(span: &str) -> bool {
    let mut words = span.split_whitespace();
    let is_setting = words.clone().nth(1) == Some("=");
    span == "dmesg" || words.by_ref().count() > 1 && !is_setting
}
