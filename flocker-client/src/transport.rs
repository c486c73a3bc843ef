//! Carries requests to the control service over a few long-lived connections.

use std::{sync::Arc, time::Duration};

use reqwest::{Certificate, Identity, Method, Url, dns::Resolve, redirect, tls};
use serde::Serialize;
use tokio::time::Instant;

use crate::{
    Error, Settings,
    answer::Answer,
    error::{Call, Cause, Target, failed_request, may_be_sent_again},
    places::{self, Places},
};

/// How long a connection may be silent before the peer is asked whether it is still there, and how often it is asked.
/// The control service keeps a silent connection for hours; what stands in between might not, and tells nobody.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
const KEEP_ALIVE_PROBE: Duration = Duration::from_secs(5);
const KEEP_ALIVE_PROBES: u32 = 3;

/// Requests over mutual TLS to one control service.
#[derive(Debug)]
pub(crate) struct Transport {
    http: reqwest::Client,
    base: Url,
    places: Places,
    target: Target,
}

impl Transport {
    /// Makes a transport that shows `identity`; nothing is sent yet.
    pub(crate) fn new(
        settings: Settings,
        authorities: Vec<Certificate>,
        identity: Option<Identity>,
        resolver: Arc<dyn Resolve>,
    ) -> Result<Self, Error> {
        let mut builder = reqwest::Client::builder()
            .tls_certs_only(authorities)
            .tls_version_min(tls::Version::TLS_1_2)
            .https_only(true)
            .no_proxy()
            .redirect(redirect::Policy::none())
            .referer(false)
            .user_agent(concat!("flocker-client/", env!("CARGO_PKG_VERSION")))
            .dns_resolver(resolver)
            .connect_timeout(settings.connect_timeout)
            .tcp_keepalive(KEEP_ALIVE)
            .tcp_keepalive_interval(KEEP_ALIVE_PROBE)
            .tcp_keepalive_retries(KEEP_ALIVE_PROBES)
            // Kept for good: a new connection costs both sides more than all that is asked over it in an hour.
            .pool_idle_timeout(None)
            .pool_max_idle_per_host(places::ALL);
        if let Some(identity) = identity {
            builder = builder.identity(identity);
        }
        let http = builder.build().map_err(|error| Error::Invalid {
            problem: "the certificates and the key cannot be used for TLS".to_owned(),
            source: Some(Cause::new(error)),
        })?;
        let target = Target {
            service: settings.control_service,
            server_name: settings.server_name,
            timeout: settings.timeout,
            connect_timeout: settings.connect_timeout,
        };
        Ok(Self {
            http,
            base: base(&target)?,
            places: Places::new(),
            target,
        })
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Answer, Error> {
        let begun = Instant::now();
        match self
            .send(Method::GET, path, None::<&()>, self.target.timeout)
            .await
        {
            Err(error) if may_be_sent_again(&error) => {
                tracing::debug!(
                    http.path = path,
                    "GET {path} met a closed connection and is sent once more"
                );
                let left = self.target.timeout.saturating_sub(begun.elapsed());
                self.send(Method::GET, path, None::<&()>, left).await
            }
            answer => answer,
        }
    }

    pub(crate) async fn post(&self, path: &str, body: &impl Serialize) -> Result<Answer, Error> {
        self.send(Method::POST, path, Some(body), self.target.timeout)
            .await
    }

    pub(crate) async fn delete(&self, path: &str) -> Result<Answer, Error> {
        self.send(Method::DELETE, path, None::<&()>, self.target.timeout)
            .await
    }

    /// Sends a request, once it is its turn, and reads the answer. Waiting for the turn does not count as its time:
    /// whoever has a place gives it back within the time-out, so everybody's turn comes.
    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
        timeout: Duration,
    ) -> Result<Answer, Error> {
        let call = Call::new(&self.target, method.clone(), path);
        let mut url = self.base.clone();
        url.set_path(path);
        let mut request = self.http.request(method, url).timeout(timeout);
        if let Some(body) = body {
            request = request.json(body);
        }
        let _place = self.places.take(call.is_write()).await;
        match request.send().await {
            Ok(response) => Answer::read(&self.target, call, response).await,
            Err(error) => Err(failed_request(&self.target, call, error)),
        }
    }
}

/// Returns the URL that makes the HTTP library verify the server name.
fn base(target: &Target) -> Result<Url, Error> {
    let name = &target.server_name;
    Url::parse(&format!("https://{name}:{}", target.service.port()))
        .ok()
        .filter(|url| {
            url.domain()
                .is_some_and(|domain| domain.eq_ignore_ascii_case(name))
        })
        .ok_or_else(|| Error::Invalid {
            problem: format!(
                "`{name}` is no DNS name, so no certificate can be verified against it; \
                 the certificate of every Flocker control service carries `control-service`"
            ),
            source: None,
        })
}
