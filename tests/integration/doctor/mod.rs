//! `doctor`: each broken set-up is found by one command, and what that recommends helps.

mod check_config;
mod flocker;
mod machine;
mod stand_ins;
mod volume;

use std::time::Duration;

use serde_json::Value;

use crate::admin::{Ended, end};
use crate::support::process::{program, program_under};

/// What a run of `doctor` has printed as JSON.
#[derive(Debug)]
pub(crate) struct Diagnosis {
    pub(crate) code: i32,
    pub(crate) document: Value,
    text: String,
}

impl Diagnosis {
    /// Runs `doctor` with settings, twice: for its document and for its text, which it prints for the reader of the tests.
    pub(crate) async fn of(flags: &[String], more: &[&str]) -> Self {
        Self::under(&[], flags, more).await
    }

    /// As [`Self::of`], run by another command.
    pub(crate) async fn under(command: &[&str], flags: &[String], more: &[&str]) -> Self {
        let text = run(command, flags, more).await;
        let json = run(command, flags, &[more, &["--output=json"]].concat()).await;
        assert_eq!(text.code, json.code, "{text:?}\n{json:?}");
        println!(
            "$ flocker-csi doctor {}   (exit {})\n{}",
            more.join(" "),
            text.code.unwrap_or(-1),
            text.text
        );
        Self {
            code: json.code.unwrap(),
            document: json.document("doctor"),
            text: text.text,
        }
    }

    /// Returns a check.
    #[track_caller]
    pub(crate) fn check(&self, name: &str) -> &Value {
        let checks = self.document["checks"].as_array().unwrap();
        let found = checks.iter().find(|check| check["name"] == name);
        found.unwrap_or_else(|| panic!("{name} in {self:#?}"))
    }

    #[track_caller]
    pub(crate) fn assert_code(&self, code: i32) -> &Self {
        assert_eq!(self.code, code, "{}", self.text);
        self
    }

    /// Asserts the result of a check, and words of what was seen, in the document and in the text.
    #[track_caller]
    pub(crate) fn assert_check(&self, name: &str, result: &str, words: &[&str]) -> &Self {
        let check = self.check(name);
        assert_eq!(check["result"], result, "{name}: {}", self.text);
        let seen = check["seen"].as_str().unwrap();
        for word in words {
            assert!(seen.contains(word), "{word:?} in {seen:?}");
            assert!(self.text.contains(word), "{word:?} in {:?}", self.text);
        }
        self
    }

    /// Returns the command that a check recommends.
    #[track_caller]
    pub(crate) fn command(&self, name: &str) -> String {
        let command = self.check(name)["command"].as_str();
        let command = command.unwrap_or_else(|| panic!("{name} recommends a command: {}", self.text));
        assert!(self.text.contains(command), "{command} in {}", self.text);
        command.to_owned()
    }

    /// Returns the names of the checks with this result.
    pub(crate) fn names(&self, result: &str) -> Vec<&str> {
        let checks = self.document["checks"].as_array().unwrap();
        let of = checks.iter().filter(|check| check["result"] == result);
        of.map(|check| check["name"].as_str().unwrap()).collect()
    }

    /// Asserts that all is well.
    #[track_caller]
    pub(crate) fn assert_content(&self) {
        assert_eq!(self.names("error"), [""; 0], "{}", self.text);
        assert_eq!(self.names("warning"), [""; 0], "{}", self.text);
        self.assert_code(0);
    }
}

async fn run(command: &[&str], flags: &[String], more: &[&str]) -> Ended {
    let flags = replaced(flags, more);
    let arguments: Vec<_> = ["doctor"]
        .into_iter()
        .chain(more.iter().copied())
        .chain(flags.iter().map(String::as_str))
        .collect();
    let program = if command.is_empty() {
        program(&arguments)
    } else {
        program_under(command, &arguments)
    };
    end(program).await
}

/// Returns flags without those that `more` has too.
fn replaced(flags: &[String], more: &[&str]) -> Vec<String> {
    let name = |flag: &str| flag.split('=').next().unwrap_or_default().to_owned();
    let is_kept = |flag: &&String| !more.iter().any(|given| name(given) == name(flag));
    flags.iter().filter(is_kept).cloned().collect()
}

/// How long a node without an agent stays listed.
const EXPIRY: Duration = Duration::from_millis(500);
