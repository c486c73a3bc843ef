//! The endpoint of the plugin, in every form in which orchestrators and `csc` write it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use flocker_client::without_credentials;
use thiserror::Error;

/// The longest path a Unix socket can have on Linux, in bytes: `sun_path` less its terminator.
pub(crate) const LONGEST_SOCKET_PATH: usize = 107;

/// An address to listen on.
///
/// It is parsed from `unix:///run/x.sock`, `unix://x.sock`, `unix:/run/x.sock`, `/run/x.sock`, `x.sock`,
/// `tcp://127.0.0.1:10000` or `tcp://[::1]:10000`, the scheme in any case; `tcp4` and `tcp6` restrict the
/// address as they do in Go. It is displayed in the form that gRPC clients accept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A Unix socket; a relative path is resolved from the working directory.
    Unix(PathBuf),
    /// A port on a loopback address; 0 stands for any free port.
    Tcp(SocketAddr),
}

/// Why a string is not an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{value:?} is not an endpoint: {problem}; accepted are {ACCEPTED}")]
pub struct ParseEndpointError {
    value: String,
    problem: Problem,
}

const ACCEPTED: &str = "unix:///absolute/path.sock, unix:/absolute/path.sock, /absolute/path.sock, relative/path.sock and \
     tcp://127.0.0.1:PORT or tcp://[::1]:PORT";

#[derive(Clone, Debug, PartialEq, Eq, Error)]
enum Problem {
    #[error("it has no path")]
    NoPath,
    #[error("its path names a directory")]
    Directory,
    #[error("it contains a control character, such as a line feed at its end")]
    Control,
    #[error("its path has {0} bytes, and that of a Unix socket has at most {LONGEST_SOCKET_PATH}")]
    LongPath(usize),
    #[error("the scheme {0:?} is not supported")]
    Scheme(String),
    #[error("{0:?} is not an IP address or localhost, with a port")]
    Address(String),
    #[error("{address} is not an address of {scheme}")]
    Family { address: IpAddr, scheme: String },
    #[error(
        "{0} is not a loopback address, and calls are neither encrypted nor authenticated, so they must not leave \
         the machine"
    )]
    NotLoopback(IpAddr),
}

impl Endpoint {
    /// Returns the endpoint with an absolute path: some clients accept no other.
    ///
    /// The path may be longer than a socket's path can be, so the server listens on the path that was given.
    #[must_use]
    pub fn absolute(&self) -> Self {
        match self {
            Self::Unix(path) => Self::Unix(std::path::absolute(path).unwrap_or_else(|_| path.clone())),
            Self::Tcp(address) => Self::Tcp(*address),
        }
    }
}

impl FromStr for Endpoint {
    type Err = ParseEndpointError;

    fn from_str(value: &str) -> Result<Self, Self::Err> {
        parse(value).map_err(|problem| ParseEndpointError {
            value: without_credentials(value),
            problem,
        })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) if path.is_absolute() => write!(f, "unix://{}", path.display()),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
        }
    }
}

fn parse(value: &str) -> Result<Endpoint, Problem> {
    if value.chars().any(char::is_control) {
        return Err(Problem::Control);
    }
    if let Some((scheme, path)) = value.split_at_checked("unix:".len())
        && scheme.eq_ignore_ascii_case("unix:")
    {
        return socket(path.strip_prefix("//").unwrap_or(path));
    }
    match value.split_once("://") {
        Some((scheme, _)) if scheme.contains('/') => socket(value),
        Some((scheme, address)) => match scheme.to_ascii_lowercase().as_str() {
            scheme @ ("tcp" | "tcp4" | "tcp6") => tcp(scheme, address),
            _ => Err(Problem::Scheme(without_credentials(scheme))),
        },
        None => socket(value),
    }
}

fn socket(path: &str) -> Result<Endpoint, Problem> {
    if path.is_empty() {
        return Err(Problem::NoPath);
    }
    if path.ends_with(['/']) || path.ends_with("/.") || path.ends_with("/..") || path == "." || path == ".." {
        return Err(Problem::Directory);
    }
    if path.len() > LONGEST_SOCKET_PATH {
        return Err(Problem::LongPath(path.len()));
    }
    Ok(Endpoint::Unix(PathBuf::from(path)))
}

