//! What is told to people.

use std::fmt::Display;

use crate::commands::failure::Failure;

/// What came up while volumes were exported, one sentence each.
#[derive(Debug, Default)]
pub(super) struct Report {
    problems: Vec<String>,
    remarks: Vec<String>,
}

impl Report {
    /// Tells why nothing is exported.
    pub(super) fn refuse(&mut self, problem: impl Into<String>) {
        self.problems.push(printable(&problem.into()));
    }

    /// Tells what is not as it was, or not as it may be expected.
    pub(super) fn remark(&mut self, remark: impl Into<String>) {
        self.remarks.push(printable(&remark.into()));
    }

    /// Tells what there is to tell about something, if anything.
    pub(super) fn remark_on(&mut self, what: impl Display, remark: Option<String>) {
        if let Some(remark) = remark {
            self.remark(format!("{what}: {remark}"));
        }
    }

    /// Takes what there is, or tells why there is nothing.
    pub(super) fn take<T>(&mut self, result: Result<T, String>) -> Option<T> {
        result.map_err(|problem| self.refuse(problem)).ok()
    }

    /// Returns the remarks.
    ///
    /// # Errors
    /// All problems, if there is any.
    pub(super) fn finish(self) -> Result<Vec<String>, Failure> {
        if self.problems.is_empty() {
            Ok(self.remarks)
        } else {
            Err(Failure::Refused(self.problems))
        }
    }
}

/// Makes a text that may have parts of a file in it one line that does nothing to a terminal.
pub(super) fn printable(text: &str) -> String {
    let printable = |character: char| {
        if character.is_control() {
            character.escape_default().to_string()
        } else {
            character.to_string()
        }
    };
    text.chars().map(printable).collect()
}
