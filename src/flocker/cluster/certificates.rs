//! Loads certificates that are replaced on disk, and warns before certificates expire.
//!
//! An operator replaces certificates file by file, and may make mistakes. So those in use stay until the new ones belong
//! together *and* the control service has answered a request with them: a wrong pair would cut the plugin off.

use std::time::{Duration, SystemTime};

use flocker_client::{Credentials, CredentialsError, Error};
use tokio::time::{Instant, sleep};

use super::current_client::{self, Flocker};
use crate::error::chain;
use crate::telemetry::spawn_blocking;

/// How often the files are read. That sends no request to Flocker.
const CHECK_EVERY: Duration = Duration::from_secs(5);
/// When certificates that the control service has refused are tried again: its configuration may have changed.
const TRY_AGAIN: Duration = Duration::from_secs(60);
/// Certificates that expire within this number of days are warned of.
const WARN_BELOW: i64 = 30;
/// The time between two of these warnings.
const WARN_EVERY: Duration = Duration::from_secs(86_400);

/// Keeps the certificates of a process up to date.
pub struct CertificateKeeper {
    flocker: Flocker,
    /// Those that Flocker has refused, and when they may be tried again.
    refused: Option<(Credentials, Instant)>,
    /// The fault of the files that was logged last.
    logged: Option<String>,
    /// When the last warning of the expiry was.
    warned: Option<Instant>,
}

/// The outcome of one check of the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileCheck {
    /// The files hold the certificates in use.
    Unchanged,
    /// They held others, which are in use now.
    Replaced,
    /// They hold others, and the previous ones stay in use.
    Kept,
}

impl CertificateKeeper {
    pub(super) fn new(flocker: Flocker) -> Self {
        Self {
            flocker,
            refused: None,
            logged: None,
            warned: None,
        }
    }

    /// Checks the files regularly, until the future is dropped.
    pub(crate) async fn run(mut self) {
        loop {
            self.check().await;
            sleep(CHECK_EVERY).await;
        }
    }

    /// Checks the files once, and uses what they hold if the control service accepts it.
    pub async fn check(&mut self) -> FileCheck {
        let current = self.flocker.credentials();
        let load = || {
            let current = current.clone();
            move || current.changed_on_disk().then(|| current.load_again())
        };
        let checked = match spawn_blocking(load()).await {
            Ok(None) => FileCheck::Unchanged,
            Ok(Some(found)) => self.found(&current, found).await,
            Err(ended) => match ended.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The plugin is stopping.
                Err(_cancelled) => FileCheck::Unchanged,
            },
        };
        self.warn_of_expiry();
        checked
    }

    async fn found(
        &mut self,
        current: &Credentials,
        found: Result<Credentials, CredentialsError>,
    ) -> FileCheck {
        let new = match found {
            Ok(new) => new,
            Err(error) => return self.keep(&chain(&error)),
        };
        if new.same_as(current) {
            self.logged = None;
            self.flocker.set_credentials(new);
            return FileCheck::Unchanged;
        }
        if let Some(error) = new.out_of_date(SystemTime::now()) {
            return self.keep(&chain(&error));
        }
        let refused = self.refused.as_ref();
        if refused.is_some_and(|(refused, until)| new.same_as(refused) && Instant::now() < *until) {
            return FileCheck::Kept;
        }
        match self.try_out(&new).await {
            Ok(()) => {
                self.refused = None;
                self.logged = None;
                self.warned = None;
                tracing::info!(
                    "The certificates for Flocker were replaced: the new ones of user {} are in use, and valid until {}",
                    new.user(),
                    date(new.not_after())
                );
                FileCheck::Replaced
            }
            Err(
                error @ (Error::Tls { .. }
                | Error::Certificate { .. }
                | Error::OutOfDate { .. }
                | Error::Invalid { .. }),
            ) => {
                self.refused = Some((new, Instant::now() + TRY_AGAIN));
                self.keep(&chain(&error))
            }
            // They cannot be judged while Flocker does not answer.
            Err(error) => {
                tracing::debug!(error = %chain(&error), "New certificates for Flocker could not be tried yet");
                FileCheck::Kept
            }
        }
    }

    /// Sends a request with new certificates, and uses them if Flocker itself answers, with success or not.
    async fn try_out(&self, new: &Credentials) -> Result<(), Error> {
        let settings = self.flocker.settings_with(new.clone());
        let client = current_client::make(settings.clone()).await?;
        match client.version().await {
            Err(error) if !error.is_flockers_answer() => Err(error),
            // Its connection is used for later requests.
            Ok(_) | Err(_) => {
                self.flocker.replace(settings, client);
                Ok(())
            }
        }
    }

    fn keep(&mut self, problem: &str) -> FileCheck {
        if self.logged.as_deref() != Some(problem) {
            let credentials = self.flocker.credentials();
            let validity = match credentials.out_of_date(SystemTime::now()) {
                Some(error) => format!("of which {error}"),
                None => format!("which are valid until {}", date(credentials.not_after())),
            };
            tracing::warn!(
                "The certificates for Flocker were replaced by others that cannot be used, so the previous ones stay in \
                 use, {validity}: {problem}"
            );
            self.logged = Some(problem.to_owned());
        }
        FileCheck::Kept
    }

    fn warn_of_expiry(&mut self) {
        let credentials = self.flocker.credentials();
        let now = SystemTime::now();
        let (days, out_of_date) = (credentials.days_left(now), credentials.out_of_date(now));
        if (days >= WARN_BELOW && out_of_date.is_none())
            || self.warned.is_some_and(|warned| warned.elapsed() < WARN_EVERY)
        {
            return;
        }
        self.warned = Some(Instant::now());
        let advice = "replace the files; the new certificates are loaded without a restart";
        if let Some(error) = out_of_date {
            tracing::warn!("No request can be sent to Flocker, as {error}: {advice}");
        } else {
            let until = date(credentials.not_after());
            tracing::warn!("The certificates for Flocker expire in {days} days, on {until}: {advice}");
        }
    }
}

fn date(moment: SystemTime) -> impl std::fmt::Display {
    humantime::format_rfc3339_seconds(moment)
}
