//! What goes wrong with requests.

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{MatchedPath, Request};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio_util::sync::CancellationToken;

use super::control::{Faults, Met};
use super::rules::{Effect, RequestFault};

/// Marks an answer that the client is not to get; its connection is closed instead.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lost;

/// Carries out a request as the plan has it. Its body has been read before.
pub(crate) async fn inject(faults: Faults, end: CancellationToken, request: Request, next: Next) -> Response {
    if !faults.has_rules() {
        return next.run(request).await;
    }
    let (head, body) = request.into_parts();
    // The body is in memory already, so there is nothing that could fail or be too long.
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
    let met = faults.meet(applies);
    let request = Request::from_parts(head, Body::from(body));
    let Some(met) = met else {
        return next.run(request).await;
    };
    tracing::debug!(rule = met.name, effect = ?met.effect, "A request meets a fault");
    // A client that gives up does not stop what the control service has received, so neither does it here.
    let meeting = tokio::spawn(end.run_until_cancelled_owned(meet(faults, met, request, next)));
    match meeting.await {
        Ok(Some(response)) => response,
        Ok(None) | Err(_) => lost(),
    }
}

async fn meet(faults: Faults, met: Met, request: Request, next: Next) -> Response {
    match &met.effect {
        Effect::Delay(time) => {
            faults.count(&met);
            tokio::time::sleep(*time).await;
            next.run(request).await
        }
        Effect::Answer { status, body } => {
            faults.count(&met);
            let status = StatusCode::from_u16(*status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            (status, [(header::CONTENT_TYPE, "application/json")], body.clone()).into_response()
        }
        Effect::LoseRequest => {
            faults.count(&met);
            lost()
        }
        Effect::LoseReply => {
            next.run(request).await;
            faults.count(&met);
            lost()
        }
        Effect::HoldRequest => {
            faults.count(&met);
            faults.until_removed(&met).await;
            next.run(request).await
        }
        Effect::HoldReply => {
            let response = next.run(request).await;
            faults.count(&met);
            faults.until_removed(&met).await;
            response
        }
    }
}

fn contains(body: &Bytes, text: &str) -> bool {
    String::from_utf8_lossy(body).contains(text)
}

fn lost() -> Response {
    let mut response = StatusCode::SERVICE_UNAVAILABLE.into_response();
    response.extensions_mut().insert(Lost);
    response
}
