//! The id under which a client wants its request in the log: the header `X-Eliot-Task-Id`, `UUID@/LEVEL`.
//!
//! Flocker logs every step of the request under it. Here it is one line, and what is no such id is ignored, as there.

use axum::http::{HeaderMap, Method, StatusCode};
use tracing::debug;
use uuid::Uuid;

const HEADER: &str = "x-eliot-task-id";
/// The levels of Eliot's tasks have no limit; a line has.
const LONGEST: usize = 128;

/// Returns the id of the task that a request belongs to.
pub(super) fn task_id(headers: &HeaderMap) -> Option<String> {
    let id = headers.get(HEADER)?.to_str().ok()?;
    let (task, level) = id.split_once('@')?;
    let is_level = |byte: u8| byte.is_ascii_digit() || byte == b'/';
    let well_formed = Uuid::try_parse(task).is_ok() && level.bytes().all(is_level);
    (well_formed && id.len() <= LONGEST).then(|| id.to_owned())
}

/// Logs the end of a request that belongs to a task.
pub(super) fn log(task: &str, method: &Method, path: &str, status: StatusCode) {
    debug!(
        eliot.task_id = task,
        http.path = path,
        http.status = status.as_u16(),
        "{method} {path} of a task of the client was answered with {status}"
    );
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn only_an_id_of_eliot_is_one() {
        let of = |value: &'static str| {
            let value = HeaderValue::from_static(value);
            task_id(&HeaderMap::from_iter([(HEADER.parse().unwrap(), value)]))
        };
        let id = "0af76519-16cd-43dd-8448-eb211c80319c@/1/2";
        assert_eq!(of(id).as_deref(), Some(id));
        for garbage in [
            "",
            "@",
            "0af76519-16cd-43dd-8448-eb211c80319c",
            "x@/1",
            "0af76519-16cd-43dd-8448-eb211c80319c@/a",
        ] {
            assert_eq!(of(garbage), None, "{garbage}");
        }
        assert_eq!(task_id(&HeaderMap::new()), None);
    }
}
