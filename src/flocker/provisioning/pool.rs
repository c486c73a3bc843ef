//! Storage pools, which the configuration declares because Flocker does not report them.

use std::str::FromStr;

use crate::volume::{did_you_mean, parse_size};

const KEYS: [&str; 3] = ["profile", "capacity", "per_node"];

/// The storage behind a Flocker profile, which Flocker does not report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// The profile whose volumes it holds; `None` for volumes without a profile.
    pub profile: Option<String>,
    /// Its size in bytes.
    pub capacity: u64,
    /// Whether every node has this capacity, instead of the cluster as a whole.
    pub per_node: bool,
}

impl FromStr for Pool {
    type Err = String;

    /// Parses `capacity=SIZE[,profile=NAME][,per_node=true|false]`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut pool = Self {
            profile: None,
            capacity: 0,
            per_node: false,
        };
        let mut given = Vec::new();
        for part in text.split(',').filter(|part| !part.trim().is_empty()) {
            let (key, value) = part
                .split_once('=')
                .map(|(key, value)| (key.trim(), value.trim()))
                .ok_or_else(|| format!("expected key=value, with the keys {}", KEYS.join(", ")))?;
            if given.contains(&key) {
                return Err(format!("{key} is given twice"));
            }
            match key {
                "profile" if value.is_empty() => {
                    return Err(
                        "profile: expected a name, or omit this key for volumes without a profile".to_owned(),
                    );
                }
                "profile" => pool.profile = Some(value.to_owned()),
                "capacity" => {
                    pool.capacity = parse_size(value).map_err(|error| format!("capacity: {error}"))?;
                }
                "per_node" => {
                    pool.per_node = value
                        .parse()
                        .map_err(|_| "per_node: expected true or false".to_owned())?;
                }
                _ => {
                    return Err(format!(
                        "unknown key \"{key}\"{}; expected {}",
                        did_you_mean(key, KEYS),
                        KEYS.join(", ")
                    ));
                }
            }
            given.push(key);
        }
        if given.contains(&"capacity") {
            Ok(pool)
        } else {
            Err("capacity is missing".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_requires_only_its_capacity() {
        let pool = Pool {
            profile: None,
            capacity: 10 << 40,
            per_node: false,
        };
        assert_eq!("capacity=10TiB".parse(), Ok(pool));
        let pool = Pool {
            profile: Some("gold".to_owned()),
            capacity: 1 << 40,
            per_node: true,
        };
        assert_eq!("profile=gold, capacity=1TiB, per_node=true".parse(), Ok(pool));
    }

    #[test]
    fn an_invalid_pool_is_refused_with_the_wrong_key() {
        for (text, part) in [
            ("", "capacity is missing"),
            ("profile=gold", "capacity is missing"),
            ("10TiB", "key=value"),
            ("capacity=10TB", "capacity: expected a binary unit"),
            ("capacity=1TiB,per_node=yes", "per_node: expected true or false"),
            (
                "capasity=1TiB",
                "unknown key \"capasity\" (did you mean \"capacity\"?)",
            ),
            ("capacity=1TiB,capacity=2TiB", "capacity is given twice"),
            ("capacity=1TiB,profile=", "profile: expected a name"),
        ] {
            let error = text.parse::<Pool>().unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
