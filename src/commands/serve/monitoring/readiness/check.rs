//! One condition of readiness.

use std::fmt;

use crate::commands::serve::services::Part;

/// The result of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Check {
    /// Its name, in `/readyz`, in the log and in the metric.
    pub(crate) name: &'static str,
    /// Whether what is checked is as it should be.
    pub(crate) holds: bool,
    /// What was found, in one line.
    pub(crate) found: String,
    /// The services that cannot be used if it does not hold.
    pub(super) needed_by: &'static [Part],
}

/// A check that both services need.
pub(super) const BOTH: &[Part] = &[Part::Controller, Part::Node];

impl Check {
    pub(super) fn new(name: &'static str, needed_by: &'static [Part], found: Result<String, String>) -> Self {
        let holds = found.is_ok();
        let (Ok(found) | Err(found)) = found;
        // A reason may be a text of another program.
        let found = found.split_whitespace().collect::<Vec<_>>().join(" ");
        Self {
            name,
            holds,
            found,
            needed_by,
        }
    }

    /// Whether `part` cannot be used because of this.
    pub(super) fn fails(&self, part: Part) -> bool {
        !self.holds && self.needed_by.contains(&part)
    }
}

/// A line of `/readyz`.
impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, found, .. } = self;
        let result = match (self.holds, self.needed_by) {
            (true, _) => "ok",
            (false, []) => "warning",
            (false, _) => "failed",
        };
        write!(f, "{result:<8}{name}: {found}")
    }
}
