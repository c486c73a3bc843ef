//! What this control service can do beyond Flocker's. A client says in a header which of it it knows, and gets what Flocker
//! answers otherwise.

use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde_json::json;

use super::reply::with_json;

/// The header in which a client lists the extensions that it knows.
const KNOWN: &str = "X-Flocker-Extensions";
/// Datasets that were deleted long ago are not listed, and a conflict says whether the dataset with the id is deleted.
const TOMBSTONES: &str = "tombstones";

pub(super) async fn list() -> Response {
    with_json(StatusCode::OK, &json!({"extensions": [TOMBSTONES]}))
}

/// Whether the client knows the extension `tombstones`.
pub(super) fn knows_tombstones(headers: &HeaderMap) -> bool {
    let lists = headers
        .get_all(KNOWN)
        .iter()
        .filter_map(|list| list.to_str().ok());
    lists
        .flat_map(|list| list.split(','))
        .any(|name| name.trim() == TOMBSTONES)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn an_extension_is_known_if_any_of_the_lists_has_its_whole_name() {
        for (lists, known) in [
            (&[][..], false),
            (&["tombstones"], true),
            (&["growing, tombstones"], true),
            (&["growing", "tombstones,clones"], true),
            (&["tombstones2", ""], false),
        ] {
            let mut headers = HeaderMap::new();
            for list in lists {
                headers.append(KNOWN, HeaderValue::from_static(list));
            }
            assert_eq!(knows_tombstones(&headers), known, "{lists:?}");
        }
    }
}
