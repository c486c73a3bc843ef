//! The URL of a collector.

use std::fmt;
use std::str::FromStr;

use reqwest::Url;

/// The path at which a collector takes traces.
const TRACES: &str = "v1/traces";

/// Where a collector takes traces, by OTLP over HTTP. It holds no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtlpEndpoint(Url);

impl OtlpEndpoint {
    pub(super) fn url(&self) -> &Url {
        &self.0
    }
}

impl fmt::Display for OtlpEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for OtlpEndpoint {
    type Err = String;

    /// Parses the URL of a collector, to which the path of traces is added.
    fn from_str(text: &str) -> Result<Self, String> {
        let expected =
            "expected the URL of a collector that takes OTLP over HTTP, such as http://127.0.0.1:4318";
        let mut url = Url::parse(text).map_err(|error| format!("{expected}: {error}"))?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err(expected.to_owned());
        }
        // Not repeated in the text: it may be a secret.
        if !url.username().is_empty() || url.password().is_some() {
            return Err(format!("{expected}, without a user name or password"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(format!("{expected}, without a query or fragment"));
        }
        let path = url.path().trim_end_matches('/').to_owned();
        if !path.ends_with(&format!("/{TRACES}")) {
            url.set_path(&format!("{path}/{TRACES}"));
        }
        Ok(Self(url))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_traces_is_added_unless_it_is_there() {
        for (text, url) in [
            ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
            ("http://[::1]:4318/", "http://[::1]:4318/v1/traces"),
            ("https://collector/otlp/", "https://collector/otlp/v1/traces"),
            ("https://collector/v1/traces", "https://collector/v1/traces"),
        ] {
            assert_eq!(text.parse::<OtlpEndpoint>().unwrap().to_string(), url);
        }
    }

    #[test]
    fn any_other_url_is_refused_and_none_that_may_hold_a_secret_is_repeated() {
        for text in [
            "",
            "127.0.0.1:4318",
            "collector",
            "grpc://collector:4317",
            "unix:///run/collector.sock",
            "http://",
            "http://user@collector",
            "https://user:secret@collector:4318",
            "https://:secret@collector:4318",
            "https://collector?key=secret",
            "https://collector#secret",
            "https://user:secret@collector:port",
        ] {
            let error = text.parse::<OtlpEndpoint>().unwrap_err();
            assert!(error.starts_with("expected the URL of a collector"), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
