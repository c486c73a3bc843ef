//! The one client of the process.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use flocker_client::{Client, Credentials, Error, Settings};
use tokio::sync::OnceCell;
use tokio::task::JoinError;

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
    blocking(move || Client::new(settings)).await
}

/// Runs blocking work on a thread for such work, and returns its result, or panics as it did.
///
/// A runtime that shuts down no longer starts the work. Then this never returns; the runtime drops what waits for it.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work)
        .await
        .map_err(JoinError::try_into_panic)
    {
        Ok(result) => result,
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        Err(Err(_cancelled)) => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use tokio::runtime::Runtime;

    use super::*;

    #[test]
    fn work_that_a_runtime_no_longer_starts_ends_in_no_panic() {
        let runtime = Runtime::new().unwrap();
        let handle = runtime.handle().clone();
        runtime.shutdown_background();
        let _entered = handle.enter();
        assert_eq!(blocking(|| 1).now_or_never(), None);
    }

    #[tokio::test]
    #[should_panic(expected = "of the work")]
    async fn work_that_panics_makes_its_caller_panic() {
        blocking::<()>(|| panic!("of the work")).await;
    }
}
