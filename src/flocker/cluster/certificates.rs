//! Takes up certificates that are replaced on disk, and warns of those that will expire.
//!
//! Whoever replaces certificates does so file by file, and may make mistakes. So those in use stay until new ones
//! belong together *and* the control service has answered to them: with a wrong pair the plugin would be cut off.

use std::time::{Duration, SystemTime};

use flocker_client::{Credentials, CredentialsError, Error};
use tokio::time::{Instant, sleep};

use super::flocker::{self, Flocker, blocking};
use crate::error::chain;

/// How often the files are looked at. Flocker is asked nothing for it.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// When certificates that the control service has refused are shown to it again: it may be it that has to change.
const SHOW_AGAIN: Duration = Duration::from_secs(60);
/// Below this number of days each day brings a warning.
const WARN_BELOW: i64 = 30;
const WARN_EVERY: Duration = Duration::from_secs(86_400);

/// Looks after the certificates that a process shows to Flocker.
pub struct CertificateKeeper {
    flocker: Flocker,
    /// Those that Flocker has refused, and when they may be shown again.
    refused: Option<(Credentials, Instant)>,
    /// What is wrong with the files, as far as it has been said.
    told: Option<String>,
    /// When the expiry was last warned of.
    warned: Option<Instant>,
}

/// What one look at the files led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// The files hold what is in use.
    Unchanged,
    /// They held something else, which is in use now.
    Replaced,
    /// They hold something else, and what was in use stays in use.
    Kept,
}

impl CertificateKeeper {
    pub(super) fn new(flocker: Flocker) -> Self {
        Self {
            flocker,
            refused: None,
            told: None,
            warned: None,
        }
    }

    /// Looks after the certificates for ever.
    pub async fn run(mut self) {
        loop {
            self.look().await;
            sleep(LOOK_EVERY).await;
        }
    }

    /// Looks at the files once, and takes up what they hold if it can be used.
    pub async fn look(&mut self) -> Look {
        let current = self.flocker.credentials();
        let load = || {
            let current = current.clone();
            move || current.changed_on_disk().then(|| current.load_again())
        };
        let looked = match blocking(load()).await {
            None => Look::Unchanged,
            Some(found) => self.found(&current, found).await,
        };
        self.warn_of_expiry();
        looked
    }

    async fn found(&mut self, current: &Credentials, found: Result<Credentials, CredentialsError>) -> Look {
        let new = match found {
            Ok(new) => new,
            Err(error) => return self.keep(chain(&error)),
        };
        if new.same_as(current) {
            self.told = None;
            self.flocker.found_again(new);
            return Look::Unchanged;
        }
        let refused = self.refused.as_ref();
        if refused.is_some_and(|(refused, until)| new.same_as(refused) && Instant::now() < *until) {
            return Look::Kept;
        }
        match self.show(&new).await {
            Ok(()) => {
                self.refused = None;
                self.told = None;
                self.warned = None;
                tracing::info!(
                    "The certificates for Flocker were replaced: the new ones of user {} are in use, and valid until {}",
                    new.user(),
                    date(new.not_after())
                );
                Look::Replaced
            }
            Err(error @ (Error::Tls { .. } | Error::Certificate { .. } | Error::Invalid { .. })) => {
                self.refused = Some((new, Instant::now() + SHOW_AGAIN));
                self.keep(chain(&error))
            }
            // Nothing can be said about them while Flocker does not answer.
            Err(error) => {
                tracing::debug!(error = %chain(&error), "New certificates for Flocker could not be tried yet");
                Look::Kept
            }
        }
    }

    /// Makes a request with new certificates, and has them used if the control service answers, whatever it says.
    async fn show(&self, new: &Credentials) -> Result<(), Error> {
        let settings = self.flocker.settings_with(new.clone());
        let client = flocker::make(settings.clone()).await?;
        match client.version().await {
            // Its connection is the one that is used from here on.
            Ok(_) | Err(Error::Status { .. } | Error::Decode { .. }) => {
                self.flocker.replace(settings, client);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn keep(&mut self, problem: String) -> Look {
        if self.told.as_ref() != Some(&problem) {
            let until = date(self.flocker.credentials().not_after());
            tracing::warn!(
                "The certificates for Flocker were replaced by some that cannot be used, so those from before stay in \
                 use, which are valid until {until}: {problem}"
            );
            self.told = Some(problem);
        }
        Look::Kept
    }

    fn warn_of_expiry(&mut self) {
        let credentials = self.flocker.credentials();
        let days = credentials.days_left(SystemTime::now());
        if days >= WARN_BELOW || self.warned.is_some_and(|warned| warned.elapsed() < WARN_EVERY) {
            return;
        }
        self.warned = Some(Instant::now());
        let until = date(credentials.not_after());
        let advice = "put new ones in the place of the files, and they are taken up without a restart";
        if days < 0 {
            tracing::warn!("The certificates for Flocker expired on {until}: {advice}");
        } else {
            tracing::warn!("The certificates for Flocker expire in {days} days, on {until}: {advice}");
        }
    }
}

fn date(moment: SystemTime) -> impl std::fmt::Display {
    humantime::format_rfc3339_seconds(moment)
}
