//! The problems and remarks of an export.

use std::fmt::Display;

use crate::commands::failure::Failure;
use crate::commands::stdout::printable;

/// The problems and remarks found during an export, one sentence each.
#[derive(Debug, Default)]
pub(super) struct Report {
    problems: Vec<String>,
    remarks: Vec<String>,
}

impl Report {
    /// Adds a problem: nothing is exported.
    pub(super) fn refuse(&mut self, problem: impl Into<String>) {
        self.problems.push(printable(&problem.into()));
    }

    /// Adds a remark on something that differs from before or from what the operator may expect.
    pub(super) fn remark(&mut self, remark: impl Into<String>) {
        self.remarks.push(printable(&remark.into()));
    }

    /// Adds a remark on one thing, if one is given.
    pub(super) fn remark_on(&mut self, what: impl Display, remark: Option<String>) {
        if let Some(remark) = remark {
            self.remark(format!("{what}: {remark}"));
        }
    }

    /// Returns a value, or adds the problem.
    pub(super) fn take<T>(&mut self, result: Result<T, String>) -> Option<T> {
        result.map_err(|problem| self.refuse(problem)).ok()
    }

    /// Returns the remarks.
    ///
    /// # Errors
    /// All problems, if any exist.
    pub(super) fn finish(self) -> Result<Vec<String>, Failure> {
        if self.problems.is_empty() {
            Ok(self.remarks)
        } else {
            Err(Failure::Refused(self.problems))
        }
    }
}
