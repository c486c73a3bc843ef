//! The names that orchestrators give to volumes.

use std::fmt;

use crate::error::{Error, Result, Situation};

/// The longest string that CSI allows, in bytes.
const LONGEST: usize = 128;

/// A volume's name as `CreateVolume` may carry it: 1 to 128 bytes without control characters.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VolumeName(String);

impl VolumeName {
    /// Checks a name.
    ///
    /// # Errors
    /// [`Situation::InvalidArgument`] naming the field and the fault in it.
    pub fn parse(name: &str) -> Result<Self> {
        let refuse = |text: String| Err(Error::new(Situation::InvalidArgument, text));
        if name.is_empty() {
            return refuse("name is empty: a volume needs a name of 1 to 128 bytes".to_owned());
        }
        if name.len() > LONGEST {
            return refuse(format!(
                "name has {} bytes, at most {LONGEST} are allowed",
                name.len()
            ));
        }
        if let Some(bad) = name.chars().find(|character| is_forbidden(*character)) {
            return refuse(format!(
                "name {name:?} contains the control character U+{:04X}",
                u32::from(bad)
            ));
        }
        Ok(Self(name.to_owned()))
    }

    /// Returns the name.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for VolumeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The characters CSI forbids in names: control characters but tab, line feed and carriage return.
fn is_forbidden(character: char) -> bool {
    character.is_control() && !matches!(character, '\t' | '\n' | '\r')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_that_csi_allows_is_accepted() {
        for name in ["a", "pvc-1", "tab\tand line\n", "日本", &"x".repeat(128)] {
            assert_eq!(VolumeName::parse(name).unwrap().as_str(), name);
        }
    }

    #[test]
    fn a_bad_name_is_refused_with_the_fault_in_it() {
        for (name, part) in [
            ("", "empty"),
            (&*"x".repeat(129), "129 bytes"),
            ("a\0b", "U+0000"),
            ("a\u{9f}", "U+009F"),
        ] {
            let text = VolumeName::parse(name).unwrap_err().chain();
            assert!(text.contains(part), "{text}");
        }
    }
}
