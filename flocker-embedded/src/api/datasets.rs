//! `configuration/datasets`: what clients want, whether or not it is possible.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::ser::Error as _;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::context::Api;
use super::extensions::knows_tombstones;
use super::reply::{Refusal, TakenBy, with_json};
use super::schema;
use crate::store::{Dataset, Purpose, Size, Transaction};

const CONDITION: &str = "X-If-Configuration-Matches";

/// A dataset as the control service shows it.
#[derive(Serialize)]
pub(super) struct DatasetBody<'a> {
    deleted: bool,
    dataset_id: Uuid,
    #[serde(skip_serializing_if = "Option::is_none")]
    maximum_size: Option<SizeBody<'a>>,
    primary: Uuid,
    metadata: &'a BTreeMap<String, String>,
}

impl<'a> DatasetBody<'a> {
    pub(super) fn new(dataset_id: Uuid, dataset: &'a Dataset) -> Self {
        Self {
            deleted: dataset.deleted,
            dataset_id,
            maximum_size: dataset.maximum_size.as_ref().map(SizeBody),
            primary: dataset.primary,
            metadata: &dataset.metadata,
        }
    }
}

/// A size, which is a number however long it is.
struct SizeBody<'a>(&'a Size);

impl Serialize for SizeBody<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Size::Bytes(size) => serializer.serialize_u64(*size),
            Size::Long(digits) => {
                let number = RawValue::from_string(digits.clone()).map_err(S::Error::custom)?;
                number.serialize(serializer)
            }
        }
    }
}

pub(super) async fn create(State(api): State<Arc<Api>>, headers: HeaderMap, body: Bytes) -> Response {
    let request = TagCondition::of(&headers)
        .check(&api.store.snapshot().tag)
        .and_then(|()| schema::create_dataset(&body))
        .and_then(|request| {
            if request.deleted {
                Err(Refusal::Bug)
            } else {
                Ok(request)
            }
        });
    let request = match request {
        Ok(request) => request,
        Err(refusal) => return refusal.into_response(),
    };
    let dataset_id = request.dataset_id.unwrap_or_else(Uuid::new_v4);
    let dataset = Dataset {
        primary: request.primary,
        deleted: false,
        maximum_size: request.maximum_size,
        metadata: request.metadata,
    };
    let describes = knows_tombstones(&headers);
    let change = (StatusCode::CREATED, Purpose::Growth);
    api.change_dataset(change, dataset_id, &headers, move |transaction| {
        if let Some(taken) = transaction.dataset(dataset_id)? {
            let by = if describes {
                Some(TakenBy::find(transaction, &taken)?)
            } else {
                None
            };
            return Ok(Err(Refusal::DatasetIdInUse(by)));
        }
        Ok(Ok(dataset))
    })
    .await
}

/// Changes the primary, the only change that an update can make.
pub(super) async fn relocate(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let checked = TagCondition::of(&headers)
        .check(&api.store.snapshot().tag)
        .and_then(|()| schema::update_dataset(&body))
        .and_then(|primary| Ok((dataset_id(&id)?, primary)));
    let (dataset_id, primary) = match checked {
        Ok(checked) => checked,
        Err(refusal) => return refusal.into_response(),
    };
    let change = (StatusCode::OK, Purpose::Upkeep);
    api.change_dataset(change, dataset_id, &headers, move |transaction| {
        let Some(found) = transaction.dataset(dataset_id)? else {
            return Ok(Err(Refusal::DatasetNotFound));
        };
        if found.deleted {
            return Ok(Err(Refusal::DatasetDeleted));
        }
        Ok(Ok(Dataset {
            primary: primary.unwrap_or(found.primary),
            ..Dataset::clone(&found)
        }))
    })
    .await
}

/// Marks a dataset as deleted; repeating it is allowed.
pub(super) async fn delete(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Response {
    let checked = TagCondition::of(&headers)
        .check(&api.store.snapshot().tag)
        .and_then(|()| dataset_id(&id));
    let dataset_id = match checked {
        Ok(dataset_id) => dataset_id,
        Err(refusal) => return refusal.into_response(),
    };
    let change = (StatusCode::OK, Purpose::Upkeep);
    api.change_dataset(change, dataset_id, &headers, move |transaction| {
        let found = transaction.dataset(dataset_id)?;
        let deleted = found.map(|found| Dataset {
            deleted: true,
            ..Dataset::clone(&found)
        });
        Ok(deleted.ok_or(Refusal::DatasetNotFound))
    })
    .await
}

impl Api {
    /// Stores the dataset that `change` makes, if the client's condition still holds, and answers with it.
    async fn change_dataset(
        &self,
        (status, purpose): (StatusCode, Purpose),
        dataset_id: Uuid,
        headers: &HeaderMap,
        change: impl FnOnce(&Transaction<'_>) -> io::Result<Result<Dataset, Refusal>> + Send + 'static,
    ) -> Response {
        let condition = TagCondition::of(headers);
        let changed = self.write(("record a dataset", purpose), move |transaction| {
            if let Err(refusal) = condition.check(transaction.tag()) {
                return Ok(Err(refusal));
            }
            match change(transaction)? {
                Ok(dataset) => transaction.put_dataset(dataset_id, dataset).map(Ok),
                Err(refusal) => Ok(Err(refusal)),
            }
        });
        match changed.await {
            Ok(dataset) => with_json(status, &DatasetBody::new(dataset_id, &dataset)),
            Err(response) => response,
        }
    }
}

impl TakenBy {
    /// Describes the dataset that has an id.
    fn find(transaction: &Transaction<'_>, dataset: &Dataset) -> io::Result<Self> {
        let highest = if dataset.deleted {
            transaction.highest_deleted(dataset)?
        } else {
            None
        };
        Ok(Self {
            deleted: dataset.deleted,
            highest_deleted: highest,
        })
    }
}

/// Reads the id in a path, which must be spelled exactly as in a list.
fn dataset_id(text: &str) -> Result<Uuid, Refusal> {
    Uuid::parse_str(text)
        .ok()
        .filter(|id| id.to_string() == text)
        .ok_or(Refusal::DatasetNotFound)
}

/// The tags that the client accepts as the current one; any if empty.
struct TagCondition(Vec<String>);

impl TagCondition {
    fn of(headers: &HeaderMap) -> Self {
        let tags = headers.get_all(CONDITION).iter();
        Self(
            tags.map(|tag| String::from_utf8_lossy(tag.as_bytes()).into_owned())
                .collect(),
        )
    }

    fn check(&self, current: &str) -> Result<(), Refusal> {
        if self.0.is_empty() || self.0.iter().any(|tag| tag == current) {
            return Ok(());
        }
        Err(Refusal::TagMismatch {
            required: self.0.join(", "),
            current: current.to_owned(),
        })
    }
}
