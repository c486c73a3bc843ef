//! The links, examples and installation commands on the pages.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::report::Report;
use super::tree::repository;

/// The installation of the repository's files: the source of each, by destination.
pub(super) type Installed = BTreeMap<String, BTreeSet<String>>;

/// The directory in which the program is built.
const PROGRAM: &str = "target/release/flocker-csi";

/// Checks a page, and returns the files that it installs.
pub(super) fn check(report: &mut Report, page: &str, text: &str) -> Installed {
    let directory = Path::new(page).parent().unwrap();
    for link in links(text) {
        let file = link.split('#').next().unwrap_or_default();
        let exists = file.is_empty() || repository().join(directory).join(file).exists();
        report.require(exists, format!("link to {link}"), "there is no such file");
    }
    for (number, block) in blocks(text, "json").into_iter().enumerate() {
        if let Err(error) = serde_json::from_str::<serde_json::Value>(&block) {
            report.refuse(format!("JSON number {}", number + 1), error);
        }
    }
    let mut installed = Installed::new();
    let lines = text.lines().map(str::trim_start);
    for line in lines.filter(|line| line.starts_with("install ")) {
        let words: Vec<_> = line.split_whitespace().collect();
        let ["install", "-D", "-m", mode, from, to] = words.as_slice() else {
            report.refuse(line, "expected install -D -m MODE FROM TO");
            continue;
        };
        let expected = match *from {
            PROGRAM => "0755",
            from if from.starts_with("deploy/mesos/plugin/") => "0600",
            _ => "0644",
        };
        report.require(*mode == expected, line, format!("expected mode {expected}"));
        report.require(
            *from == PROGRAM || repository().join(from).is_file(),
            line,
            format!("there is no file {from}"),
        );
        installed
            .entry((*to).to_owned())
            .or_default()
            .insert((*from).to_owned());
    }
    installed
}

fn links(text: &str) -> impl Iterator<Item = &str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    targets.filter(|target| !target.contains("://"))
}

/// Returns the fenced blocks of a page in one language.
pub(crate) fn blocks(text: &str, language: &str) -> Vec<String> {
    let open = format!("```{language}");
    let mut blocks = Vec::new();
    let mut lines = text.lines();
    while lines.by_ref().any(|line| line == open) {
        let block: Vec<_> = lines.by_ref().take_while(|line| *line != "```").collect();
        blocks.push(block.join("\n"));
    }
    blocks
}
