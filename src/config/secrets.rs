//! What messages show of values that may hold secrets.

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

/// Returns an address without user, password and query: cuts everything before the last `@`, but a scheme: a password may have any character.
pub(super) fn without_credentials(text: &str) -> String {
    match text.rsplit_once('@') {
        Some((before, host)) => {
            let scheme = before.split_once("://").map(|(scheme, _)| scheme);
            let scheme = scheme.filter(|scheme| {
                scheme
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
            });
            format!(
                "{}…@{host}",
                scheme.map(|scheme| format!("{scheme}://")).unwrap_or_default()
            )
        }
        None => match text.split_once("://") {
            Some((_, rest)) if rest.contains(['?', '#']) => {
                format!("{}…", text.split(['?', '#']).next().unwrap_or_default())
            }
            _ => text.to_owned(),
        },
    }
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
            ("https://user:P@SS://@host", "https://…@host"),
            ("user:PASS@host", "…@host"),
            ("PASS@x://y@host", "…@host"),
            ("https://host/x?PASS", "https://host/x…"),
            ("capacity=1TiB,password=PASS", "capacity=…,password=…"),
            ("a,https://u:PASS@h,b=PASS", "a,https://…@h,b=…"),
        ] {
            assert_eq!(shown(value), expected);
        }
    }
}
