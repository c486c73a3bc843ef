//! What messages show of values that may hold secrets.

use flocker_client::without_credentials;

/// Returns the part of a wrong value that a message may show.
///
/// User, password and query of a URL are left out, and so is each value of a list of `key=value`: only for known keys is it known that
/// the value is no secret.
pub(super) fn shown(value: &str) -> String {
    let pairs = value.split(',').map(|pair| match pair.split_once('=') {
        Some((key, _)) => format!("{}=…", without_credentials(key)),
        None => without_credentials(pair),
    });
    pairs.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_and_the_values_of_pairs_are_left_out() {
        for (value, expected) in [
            ("contrller", "contrller"),
            ("https://10.0.0.1:4523/x", "https://10.0.0.1:4523/x"),
            ("https://user:PASS@host:1", "https://…@host:1"),
            ("https://u:PASS@host/x?token=PASS", "https://…=…"),
            ("https://u:PASS@host/x#PASS", "https://…"),
            ("capacity=1TiB,password=PASS", "capacity=…,password=…"),
            ("a,https://u:PASS@h,b=PASS", "a,https://…@h,b=…"),
        ] {
            assert_eq!(shown(value), expected);
        }
    }
}
