//! The one client of the process.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use flocker_client::{Client, Credentials, Error, Settings};
use tokio::sync::OnceCell;

/// Reaches the control service, with a client that is made when it is first needed; clones share it.
///
/// Making one reads the system's trust store, which takes longer than the rest of the start.
#[derive(Clone)]
pub struct Flocker {
    current: Arc<Mutex<Current>>,
}

struct Current {
    settings: Settings,
    client: Arc<OnceCell<Client>>,
}

impl Flocker {
    /// Remembers how to reach Flocker; nothing is connected yet.
    pub fn new(settings: Settings) -> Self {
        let current = Current {
            settings,
            client: Arc::default(),
        };
        Self {
            current: Arc::new(Mutex::new(current)),
        }
    }

    /// Returns the client of this moment. Whoever keeps it misses those that take its place.
    ///
    /// # Errors
    /// The certificates cannot be used together.
    pub async fn client(&self) -> Result<Client, Error> {
        let (settings, client) = {
            let current = self.lock();
            (current.settings.clone(), Arc::clone(&current.client))
        };
        client.get_or_try_init(|| make(settings)).await.cloned()
    }

    /// Returns the certificates in use.
    pub fn credentials(&self) -> Credentials {
        self.lock().settings.credentials.clone()
    }

    /// Returns how Flocker would be reached with other certificates.
    pub(super) fn settings_with(&self, credentials: Credentials) -> Settings {
        Settings {
            credentials,
            ..self.lock().settings.clone()
        }
    }

    /// Has everybody use `client` from here on, which was made from `settings`.
    ///
    /// What is under way ends with the client it began with; that one's connections close after it.
    pub(super) fn replace(&self, settings: Settings, client: Client) {
        *self.lock() = Current {
            settings,
            client: Arc::new(OnceCell::new_with(Some(client))),
        };
    }

    /// Takes note that the certificates in use are in other files by now.
    pub(super) fn found_again(&self, credentials: Credentials) {
        self.lock().settings.credentials = credentials;
    }

    fn lock(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes a client; that blocks, so it is done where it may.
pub(super) async fn make(settings: Settings) -> Result<Client, Error> {
    match tokio::task::spawn_blocking(move || Client::new(settings)).await {
        Ok(made) => made,
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}