fn tcp(scheme: &str, value: &str) -> Result<Endpoint, Problem> {
    let address = match value.rsplit_once(':') {
        Some((host, port)) if host.eq_ignore_ascii_case("localhost") => {
            let host = if scheme == "tcp6" {
                Ipv6Addr::LOCALHOST.into()
            } else {
                Ipv4Addr::LOCALHOST.into()
            };
            port.parse().ok().map(|port| SocketAddr::new(host, port))
        }
        // Go listens on every address when there is none.
        Some(("", port)) if port.parse::<u16>().is_ok() => {
            return Err(Problem::NotLoopback(Ipv4Addr::UNSPECIFIED.into()));
        }
        _ => value.parse().ok(),
    };
    let address: SocketAddr = address.ok_or_else(|| Problem::Address(without_credentials(value)))?;
    let ip = address.ip();
    if (scheme == "tcp4" && !ip.is_ipv4()) || (scheme == "tcp6" && !ip.is_ipv6()) {
        return Err(Problem::Family {
            address: ip,
            scheme: scheme.to_owned(),
        });
    }
    if !ip.is_loopback() {
        return Err(Problem::NotLoopback(ip));
    }
    Ok(Endpoint::Tcp(address))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn unix(path: &str) -> Endpoint {
        Endpoint::Unix(PathBuf::from(path))
    }

    fn problem(value: &str) -> String {
        value.parse::<Endpoint>().unwrap_err().to_string()
    }

    #[test]
    fn every_form_of_a_socket_path_is_understood() {
        for (value, endpoint) in [
            ("unix:///run/csi.sock", unix("/run/csi.sock")),
            ("UNIX:///run/csi.sock", unix("/run/csi.sock")),
            ("unix:/run/csi.sock", unix("/run/csi.sock")),
            ("unix:csi.sock", unix("csi.sock")),
            ("unix://csi.sock", unix("csi.sock")),
            ("unix://./csi.sock", unix("./csi.sock")),
            ("/run/csi.sock", unix("/run/csi.sock")),
            ("csi.sock", unix("csi.sock")),
            ("../run/csi.sock", unix("../run/csi.sock")),
            ("./odd://name", unix("./odd://name")),
            ("127.0.0.1:10000", unix("127.0.0.1:10000")),
            ("é.sock", unix("é.sock")),
        ] {
            assert_eq!(value.parse(), Ok(endpoint), "{value}");
        }
    }

    #[test]
    fn every_form_of_a_loopback_address_is_understood() {
        for (value, address) in [
            ("tcp://127.0.0.1:10000", "127.0.0.1:10000"),
            ("TCP://127.0.0.2:0", "127.0.0.2:0"),
            ("tcp://[::1]:10000", "[::1]:10000"),
            ("tcp://localhost:10000", "127.0.0.1:10000"),
            ("tcp4://localhost:10000", "127.0.0.1:10000"),
            ("tcp6://localhost:10000", "[::1]:10000"),
        ] {
            assert_eq!(
                value.parse(),
                Ok(Endpoint::Tcp(address.parse().unwrap())),
                "{value}"
            );
        }
    }

    #[test]
    fn other_addresses_are_refused_with_the_reason() {
        for (value, ip) in [
            ("tcp://0.0.0.0:10000", "0.0.0.0"),
            ("tcp://:10000", "0.0.0.0"),
            ("tcp://[::]:10000", "::"),
            ("tcp://192.0.2.7:10000", "192.0.2.7"),
            ("tcp://[::ffff:127.0.0.1]:10000", "::ffff:127.0.0.1"),
        ] {
            let problem = problem(value);
            assert!(
                problem.starts_with(&format!("{value:?} is not an endpoint: ")),
                "{problem}"
            );
            assert!(
                problem.contains(&format!("{ip} is not a loopback address")),
                "{problem}"
            );
        }
        assert!(problem("tcp4://[::1]:1").contains("::1 is not an address of tcp4"));
        assert!(problem("tcp6://127.0.0.1:1").contains("127.0.0.1 is not an address of tcp6"));
        for value in [
            "tcp://",
            "tcp://example.com:1",
            "tcp://127.0.0.1",
            "tcp://127.0.0.1:65536",
            "tcp://localhost:",
        ] {
            assert!(
                problem(value).contains("is not an IP address or localhost, with a port"),
                "{value}"
            );
        }
    }

    #[test]
    fn other_schemes_are_refused() {
        for scheme in ["udp", "unixgram", "unixpacket", "ip4", "http", "dns", ""] {
            let problem = problem(&format!("{scheme}://127.0.0.1:1"));
            assert!(
                problem.contains(&format!("the scheme {scheme:?} is not supported")),
                "{problem}"
            );
            assert!(
                problem.ends_with(&format!("accepted are {ACCEPTED}")),
                "{problem}"
            );
        }
    }

    #[test]
    fn a_path_that_no_socket_can_have_is_refused() {
        let longest = format!("/{}", "a".repeat(106));
        assert_eq!(longest.parse(), Ok(unix(&longest)));
        assert!(
            problem(&format!("unix://{longest}b"))
                .contains("has 108 bytes, and that of a Unix socket has at most 107")
        );
        for value in ["", "unix://", "unix:"] {
            assert!(problem(value).contains("has no path"), "{value}");
        }
        for value in ["/", "/run/", "unix:///run/..", "."] {
            assert!(problem(value).contains("names a directory"), "{value}");
        }
        for value in ["a\0b", "csi.sock\n", "unix:///run/csi.sock\r\n"] {
            assert!(problem(value).contains("control character"), "{value:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_understood_is_displayed_in_a_form_that_is(value in "(unix|tcp[46]?)?(:|//|/|\\.|a|\\[|\\]|é|[0-9])*") {
            if let Ok(endpoint) = value.parse::<Endpoint>() {
                prop_assert_eq!(endpoint.to_string().parse(), Ok(endpoint));
            }
        }

        #[test]
        fn any_string_is_an_endpoint_or_named_in_the_error(value: String) {
            if let Err(error) = value.parse::<Endpoint>() {
                let named = format!("{:?}", without_credentials(&value));
                prop_assert!(error.to_string().starts_with(&named));
            }
        }
    }
}
