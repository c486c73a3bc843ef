//! `configuration/datasets`: what clients want, whether or not it is possible.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::ser::Error as _;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::context::Api;
use super::reply::{Refusal, with_json};
use super::schema;
use crate::store::{self, Dataset, Size};

const TAG: &str = "X-Configuration-Tag";
const CONDITION: &str = "X-If-Configuration-Matches";

/// A dataset as the control service shows it.
#[derive(Serialize)]
struct DatasetBody<'a> {
    deleted: bool,
    dataset_id: Uuid,
    #[serde(skip_serializing_if = "Option::is_none")]
    maximum_size: Option<SizeBody<'a>>,
    primary: Uuid,
    metadata: &'a BTreeMap<String, String>,
}

impl<'a> DatasetBody<'a> {
    fn new(dataset_id: Uuid, dataset: &'a Dataset) -> Self {
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

pub(super) async fn list(State(api): State<Arc<Api>>) -> Response {
    let snapshot = api.store.snapshot();
    let datasets = &snapshot.configuration.datasets;
    let list: Vec<_> = datasets
        .iter()
        .map(|(id, dataset)| DatasetBody::new(*id, dataset))
        .collect();
    let mut response = with_json(StatusCode::OK, &list);
    if let Ok(tag) = HeaderValue::from_str(&snapshot.tag) {
        response.headers_mut().insert(TAG, tag);
    }
    response
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
    api.change_dataset(StatusCode::CREATED, dataset_id, &headers, move |state| {
        if state.configuration.datasets.contains_key(&dataset_id) {
            return Err(Refusal::DatasetIdInUse);
        }
        state.configuration.datasets.insert(dataset_id, dataset);
        Ok(())
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
    api.change_dataset(StatusCode::OK, dataset_id, &headers, move |state| {
        let dataset = dataset_of(state, dataset_id)?;
        if dataset.deleted {
            return Err(Refusal::DatasetDeleted);
        }
        dataset.primary = primary.unwrap_or(dataset.primary);
        Ok(())
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
    api.change_dataset(StatusCode::OK, dataset_id, &headers, move |state| {
        dataset_of(state, dataset_id)?.deleted = true;
        Ok(())
    })
    .await
}

impl Api {
    /// Carries out a change of one dataset, if the client's condition still holds, and answers with the result.
    async fn change_dataset(
        &self,
        status: StatusCode,
        dataset_id: Uuid,
        headers: &HeaderMap,
        change: impl FnOnce(&mut store::State) -> Result<(), Refusal> + Send + 'static,
    ) -> Response {
        let condition = TagCondition::of(headers);
        let changed = self.write("record a dataset", move |state, tag| {
            condition.check(tag)?;
            change(state)?;
            Ok(dataset_of(state, dataset_id)?.clone())
        });
        match changed.await {
            Ok(dataset) => with_json(status, &DatasetBody::new(dataset_id, &dataset)),
            Err(response) => response,
        }
    }
}

fn dataset_of(state: &mut store::State, dataset_id: Uuid) -> Result<&mut Dataset, Refusal> {
    state
        .configuration
        .datasets
        .get_mut(&dataset_id)
        .ok_or(Refusal::DatasetNotFound)
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
