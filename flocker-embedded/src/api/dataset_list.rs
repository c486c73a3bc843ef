//! `configuration/datasets`: the list, which is sent while it is read.
//!
//! Datasets that were deleted long ago are not kept in memory. A client that does not know the extension `tombstones` gets
//! them nevertheless, from the database, a part at a time and in their place among the others.

use std::io;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::stream::try_unfold;
use tokio::task::spawn_blocking;
use uuid::Uuid;

use super::context::Api;
use super::datasets::DatasetBody;
use super::extensions::knows_tombstones;
use super::json;
use super::reply::{broken, with_json};
use crate::store::{Dataset, Snapshot, Store};

const TAG: &str = "X-Configuration-Tag";
/// How many deleted datasets are read at a time.
const PART: usize = 500;

pub(super) async fn list(State(api): State<Arc<Api>>, headers: HeaderMap) -> Response {
    let snapshot = api.store.snapshot();
    let tag = HeaderValue::from_str(&snapshot.tag).ok();
    let datasets = &snapshot.configuration.datasets;
    let has_all = snapshot.datasets == datasets.len() as u64;
    let mut response = if has_all || knows_tombstones(&headers) {
        let list: Vec<_> = datasets
            .iter()
            .map(|(id, dataset)| DatasetBody::new(*id, dataset))
            .collect();
        with_json(StatusCode::OK, &list)
    } else {
        with_deleted(&api.store, snapshot).await
    };
    if let Some(tag) = tag.filter(|_| response.status().is_success()) {
        response.headers_mut().insert(TAG, tag);
    }
    response
}

/// Answers with all datasets, deleted ones included.
async fn with_deleted(store: &Arc<Store>, snapshot: Arc<Snapshot>) -> Response {
    let mut whole = WholeList {
        store: Arc::clone(store),
        snapshot,
        after: None,
        is_complete: false,
    };
    // A failure of the first part is answered as one.
    let first = match whole.next_part().await {
        Ok(part) => part,
        Err(error) => return broken("list the datasets", &error),
    };
    let parts = try_unfold((Some(first), whole), async |(first, mut whole)| {
        let part = match first {
            Some(first) => first,
            None => whole.next_part().await.inspect_err(|error| {
                tracing::error!(%error, "Cannot list the datasets to their end");
            })?,
        };
        Ok::<_, io::Error>(part.map(|part| (part, (None, whole))))
    });
    let body = Body::from_stream(parts);
    (StatusCode::OK, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// A list of all datasets that is being sent.
struct WholeList {
    store: Arc<Store>,
    /// What was configured at the start. What is deleted later is shown as it was then.
    snapshot: Arc<Snapshot>,
    /// The last id that was sent.
    after: Option<Uuid>,
    is_complete: bool,
}

impl WholeList {
    /// Returns the next part of the list's text; `None` after the last one.
    async fn next_part(&mut self) -> io::Result<Option<Vec<u8>>> {
        if self.is_complete {
            return Ok(None);
        }
        let (store, snapshot, after) = (Arc::clone(&self.store), Arc::clone(&self.snapshot), self.after);
        let (text, last) = spawn_blocking(move || read_part(&store, &snapshot, after))
            .await
            .map_err(io::Error::other)??;
        self.is_complete = last.is_none();
        self.after = last;
        Ok(Some(text))
    }
}

/// Returns the text of a part of the list, and the id that it ends with, if more may follow.
fn read_part(store: &Store, snapshot: &Snapshot, after: Option<Uuid>) -> io::Result<(Vec<u8>, Option<Uuid>)> {
    let deleted = store.deleted_after(after, PART)?;
    let last = deleted
        .last()
        .map(|(id, _)| *id)
        .filter(|_| deleted.len() == PART);
    let kept = snapshot.configuration.datasets.iter();
    let is_in_part = |id: Uuid| after.is_none_or(|after| id > after) && last.is_none_or(|last| id <= last);
    let kept = kept
        .filter(|(id, _)| is_in_part(**id))
        .map(|(id, dataset)| (*id, &**dataset));
    let hidden = deleted
        .iter()
        .filter(|(id, _)| !snapshot.configuration.datasets.contains_key(id));
    let mut part: Vec<(Uuid, &Dataset)> = hidden.map(|(id, dataset)| (*id, dataset)).chain(kept).collect();
    part.sort_unstable_by_key(|(id, _)| *id);

    let mut text = Vec::new();
    let mut separator: &[u8] = if after.is_none() { b"[" } else { b", " };
    for (id, dataset) in &part {
        text.extend_from_slice(separator);
        text.append(&mut json::render(&DatasetBody::new(*id, dataset))?);
        separator = b", ";
    }
    if last.is_none() {
        if part.is_empty() && after.is_none() {
            text.push(b'[');
        }
        text.push(b']');
    }
    Ok((text, last))
}
