//! `configuration/leases`: one per dataset, held by a node. Only the agents enforce them.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use uuid::Uuid;

use super::context::Api;
use super::reply::{Refusal, with_json};
use super::schema;
use crate::store::{Lease, Purpose, now};

/// The first moment after the year 9999, in seconds since 1970: the control service cannot express later dates.
const END_OF_TIME: f64 = 253_402_300_800.0;
/// The first moment of the year 1.
const START_OF_TIME: f64 = -62_135_596_800.0;

/// A lease as the control service shows it.
#[derive(Serialize)]
struct LeaseBody {
    dataset_id: Uuid,
    node_uuid: Uuid,
    /// The remaining seconds.
    expires: Option<f64>,
}

impl LeaseBody {
    fn new(dataset_id: Uuid, lease: &Lease, now: f64) -> Self {
        Self {
            dataset_id,
            node_uuid: lease.node,
            expires: lease.remaining(now),
        }
    }
}

pub(super) async fn list(State(api): State<Arc<Api>>) -> Response {
    let now = now();
    let snapshot = api.store.snapshot();
    let leases = snapshot.configuration.leases.iter();
    let list: Vec<_> = leases
        .map(|(id, lease)| LeaseBody::new(*id, lease, now))
        .collect();
    with_json(StatusCode::OK, &list)
}

pub(super) async fn acquire(State(api): State<Arc<Api>>, body: Bytes) -> Response {
    let request = schema::acquire_lease(&body).and_then(|request| {
        Ok((
            Uuid::parse_str(&request.dataset_id).map_err(|_| Refusal::Bug)?,
            request,
        ))
    });
    let (dataset_id, request) = match request {
        Ok(request) => request,
        Err(refusal) => return refusal.into_response(),
    };
    let expires = request.expires.map(|seconds| now() + seconds);
    if expires.is_some_and(|end| !(START_OF_TIME..END_OF_TIME).contains(&end)) {
        return Refusal::Bug.into_response();
    }
    let lease = Lease {
        node: request.node,
        expires,
    };
    let renewed = api.write(("record a lease", Purpose::Upkeep), move |transaction| {
        let held = transaction.lease(dataset_id).map(|held| held.node);
        if held.is_some_and(|node| node != lease.node) {
            return Ok(Err(Refusal::LeaseHeld));
        }
        transaction.put_lease(dataset_id, Some(lease));
        Ok(Ok(held.is_some()))
    });
    match renewed.await {
        Ok(renewed) => {
            let status = if renewed {
                StatusCode::OK
            } else {
                StatusCode::CREATED
            };
            let body = LeaseBody {
                dataset_id,
                node_uuid: lease.node,
                expires: request.expires,
            };
            with_json(status, &body)
        }
        Err(response) => response,
    }
}

pub(super) async fn release(State(api): State<Arc<Api>>, Path(id): Path<String>) -> Response {
    let Ok(dataset_id) = Uuid::parse_str(&id) else {
        return Refusal::Bug.into_response();
    };
    let released = api.write(("release a lease", Purpose::Upkeep), move |transaction| {
        let lease = transaction.lease(dataset_id);
        transaction.put_lease(dataset_id, None);
        Ok(lease.ok_or(Refusal::LeaseNotFound))
    });
    match released.await {
        Ok(lease) => with_json(StatusCode::OK, &LeaseBody::new(dataset_id, &lease, now())),
        Err(response) => response,
    }
}
