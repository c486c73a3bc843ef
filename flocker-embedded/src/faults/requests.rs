//! The effects of rules on requests.

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{MatchedPath, Request};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio_util::sync::CancellationToken;

use super::control::{Faults, MatchedRule};
use super::request_faults::{Effect, RequestFault};

/// Marks an answer that the client must not receive; its connection is closed instead.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lost;

/// Carries out a request as the plan says. Its body has been read before.
pub(crate) async fn inject(faults: Faults, end: CancellationToken, request: Request, next: Next) -> Response {
    if !faults.has_rules() {
        return next.run(request).await;
    }
    let (head, body) = request.into_parts();
    // The body is in memory already, so reading it neither fails nor exceeds a limit.
    let body = to_bytes(body, usize::MAX).await.unwrap_or_default();
    let route = head.extensions.get::<MatchedPath>().map(MatchedPath::as_str);
    let applies = |rule: &RequestFault| {
        rule.method
            .as_deref()
            .is_none_or(|method| method == head.method.as_str())
            && rule.route.as_deref().is_none_or(|wanted| Some(wanted) == route)
            && rule
                .containing
                .as_deref()
                .is_none_or(|text| head.uri.path().contains(text) || contains(&body, text))
    };
    let fault = faults.match_rule(applies);
    let request = Request::from_parts(head, Body::from(body));
    let Some(fault) = fault else {
        return next.run(request).await;
    };
    tracing::debug!(rule = fault.name, effect = ?fault.effect, "A fault applies to a request");
    // A client that disconnects does not stop what the control service has received, so it does not here either.
    let response = tokio::spawn(end.run_until_cancelled_owned(apply(faults, fault, request, next)));
    match response.await {
        Ok(Some(response)) => response,
        Ok(None) | Err(_) => lost(),
    }
}

async fn apply(faults: Faults, fault: MatchedRule, request: Request, next: Next) -> Response {
    match &fault.effect {
        Effect::Delay(time) => {
            faults.count(&fault);
            tokio::time::sleep(*time).await;
            next.run(request).await
        }
        Effect::Answer { status, body } => {
            faults.count(&fault);
            let status = StatusCode::from_u16(*status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            (status, [(header::CONTENT_TYPE, "application/json")], body.clone()).into_response()
        }
        Effect::AddToList(elements) => {
            let response = next.run(request).await;
            faults.count(&fault);
            with_elements(response, elements).await
        }
        Effect::LoseRequest => {
            faults.count(&fault);
            lost()
        }
        Effect::LoseReply => {
            next.run(request).await;
            faults.count(&fault);
            lost()
        }
        Effect::HoldRequest => {
            faults.count(&fault);
            faults.until_removed(&fault).await;
            next.run(request).await
        }
        Effect::HoldReply => {
            let response = next.run(request).await;
            faults.count(&fault);
            faults.until_removed(&fault).await;
            response
        }
    }
}

/// Adds elements to the list in an answer.
async fn with_elements(response: Response, elements: &[String]) -> Response {
    let (head, body) = response.into_parts();
    let list = to_bytes(body, usize::MAX).await.unwrap_or_default();
    let list = list.strip_suffix(b"]").unwrap_or(&list);
    let separator: &[u8] = if list == b"[" || elements.is_empty() {
        b""
    } else {
        b", "
    };
    let added = elements.join(", ");
    let list = [list, separator, added.as_bytes(), b"]"].concat();
    Response::from_parts(head, Body::from(list))
}

fn contains(body: &Bytes, text: &str) -> bool {
    String::from_utf8_lossy(body).contains(text)
}

fn lost() -> Response {
    let mut response = StatusCode::SERVICE_UNAVAILABLE.into_response();
    response.extensions_mut().insert(Lost);
    response
}
