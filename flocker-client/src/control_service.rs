//! The address of the control service.

use std::{
    fmt,
    net::{Ipv6Addr, SocketAddr},
    str::FromStr,
};

use reqwest::Url;

use crate::secrets::without_credentials;

/// The default port of the REST API.
const DEFAULT_PORT: u16 = 4523;

/// The address of a control service's REST API, parsed from `https://HOST[:PORT]`.
///
/// `HOST` is a name, an IPv4 address, or an IPv6 address in brackets; the port is 4523 if none is given.
///
/// ```
/// use flocker_client::ControlService;
///
/// let service: ControlService = "https://[2001:db8::7]".parse()?;
/// assert_eq!(service.host(), "2001:db8::7");
/// assert_eq!(service.to_string(), "https://[2001:db8::7]:4523");
/// # Ok::<(), flocker_client::ControlServiceError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ControlService {
    host: String,
    port: u16,
}

/// The reason why a text is no address of a control service.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not the address of a Flocker control service: {reason}; expected https://HOST[:PORT]")]
pub struct ControlServiceError {
    text: String,
    reason: &'static str,
}

impl ControlService {
    /// Returns the name or address of the host; an IPv6 address has no brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns the TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl FromStr for ControlService {
    type Err = ControlServiceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused = |reason| ControlServiceError {
            text: without_password(text),
            reason,
        };
        let (scheme, rest) = text
            .trim()
            .split_once("://")
            .ok_or_else(|| refused("it is no URL"))?;
        if !scheme.eq_ignore_ascii_case("https") {
            return Err(refused("Flocker speaks HTTPS only"));
        }
        // A parsed https URL omits port 443, as if none had been given; an http URL omits port 80 the same way. Parsed
        // as both, the text keeps its port in one of them.
        let parse = |scheme: &str| {
            Url::parse(&format!("{scheme}://{rest}"))
                .map_err(|_| refused("its host or port is not well-formed"))
        };
        let url = parse("https")?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(refused("Flocker knows users by their certificates only"));
        }
        if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            return Err(refused("nothing may follow host and port"));
        }
        let port = url.port().or(parse("http")?.port()).unwrap_or(DEFAULT_PORT);
        if port == 0 {
            return Err(refused("0 is not a port that accepts connections"));
        }
        let host = url.host_str().unwrap_or_default();
        let host = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host);
        Ok(Self {
            host: host.to_owned(),
            port,
        })
    }
}

impl fmt::Display for ControlService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.parse::<Ipv6Addr>().is_ok() {
            write!(f, "https://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "https://{}:{}", self.host, self.port)
        }
    }
}

impl From<SocketAddr> for ControlService {
    fn from(address: SocketAddr) -> Self {
        Self {
            host: address.ip().to_string(),
            port: address.port(),
        }
    }
}

/// Returns the text without the parts that may be secrets: user and password, and what follows the host.
fn without_password(text: &str) -> String {
    let shown = without_credentials(text);
    let host_at = shown.find("://").map_or(0, |scheme| scheme + "://".len());
    match shown[host_at..].split_once('/') {
        Some((host, after)) if !after.is_empty() => format!("{}{host}/…", &shown[..host_at]),
        _ => shown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> (String, u16, String) {
        let service: ControlService = text.parse().unwrap();
        (service.host().to_owned(), service.port(), service.to_string())
    }

    fn refusal(text: &str) -> String {
        text.parse::<ControlService>().unwrap_err().to_string()
    }

    #[test]
    fn a_host_without_a_port_means_flockers_own_port() {
        assert_eq!(
            parsed("https://Flocker.Example"),
            (
                "flocker.example".into(),
                4523,
                "https://flocker.example:4523".into()
            )
        );
        assert_eq!(parsed("https://10.0.0.1/").1, 4523);
    }

    #[test]
    fn every_port_that_is_written_down_counts() {
        for port in [80, 443, 4523, 65535] {
            assert_eq!(parsed(&format!("https://10.0.0.1:{port}")).1, port);
        }
        assert!(refusal("https://10.0.0.1:65536").contains("well-formed"));
        assert!(refusal("https://10.0.0.1:0").contains("not a port"));
    }

    #[test]
    fn ipv6_addresses_keep_their_brackets_in_text_only() {
        assert_eq!(
            parsed("https://[fd00::1]:443"),
            ("fd00::1".into(), 443, "https://[fd00::1]:443".into())
        );
        assert!(refusal("https://fd00::1").contains("well-formed"));
    }

    #[test]
    fn what_is_no_plain_https_address_is_refused() {
        assert!(refusal("http://10.0.0.1:4523").contains("HTTPS only"));
        assert!(refusal("10.0.0.1:4523").contains("no URL"));
        assert!(refusal("https://").contains("well-formed"));
        assert!(refusal("https://10.0.0.1/v1").contains("nothing may follow"));
        assert!(refusal("https://10.0.0.1?x").contains("nothing may follow"));
        assert!(refusal("https://10.0.0.1#x").contains("nothing may follow"));
    }

    #[test]
    fn a_password_is_refused_without_being_repeated() {
        let message = refusal("https://admin:secret@10.0.0.1");
        assert!(message.contains("certificates"), "{message}");
        assert!(!message.contains("secret"), "{message}");
        for text in [
            "admin:secret@10.0.0.1",
            "http://admin:se@cret://secret@10.0.0.1",
            "https://10.0.0.1?token=secret",
            "https://10.0.0.1/secret",
            "10.0.0.1#secret",
            "https://10.0.0.1/a/secret?secret",
        ] {
            let message = refusal(text);
            assert!(
                !message.contains("secret") && message.contains("10.0.0.1"),
                "{message}"
            );
        }
        let message = refusal("https://admin:pass@10.0.0.1/?token=a@secret");
        assert!(!message.contains("secret"), "{message}");
    }
}
