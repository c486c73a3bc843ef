//! What messages show of addresses that may hold secrets.

/// Returns an address without user, password, query and fragment.
///
/// A password may have any character, so everything before the last `@` is left out but a scheme. Where a query or fragment may
/// have an `@` of its own, only the scheme is shown.
pub fn without_credentials(text: &str) -> String {
    let is_scheme = |scheme: &str| {
        let mut characters = scheme.chars();
        characters.all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
    };
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) if is_scheme(scheme) => (&text[..scheme.len() + "://".len()], rest),
        _ => ("", text),
    };
    let host = rest.rsplit_once('@').map(|(_user, host)| host);
    let end = rest.find(['?', '#']);
    match (host, end) {
        (None, None) => text.to_owned(),
        (Some(host), None) => format!("{scheme}…@{host}"),
        (None, Some(end)) => format!("{scheme}{}…", &rest[..end]),
        (Some(_), Some(_)) => format!("{scheme}…"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_password_query_and_fragment_are_left_out() {
        for (address, expected) in [
            ("contrller", "contrller"),
            ("https://10.0.0.1:4523/x", "https://10.0.0.1:4523/x"),
            ("https://user:PASS@host:1", "https://…@host:1"),
            ("https://user:P@SS://@host", "https://…@host"),
            ("user:PASS@host", "…@host"),
            ("PASS@x://y@host", "…@host"),
            ("https://host/x?PASS", "https://host/x…"),
            ("https://host#PASS", "https://host…"),
            ("host/x?PASS", "host/x…"),
            ("https://host/x?t=P@SS", "https://…"),
            ("https://u:P@host/x?PASS", "https://…"),
            ("https://u:P@host/x#PASS", "https://…"),
            ("https://u:P?A#SS@host", "https://…"),
            ("u:P@host?PASS", "…"),
        ] {
            assert_eq!(without_credentials(address), expected);
        }
    }
}
