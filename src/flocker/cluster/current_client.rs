//! The one client of the process.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use flocker_client::{
    Client, ClientSettings, Credentials, Error, RequestEnd, RequestObserver, RequestOutcome, RequestTrace,
};
use tokio::sync::OnceCell;

use crate::telemetry::{Metrics, TracedRequest, spawn_blocking};

/// The connection to the control service, made when it is first needed; clones share it.
///
/// Making it reads the system's trust store, which takes longer than the rest of the start.
#[derive(Clone)]
pub struct Flocker {
    current: Arc<Mutex<Current>>,
}

struct Current {
    settings: ClientSettings,
    client: Arc<OnceCell<Client>>,
}

impl Flocker {
    /// Stores how to reach Flocker, without connecting.
    pub fn new(settings: ClientSettings) -> Self {
        let current = Current {
            settings,
            client: Arc::default(),
        };
        Self {
            current: Arc::new(Mutex::new(current)),
        }
    }

    /// Tells `observer` of every request of the clients that are made from now on.
    pub(super) fn observed_by(&self, observer: Arc<dyn RequestObserver>) {
        self.lock().settings.observer = Some(observer);
    }

    /// Returns the present client. [`Self::replace`] does not reach a client that was returned before.
    ///
    /// # Errors
    /// The certificates cannot be used together.
    pub(crate) async fn client(&self) -> Result<Client, Error> {
        let (settings, client) = {
            let current = self.lock();
            (current.settings.clone(), Arc::clone(&current.client))
        };
        client.get_or_try_init(|| make(settings)).await.cloned()
    }

    /// Returns the certificates in use.
    pub(crate) fn credentials(&self) -> Credentials {
        self.lock().settings.credentials.clone()
    }

    /// Returns the settings with other certificates.
    pub(super) fn settings_with(&self, credentials: Credentials) -> ClientSettings {
        ClientSettings {
            credentials,
            ..self.lock().settings.clone()
        }
    }

    /// Uses `client` for all requests from now on, which was made from `settings`.
    ///
    /// Requests that have started end on the previous client, whose connections close after them.
    pub(super) fn replace(&self, settings: ClientSettings, client: Client) {
        *self.lock() = Current {
            settings,
            client: Arc::new(OnceCell::new_with(Some(client))),
        };
    }

    /// Records that the files of the certificates in use were replaced by others with the same content.
    pub(super) fn set_credentials(&self, credentials: Credentials) {
        self.lock().settings.credentials = credentials;
    }

    fn lock(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Measures requests.
#[derive(Debug)]
pub(super) struct RequestMetrics(pub(super) Metrics);

impl RequestObserver for RequestMetrics {
    fn request_ended(&self, endpoint: &'static str, end: RequestEnd, took: Duration) {
        self.0.request_ended(endpoint, outcome(end), took);
    }

    fn trace(&self, endpoint: &'static str) -> Option<Box<dyn RequestTrace>> {
        let request = self.0.traces()?.request(endpoint)?;
        Some(Box::new(Traced(request)))
    }
}

/// A request within a trace.
#[derive(Debug)]
struct Traced(TracedRequest);

impl RequestTrace for Traced {
    fn eliot_task_id(&self) -> String {
        self.0.eliot_task_id()
    }

    fn ended(self: Box<Self>, end: RequestEnd) {
        self.0.end(outcome(end));
    }
}

fn outcome(end: RequestEnd) -> &'static str {
    match end {
        RequestEnd::Done => "done",
        RequestEnd::Failed(RequestOutcome::Refused) => "refused",
        RequestEnd::Failed(RequestOutcome::WithoutEffect) => "failed",
        RequestEnd::Failed(RequestOutcome::Unclear) => "unclear",
        RequestEnd::Dropped => "dropped",
    }
}

/// Makes a client, on a thread that may block.
///
/// # Errors
/// The certificates cannot be used together, or the plugin is stopping.
pub(super) async fn make(settings: ClientSettings) -> Result<Client, Error> {
    match spawn_blocking(move || Client::new(settings)).await {
        Ok(client) => client,
        Err(ended) => match ended.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_cancelled) => Err(Error::Invalid {
                problem: "the plugin is stopping".to_owned(),
                source: None,
            }),
        },
    }
}
