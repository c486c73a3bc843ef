//! Kubernetes' rules for values: checked before the operator deletes the old objects, not when the new ones are applied.

/// The longest name of an object.
const LONGEST_NAME: usize = 253;
/// The longest label, which a namespace is.
const LONGEST_LABEL: usize = 63;
/// The suffixes that a quantity may have, beside an exponent.
const UNITS: [&str; 16] = [
    "", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei",
];

/// Parses the name of a namespace.
pub(super) fn namespace(text: &str) -> Result<String, String> {
    if is_label(text) && text.len() <= LONGEST_LABEL {
        Ok(text.to_owned())
    } else {
        Err("expected the name of a namespace: 1 to 63 lower-case letters, digits and dashes, no dash at either end".to_owned())
    }
}

/// Parses the name of a storage class; an empty one means no class.
pub(super) fn storage_class(text: &str) -> Result<String, String> {
    if text.is_empty() {
        Ok(String::new())
    } else {
        name(text)
    }
}

/// Parses the name of an object.
pub(super) fn name(text: &str) -> Result<String, String> {
    if text.split('.').all(is_label) && text.len() <= LONGEST_NAME {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "{text:?} is not a name that a Kubernetes object can have: 1 to 253 lower-case letters, digits, dashes and dots, \
             with a letter or digit at either end"
        ))
    }
}

fn is_label(text: &str) -> bool {
    let plain = |character: char| character.is_ascii_lowercase() || character.is_ascii_digit();
    text.starts_with(plain)
        && text.ends_with(plain)
        && text.chars().all(|character| plain(character) || character == '-')
}

/// Parses a size as Kubernetes does; it must be more than zero.
pub(super) fn size(text: &str) -> Result<String, String> {
    let number = text.strip_prefix('+').unwrap_or(text);
    let end = number
        .find(|character: char| !character.is_ascii_digit() && character != '.')
        .unwrap_or(number.len());
    let (number, unit) = number.split_at(end);
    let is_number =
        number.matches('.').count() <= 1 && number.bytes().any(|byte| (b'1'..=b'9').contains(&byte));
    let exponent = unit.strip_prefix(['e', 'E']);
    let exponent = exponent.map(|digits| digits.strip_prefix(['+', '-']).unwrap_or(digits));
    let is_exponent =
        exponent.is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()));
    if is_number && (is_exponent || UNITS.contains(&unit)) {
        Ok(text.to_owned())
    } else {
        Err(format!("expected a size such as 10Gi, found {text:?}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_kubernetes_accepts() {
        let longest = "x".repeat(LONGEST_NAME);
        for text in ["pg", "0", "pvc-1.data", "a--b", &longest] {
            assert_eq!(name(text), Ok(text.to_owned()));
        }
        let long = "x".repeat(LONGEST_NAME + 1);
        for text in [
            "", "PG", "my_db", "-a", "a-", "a..b", ".a", "a.-b", "ü", "a\nb", "a b", &long,
        ] {
            assert!(name(text).unwrap_err().contains(&format!("{text:?}")));
        }
        assert_eq!(namespace("apps"), Ok("apps".to_owned()));
        for text in ["", "a.b", "Apps", &"x".repeat(LONGEST_LABEL + 1)] {
            assert!(namespace(text).unwrap_err().contains("namespace"), "{text:?}");
        }
        assert_eq!(storage_class(""), Ok(String::new()));
        assert!(storage_class("-").is_err());
    }

    #[test]
    fn sizes_are_those_that_kubernetes_accepts() {
        for text in [
            "1",
            "10Gi",
            "1.5Gi",
            ".5Ti",
            "1.",
            "100M",
            "1e9",
            "1E3",
            "2E",
            "1Ei",
            "1e-3",
            "1e+26",
            "1000000000.0",
            "107374182400m",
            "+1k",
        ] {
            assert_eq!(size(text), Ok(text.to_owned()));
        }
        for text in [
            "",
            "0",
            "0Gi",
            "-5",
            "ten",
            "10 Gi",
            "1Gi ",
            "1gi",
            "1K",
            "1.2.3",
            ".",
            "Gi",
            "1e",
            "1e1.5",
            "1_000",
            "0x10",
            "1Gi\u{a0}",
        ] {
            assert!(size(text).unwrap_err().contains(&format!("{text:?}")), "{text:?}");
        }
    }
}
