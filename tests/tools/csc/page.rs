//! The command lines on the pages of the documentation.

use crate::syntax::{Build, Invocation};

const PAGE: &str = include_str!("../../../docs/csc.md");
const README: &str = include_str!("../../../README.md");

/// A line of a code block that calls csc, with the builds that the block is for.
struct Shown<'a> {
    line: usize,
    words: Vec<&'a str>,
    builds: &'static [Build],
}

/// Returns the commands, marked by `prompt`, in the code blocks of a text.
fn shown<'a>(text: &'a str, language: &str, prompt: &str) -> Vec<Shown<'a>> {
    let mut block = None;
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if let Some(info) = line.strip_prefix("```") {
            block = block.is_none().then_some(info);
            continue;
        }
        let builds: &[Build] = match block.map(|info| info.split_once(' ').unwrap_or((info, ""))) {
            Some((it, "")) if it == language => &[Build::Rexray, Build::Dell],
            Some((it, "rexray")) if it == language => &[Build::Rexray],
            Some((it, "dell")) if it == language => &[Build::Dell],
            _ => continue,
        };
        let Some(command) = line.strip_prefix(prompt) else {
            continue;
        };
        found.extend(calls(command).map(|words| Shown {
            line: number + 1,
            words,
            builds,
        }));
    }
    found
}

/// Returns the words after `csc` of each call of it in a line for the shell.
fn calls(command: &str) -> impl Iterator<Item = Vec<&str>> {
    let parts = command.split(['|', ';', '(', ')', '#']);
    let words = parts.map(|part| part.split_whitespace().collect::<Vec<_>>());
    words
        .filter(|words| words.first() == Some(&"csc"))
        .map(|words| words[1..].to_vec())
}

/// Returns the command lines of a text that csc would refuse.
fn refused(text: &str, language: &str, prompt: &str) -> Vec<String> {
    let mut refused = Vec::new();
    for shown in shown(text, language, prompt) {
        for build in shown.builds {
            if let Err(error) = Invocation::parse(*build, &shown.words) {
                refused.push(format!("line {} as {build:?}'s: {error}", shown.line));
            }
        }
    }
    refused
}

#[test]
fn every_command_that_the_documentation_shows_is_one_that_csc_takes() {
    assert_eq!(refused(PAGE, "console", "$ "), [""; 0]);
    assert_eq!(refused(README, "sh", ""), [""; 0]);
    let (page, readme) = (shown(PAGE, "console", "$ "), shown(README, "sh", ""));
    assert!(
        page.len() >= 25 && readme.len() >= 2,
        "{} and {}",
        page.len(),
        readme.len()
    );
    for build in [Build::Rexray, Build::Dell] {
        assert!(page.iter().any(|shown| shown.builds == [build]), "{build:?}");
    }
}

#[test]
fn the_page_shows_the_whole_life_of_a_volume() {
    let page = shown(PAGE, "console", "$ ");
    for command in [
        "identity plugin-info",
        "identity plugin-capabilities",
        "identity probe",
        "controller get-capabilities",
        "controller get-capacity",
        "controller create-volume",
        "controller list-volumes",
        "controller validate-volume-capabilities",
        "controller publish",
        "controller unpublish",
        "controller delete-volume",
        "node get-capabilities",
        "node get-info",
        "node stage",
        "node publish",
        "node stats",
        "node unpublish",
        "node unstage",
    ] {
        let words: Vec<_> = command.split(' ').collect();
        assert!(
            page.iter().any(|shown| shown.words.starts_with(&words)),
            "{command}"
        );
    }
}

#[test]
fn a_typo_on_a_page_is_reported_with_its_line() {
    for (typo, part) in [
        ("$ csc controler list-volumes", "controler"),
        (
            "$ ID=$(csc controller create-volum db-1 | cut -f 1)",
            "create-volum",
        ),
        ("$ csc node stage $ID --staging-path /mnt", "--staging-path"),
        (
            "$ csc node stage $ID --staging-target-path /mnt --cap SINGLE_NODE_WRITER,mount; echo $?",
            "invalid volume capability",
        ),
    ] {
        let page = format!("text\n\n```console\n$ csc identity probe\ntrue\n{typo}\n```\n");
        let refused = refused(&page, "console", "$ ");
        assert_eq!(refused.len(), 2, "{typo}: for each build: {refused:?}");
        assert!(
            refused[0].starts_with("line 6") && refused[0].contains(part),
            "{refused:?}"
        );
    }
    let only_dell = "```console dell\n$ csc c new a --cap SINGLE_NODE_MULTI_WRITER,mount,\n```\n";
    assert_eq!(refused(only_dell, "console", "$ "), [""; 0]);
    let for_both = only_dell.replace(" dell", "");
    assert_eq!(
        refused(&for_both, "console", "$ ").len(),
        1,
        "rexray's build has no such mode"
    );
}
