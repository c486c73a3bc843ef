//! The one client of the process.

use std::sync::Arc;

use flocker_client::{Client, Settings};
use tokio::sync::OnceCell;

/// Makes the client of the control service when it is first needed.
///
/// Making it reads the system's trust store, which takes longer than the rest of the start.
#[derive(Clone)]
pub struct Flocker {
    settings: Arc<Settings>,
    client: Arc<OnceCell<Client>>,
}

impl Flocker {
    /// Remembers how to reach Flocker; nothing is connected yet.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings: Arc::new(settings),
            client: Arc::default(),
        }
    }

    /// Returns the client.
    ///
    /// # Errors
    /// The certificates cannot be used together.
    pub async fn client(&self) -> Result<&Client, flocker_client::Error> {
        let make = || async {
            let settings = Settings::clone(&self.settings);
            match tokio::task::spawn_blocking(move || Client::new(settings)).await {
                Ok(made) => made,
                Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
            }
        };
        self.client.get_or_try_init(make).await
    }
}
