//! `state`: what the agents last reported. Also the routes whose answers never change.

use std::path::PathBuf;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::json;
use uuid::Uuid;

use super::context::Api;
use super::reply::{Refusal, with_json};
use crate::cluster::SeenDataset;
use crate::faults::Flicker;
use crate::store::Configuration;

/// The release whose API this is, with a suffix that distinguishes it from a real one.
const VERSION: &str = concat!("1.15.0+embedded.", env!("CARGO_PKG_VERSION"));

/// A dataset as the agents see it: without `path` and `primary` if no node has it mounted.
#[derive(Serialize)]
struct DatasetStateBody {
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<PathBuf>,
    dataset_id: Uuid,
    maximum_size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    primary: Option<Uuid>,
}

#[derive(Serialize)]
struct NodeBody {
    host: String,
    uuid: Uuid,
}

pub(super) async fn version() -> Response {
    with_json(StatusCode::OK, &json!({"flocker": VERSION}))
}

pub(super) async fn no_containers() -> Response {
    with_json(StatusCode::OK, &json!([]))
}

pub(super) async fn datasets(State(api): State<Arc<Api>>) -> Response {
    let mut seen = api.cluster.datasets();
    match api.faults.flicker() {
        Flicker::Off => {}
        Flicker::Unsettled => {
            let configured = api.store.snapshot();
            seen.retain(|dataset| is_settled(dataset, &configured.configuration));
        }
        Flicker::All => seen.clear(),
    }
    let list: Vec<_> = seen
        .into_iter()
        .map(|dataset| {
            let (primary, path) = dataset.mounted.unzip();
            DatasetStateBody {
                path,
                dataset_id: dataset.id,
                maximum_size: dataset.size,
                primary,
            }
        })
        .collect();
    with_json(StatusCode::OK, &list)
}

fn is_settled(seen: &SeenDataset, configuration: &Configuration) -> bool {
    let wanted = configuration
        .datasets
        .get(&seen.id)
        .filter(|dataset| !dataset.deleted)
        .map(|dataset| dataset.primary);
    let node = seen.mounted.as_ref().map(|(node, _)| *node);
    node.is_some() && node == wanted
}

pub(super) async fn nodes(State(api): State<Arc<Api>>) -> Response {
    let reporting = api
        .nodes
        .iter()
        .filter(|node| api.cluster.has_reported(node.uuid));
    let list: Vec<_> = reporting
        .map(|node| NodeBody {
            host: node.host(),
            uuid: node.uuid,
        })
        .collect();
    with_json(StatusCode::OK, &list)
}

pub(super) async fn node_by_era(State(api): State<Arc<Api>>, Path(era): Path<String>) -> Response {
    let Ok(era) = Uuid::parse_str(&era) else {
        return Refusal::Bug.into_response();
    };
    match api.cluster.node_of_era(era) {
        Some(node) => with_json(StatusCode::OK, &json!({"uuid": node})),
        None => Refusal::NoSuchEra.into_response(),
    }
}
