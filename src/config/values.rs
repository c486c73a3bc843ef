//! The parser of each setting's value. Every error says which form is expected.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::ffi::OsStrExt;
use std::path::{self, PathBuf};
use std::time::Duration;

use clap::builder::{PathBufValueParser, TypedValueParser};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::filter::Targets;
use uuid::Uuid;

use super::Endpoint;
use crate::volume::parse_size;
use crate::volume::{MINIMUM_SIZE, size_text};

/// The longest name of a driver in bytes, as CSI defines it.
const LONGEST_DRIVER_NAME: usize = 63;
/// The longest namespace in bytes: it is stored in Flocker and has to be readable there.
const LONGEST_NAMESPACE: usize = 128;
/// Flocker accepts only sizes that are a multiple of this many bytes.
const GRANULE: u64 = 1024;

/// Parses a path; a relative one is resolved from the working directory.
pub(crate) fn absolute_path() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(|path| {
        if path.as_os_str().as_bytes().iter().any(u8::is_ascii_control) {
            return Err(
                "expected a path without control characters, such as a line feed at its end".to_owned(),
            );
        }
        path::absolute(path).map_err(|error| format!("expected a path: {error}"))
    })
}

/// Parses the location of a Unix socket, a path or an endpoint; a relative path is resolved from the working directory.
pub(super) fn socket_path(text: &str) -> Result<PathBuf, String> {
    match text.parse() {
        Ok(Endpoint::Unix(path)) => path::absolute(path).map_err(|error| format!("expected a path: {error}")),
        Ok(Endpoint::Tcp(_)) => Err("expected the path of a Unix socket".to_owned()),
        Err(error) => Err(format!("expected the path of a Unix socket: {error}")),
    }
}

/// Parses an address with a port. An IPv4 address may be in brackets, so that a manifest that inserts the address can
/// use one form for both families.
pub(crate) fn http_address(text: &str) -> Result<SocketAddr, String> {
    let bracketed = text.strip_prefix('[').and_then(|text| text.split_once("]:"));
    let bracketed = bracketed.and_then(|(address, port)| {
        let address: Ipv4Addr = address.parse().ok()?;
        Some(SocketAddr::from((address, port.parse().ok()?)))
    });
    bracketed.or_else(|| text.parse().ok()).ok_or_else(|| {
        "expected an IP address and a port, such as 127.0.0.1:9808 or [::1]:9808; 0.0.0.0 and [::] are every address"
            .to_owned()
    })
}

/// Parses a driver's name by CSI's rule and the stricter rule of its conformance tests.
pub(crate) fn driver_name(text: &str) -> Result<String, String> {
    let letter = |character: Option<char>| character.is_some_and(|character| character.is_ascii_alphabetic());
    let inside = |character: char| character.is_ascii_alphanumeric() || matches!(character, '-' | '.');
    let fits = (2..=LONGEST_DRIVER_NAME).contains(&text.len())
        && letter(text.chars().next())
        && letter(text.chars().next_back())
        && text.chars().all(inside);
    if fits {
        Ok(text.to_owned())
    } else {
        Err("expected a name like a domain's: 2 to 63 letters, digits, dashes and dots, with a letter at either end"
            .to_owned())
    }
}

pub(super) fn namespace(text: &str) -> Result<String, String> {
    if (1..=LONGEST_NAMESPACE).contains(&text.len()) && !text.chars().any(char::is_control) {
        Ok(text.to_owned())
    } else {
        Err("expected 1 to 128 bytes without control characters".to_owned())
    }
}

pub(super) fn server_name(text: &str) -> Result<String, String> {
    let inside = |character: char| character.is_ascii_alphanumeric() || matches!(character, '-' | '.' | '_');
    if (1..=253).contains(&text.len()) && text.chars().all(inside) {
        Ok(text.to_owned())
    } else {
        Err("expected a host name: letters, digits, dashes and dots".to_owned())
    }
}

pub(super) fn node_id(text: &str) -> Result<Uuid, String> {
    Uuid::try_parse(text.trim())
        .map_err(|_| "expected a UUID such as 1b4e28ba-2fa1-4d2c-883f-0016d3cca427".to_owned())
}

pub(super) fn default_size(text: &str) -> Result<u64, String> {
    let size = parse_size(text).map_err(|error| error.to_string())?;
    if size < MINIMUM_SIZE {
        return Err(format!(
            "expected at least {}, the smallest dataset of Flocker",
            size_text(MINIMUM_SIZE)
        ));
    }
    granular(size)
}

pub(super) fn allocation_unit(text: &str) -> Result<u64, String> {
    match parse_size(text).map_err(|error| error.to_string())? {
        0 => Err("expected more than 0 bytes".to_owned()),
        size => granular(size),
    }
}

