//! Sends requests to the control service over a few long-lived connections.

use std::{sync::Arc, time::Duration};

use reqwest::{
    Certificate, Identity, Response, Url,
    dns::Resolve,
    header::{HeaderMap, HeaderName, HeaderValue},
    redirect, tls,
};
use serde::Serialize;
use tokio::time::Instant;

use crate::{
    ClientSettings, Credentials, Error, Extensions,
    answer::Answer,
    connection_limit::{self, ConnectionLimit},
    endpoint::Endpoint,
    entry::Entry,
    error::{ApiCall, Cause, Target, failed_request, may_be_repeated},
    list::List,
    observer::{Observed, RequestObserver},
};

/// How long a connection may be idle before the kernel probes it, how often it probes, and after how many probes
/// without an answer it closes the connection. The control service keeps an idle connection for hours; a firewall in
/// between may drop it and inform neither side.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
const KEEP_ALIVE_PROBE: Duration = Duration::from_secs(5);
const KEEP_ALIVE_PROBES: u32 = 3;

/// The header by which Flocker continues a task of Eliot in its log; it ignores what is no id of one.
const ELIOT_TASK_ID: HeaderName = HeaderName::from_static("x-eliot-task-id");

/// Requests over mutual TLS to one control service.
#[derive(Debug)]
pub(crate) struct Transport {
    http: reqwest::Client,
    base: Url,
    connection_limit: ConnectionLimit,
    target: Target,
    credentials: Credentials,
    observer: Option<Arc<dyn RequestObserver>>,
}

impl Transport {
    /// Makes a transport that presents `identity`; nothing is sent yet.
    pub(crate) fn new(
        settings: ClientSettings,
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
            .default_headers(known_extensions())
            .dns_resolver(resolver)
            .connect_timeout(settings.connect_timeout)
            .tcp_keepalive(KEEP_ALIVE)
            .tcp_keepalive_interval(KEEP_ALIVE_PROBE)
            .tcp_keepalive_retries(KEEP_ALIVE_PROBES)
            // A new connection costs both sides more than all the requests that use it in an hour.
            .pool_idle_timeout(None)
            .pool_max_idle_per_host(connection_limit::TOTAL);
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
            connection_limit: ConnectionLimit::new(),
            target,
            credentials: settings.credentials,
            observer: settings.observer,
        })
    }

    /// Sends a request without a body. A read is sent a second time if its connection was closed.
    pub(crate) async fn send(&self, endpoint: Endpoint) -> Result<Answer, Error> {
        self.send_for(endpoint).await
    }

    /// As [`Self::send`], for a list, which is decoded while it arrives.
    pub(crate) async fn send_for_list<T: Entry + Send>(&self, endpoint: Endpoint) -> Result<List<T>, Error> {
        self.send_for(endpoint).await
    }

    async fn send_for<A: ReadAnswer>(&self, endpoint: Endpoint) -> Result<A, Error> {
        let observed = Observed::begin(self.observer.as_ref(), endpoint);
        let answer = self.send_twice(endpoint, &observed).await;
        observed.ended(answer)
    }

    async fn send_twice<A: ReadAnswer>(&self, endpoint: Endpoint, observed: &Observed) -> Result<A, Error> {
        let (began, timeout) = (Instant::now(), self.target.timeout);
        match self.attempt(endpoint, None::<&()>, timeout, observed).await {
            Err(error) if may_be_repeated(&error) => {
                let path = endpoint.path();
                tracing::debug!(
                    http.path = path,
                    "The connection for GET {path} was closed; sending it a second time"
                );
                let left = self.target.timeout.saturating_sub(began.elapsed());
                self.attempt(endpoint, None::<&()>, left, observed).await
            }
            answer => answer,
        }
    }

    /// Sends a request with a body, once.
    pub(crate) async fn send_with(&self, endpoint: Endpoint, body: &impl Serialize) -> Result<Answer, Error> {
        let observed = Observed::begin(self.observer.as_ref(), endpoint);
        let timeout = self.target.timeout;
        let answer = self.attempt(endpoint, Some(body), timeout, &observed).await;
        observed.ended(answer)
    }

    /// Waits for a permit, sends a request and reads the answer. The wait does not count towards `timeout`: every
    /// holder of a permit returns it within its own time-out, so each request gets one.
    async fn attempt<A: ReadAnswer>(
        &self,
        endpoint: Endpoint,
        body: Option<&impl Serialize>,
        timeout: Duration,
        observed: &Observed,
    ) -> Result<A, Error> {
        let call = ApiCall::new(&self.target, endpoint);
        let mut url = self.base.clone();
        url.set_path(call.path());
        let mut request = self.http.request(endpoint.method(), url).timeout(timeout);
        if let Some(body) = body {
            request = request.json(body);
        }
        if let Some(task) = observed.eliot_task_id() {
            request = request.header(ELIOT_TASK_ID, task);
        }
        let _permit = self.connection_limit.acquire(call.is_write()).await;
        let answer = match request.send().await {
            Ok(response) => A::read(&self.target, call, response).await,
            Err(error) => Err(failed_request(&self.target, call, error)),
        };
        answer.map_err(|error| error.naming_out_of_date(&self.credentials))
    }
}

/// Returns the header that says which extensions of the API this crate knows. Flocker ignores it.
fn known_extensions() -> HeaderMap {
    let name = HeaderName::from_static("x-flocker-extensions");
    HeaderMap::from_iter([(name, HeaderValue::from_static(Extensions::TOMBSTONES))])
}

/// What a response is read into.
trait ReadAnswer: Sized {
    /// Reads a response to its end.
    fn read(
        target: &Target,
        call: ApiCall,
        response: Response,
    ) -> impl Future<Output = Result<Self, Error>> + Send;
}

impl ReadAnswer for Answer {
    fn read(
        target: &Target,
        call: ApiCall,
        response: Response,
    ) -> impl Future<Output = Result<Self, Error>> + Send {
        Self::read(target, call, response)
    }
}

impl<T: Entry + Send> ReadAnswer for List<T> {
    fn read(
        target: &Target,
        call: ApiCall,
        response: Response,
    ) -> impl Future<Output = Result<Self, Error>> + Send {
        Self::read(target, call, response)
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
