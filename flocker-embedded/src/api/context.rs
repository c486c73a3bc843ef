//! What the handlers work on.

use std::io;
use std::sync::Arc;

use axum::response::{IntoResponse, Response};
use tokio::sync::Mutex;

use super::answer_time::AnswerTime;
use super::reply::{Refusal, broken};
use crate::cluster::Cluster;
use crate::faults::Faults;
use crate::options::NodeInfo;
use crate::store::{Purpose, Store, Transaction};

/// What the handlers work on.
pub(crate) struct Api {
    pub(crate) store: Arc<Store>,
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) nodes: Vec<NodeInfo>,
    pub(crate) faults: Faults,
    pub(crate) answer_time: AnswerTime,
    /// Held while a change is written, so that tasks that wait for their turn do not each block a thread.
    pub(crate) writing: Mutex<()>,
}

impl Api {
    /// Carries out a change, or returns the answer with the reason for refusing it.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        (action, purpose): (&'static str, Purpose),
        change: impl FnOnce(&mut Transaction<'_>) -> io::Result<Result<T, Refusal>> + Send + 'static,
    ) -> Result<T, Response> {
        let _writing = self.writing.lock().await;
        let store = Arc::clone(&self.store);
        let outcome = tokio::task::spawn_blocking(move || store.update(purpose, change)).await;
        match outcome.map_err(io::Error::other) {
            Ok(Ok(outcome)) => outcome.map_err(IntoResponse::into_response),
            Ok(Err(error)) | Err(error) => Err(broken(action, &error)),
        }
    }
}
