//! Looks up the host of the control service, which need not be the name in its certificate.

use std::{io, net::SocketAddr};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Looks up the host of the control service for each new connection.
///
/// Requests are made to the name that the certificate must carry, so that this name is verified; the address comes from
/// here. The next connection finds a control service that has moved to another address.
#[derive(Debug, Clone)]
pub(crate) struct ServiceResolver {
    host: String,
}

impl ServiceResolver {
    pub(crate) fn new(host: impl Into<String>) -> Self {
        Self { host: host.into() }
    }
}

impl Resolve for ServiceResolver {
    fn resolve(&self, _server_name: Name) -> Resolving {
        let host = self.host.clone();
        Box::pin(async move {
            // The port of the request's URL replaces the 0. Address literals are not looked up.
            let addresses: Vec<SocketAddr> = tokio::net::lookup_host((host.as_str(), 0)).await?.collect();
            if addresses.is_empty() {
                return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address").into());
            }
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn lookup(host: &str) -> Vec<SocketAddr> {
        let name = "control-service".parse().unwrap();
        ServiceResolver::new(host).resolve(name).await.unwrap().collect()
    }

    #[tokio::test]
    async fn the_host_is_looked_up_and_not_the_name_in_the_certificate() {
        assert_eq!(lookup("192.0.2.7").await, ["192.0.2.7:0".parse().unwrap()]);
        assert_eq!(lookup("2001:db8::7").await, ["[2001:db8::7]:0".parse().unwrap()]);
        assert!(
            lookup("localhost")
                .await
                .iter()
                .all(|address| address.ip().is_loopback())
        );
    }

    #[tokio::test]
    async fn a_name_without_an_address_is_an_error() {
        let name = "control-service".parse().unwrap();
        assert!(
            ServiceResolver::new("flocker.invalid")
                .resolve(name)
                .await
                .is_err()
        );
    }
}