fn granular(size: u64) -> Result<u64, String> {
    if size.is_multiple_of(GRANULE) {
        Ok(size)
    } else {
        Err(format!("expected a multiple of {GRANULE} bytes"))
    }
}

pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| "expected a time such as 180s or 3m".to_owned())
}

pub(super) fn count(text: &str) -> Result<u32, String> {
    text.parse()
        .map_err(|_| "expected a whole number, 0 or more".to_owned())
}

pub(super) fn limit(text: &str) -> Result<u32, String> {
    count(text)
        .ok()
        .filter(|limit| *limit > 0)
        .ok_or_else(|| "expected a whole number, 1 or more".to_owned())
}

pub(super) fn log_filter(text: &str) -> Result<String, String> {
    // The filter would read a word that is no level as the name of a module, and log nothing else.
    let is_word = |directive: &&str| !directive.is_empty() && !directive.contains(['=', '[']);
    let mut words = text.split(',').filter(is_word);
    if words.all(|word| word.parse::<LevelFilter>().is_ok()) && text.parse::<Targets>().is_ok() {
        Ok(text.to_owned())
    } else {
        Err(
            "expected a level (off, error, warn, info, debug, trace) or module=level, separated by commas"
                .to_owned(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drivers_name_looks_like_a_domain() {
        for name in [
            "flocker.csi.clusterhq.com",
            "ab",
            "a-b.c",
            &format!("a{}z", "0".repeat(61)),
        ] {
            assert_eq!(driver_name(name).as_deref(), Ok(name));
        }
        for name in [
            "",
            "a",
            ".a",
            "a.",
            "1a",
            "a1",
            "a b",
            "a_b",
            "é.a",
            &"a".repeat(64),
        ] {
            assert!(driver_name(name).is_err(), "{name}");
        }
    }

    #[test]
    fn an_address_for_probes_of_either_family_may_be_in_brackets() {
        for (text, address) in [
            ("127.0.0.1:9808", "127.0.0.1:9808"),
            ("[127.0.0.1]:9808", "127.0.0.1:9808"),
            ("[10.0.0.7]:0", "10.0.0.7:0"),
            ("[::1]:9808", "[::1]:9808"),
            ("[::]:9808", "[::]:9808"),
        ] {
            assert_eq!(http_address(text), Ok(address.parse().unwrap()), "{text}");
        }
        for text in [
            "",
            ":9808",
            "9808",
            "[]:9808",
            "::1:9808",
            "[127.0.0.1:9808",
            "[127.0.0.1]:",
            "[127.0.0.1]:65536",
            "[[127.0.0.1]]:1",
            "localhost:9808",
            "http://127.0.0.1:9808",
        ] {
            let refused = http_address(text).unwrap_err();
            assert!(
                refused.starts_with("expected an IP address and a port"),
                "{text}: {refused}"
            );
        }
    }

    #[test]
    fn the_kubelet_endpoint_is_the_path_of_a_socket() {
        for text in ["/k/csi.sock", "unix:///k/csi.sock"] {
            assert_eq!(socket_path(text), Ok(PathBuf::from("/k/csi.sock")));
        }
        for text in ["", "tcp://127.0.0.1:1", "/k/", &"/k".repeat(60)] {
            let refused = socket_path(text).unwrap_err();
            assert!(
                refused.starts_with("expected the path of a Unix socket"),
                "{text}: {refused}"
            );
        }
    }

    #[test]
    fn durations_need_their_unit() {
        assert_eq!(duration("180s"), Ok(Duration::from_secs(180)));
        assert_eq!(duration("3m"), Ok(Duration::from_secs(180)));
        for text in ["", "180", "s", "-3m", "3 parsecs"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_have_to_be_valid_for_flocker() {
        assert_eq!(default_size("64MiB"), Ok(64 << 20));
        assert!(default_size("63MiB").unwrap_err().contains("64 MiB"));
        assert!(
            default_size("100000001")
                .unwrap_err()
                .contains("multiple of 1024")
        );
        assert!(allocation_unit("0").unwrap_err().contains("more than 0"));
        assert!(allocation_unit("1000").unwrap_err().contains("multiple of 1024"));
    }

    #[test]
    fn a_log_filter_that_would_be_ignored_is_refused() {
        for text in ["debug", "WARN", "off", "info,flocker_csi::node=debug"] {
            assert_eq!(log_filter(text).as_deref(), Ok(text));
        }
        for text in [
            "loud",
            "info,loud",
            "flocker_csi",
            "verbose,flocker_csi=debug",
            "flocker_csi=loud",
        ] {
            let refused = log_filter(text).unwrap_err();
            assert!(refused.contains("expected a level"), "{text}: {refused}");
        }
    }
}
