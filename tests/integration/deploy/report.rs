//! The problems of a file, by field.

use std::fmt::Display;

use serde::de::DeserializeOwned;

/// The problems of one file.
pub(super) struct Report {
    file: String,
    problems: Vec<String>,
}

impl Report {
    pub(super) fn of(file: &str) -> Self {
        Self {
            file: file.to_owned(),
            problems: Vec::new(),
        }
    }

    /// Adds a problem of a field.
    pub(super) fn refuse(&mut self, field: impl Display, problem: impl Display) {
        self.problems.push(format!("{}: {field}: {problem}", self.file));
    }

    /// Adds a problem of a field unless a condition holds.
    pub(super) fn require(&mut self, well: bool, field: impl Display, problem: impl Display) {
        if !well {
            self.refuse(field, problem);
        }
    }

    /// Parses JSON of this form; a mismatch is a problem of the field.
    pub(super) fn read<T: DeserializeOwned>(&mut self, json: &str) -> Option<T> {
        let mut deserializer = serde_json::Deserializer::from_str(json);
        let read = serde_path_to_error::deserialize(&mut deserializer);
        match read {
            Ok(value) => match deserializer.end() {
                Ok(()) => Some(value),
                Err(error) => {
                    self.refuse("end of the file", error);
                    None
                }
            },
            Err(error) => {
                self.refuse(error.path().to_string(), error.inner());
                None
            }
        }
    }

    pub(super) fn problems(self) -> Vec<String> {
        self.problems
    }
}

/// Whether Mesos accepts a text as the name of a plugin or provider.
pub(super) fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text
            .chars()
            .all(|character| character.is_ascii_alphanumeric() || character == '_')
}

/// Whether a text is names joined by dots, as Mesos requires for the type of a plugin.
pub(super) fn is_dotted(text: &str) -> bool {
    text.split('.').all(is_token)
}

/// Whether a text is an absolute path without `.` and `..`.
pub(super) fn is_absolute(path: &str) -> bool {
    path.len() > 1
        && path.starts_with('/')
        && path[1..].split('/').all(|part| !matches!(part, "" | "." | ".."))
}

/// Whether a text is a path below the directory to which it is relative.
pub(super) fn is_relative(path: &str) -> bool {
    path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

/// Parses a duration in Mesos' format, such as `10mins`, in seconds.
pub(super) fn seconds(text: &str) -> Option<f64> {
    let digits = text
        .find(|character: char| !character.is_ascii_digit() && character != '.')
        .unwrap_or(text.len());
    let unit = match &text[digits..] {
        "ns" => 1e-9,
        "us" => 1e-6,
        "ms" => 1e-3,
        "secs" => 1.0,
        "mins" => 60.0,
        "hrs" => 3600.0,
        "days" => 86_400.0,
        "weeks" => 604_800.0,
        _ => return None,
    };
    text[..digits].parse::<f64>().ok().map(|number| number * unit)
}
