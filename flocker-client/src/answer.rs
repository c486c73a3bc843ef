//! Reads an answer of the control service: a value, or one of the forms of a failure.

use std::{ops::Deref, time::SystemTime};

use reqwest::{Response, StatusCode, header};
use serde::de::{self, DeserializeOwned, IgnoredAny};

use crate::{
    Error,
    endpoint::Endpoint,
    entry::{Entry, decode_entry},
    error::{
        ApiCall, DecodeError, Target, excerpt, failed_request, is_json, is_markup, one_line, unsuccessful,
    },
};

/// The maximum length of an answer in bytes. A list of 100,000 datasets with much metadata is shorter.
pub(crate) const BODY_LIMIT: usize = 64 << 20;

/// The maximum number of bytes that are read of an answer that reports no success.
const FAILURE_LIMIT: usize = 64 << 10;

/// The maximum length of the reason why an answer cannot be decoded, in characters.
const REASON_LIMIT: usize = 200;

/// The header that carries the configuration's tag.
const TAG: &str = "X-Configuration-Tag";

/// Status and headers of an answer.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub(crate) status: StatusCode,
    pub(crate) content_type: Option<String>,
    pub(crate) tag: Option<String>,
    pub(crate) date: Option<String>,
}

impl Head {
    /// Whether what follows may be what `call` asked for.
    pub(crate) fn is_json_of_success(&self, call: &ApiCall) -> bool {
        call.endpoint().success_statuses().contains(&self.status.as_u16())
            && is_json(self.content_type.as_deref())
    }

    pub(crate) fn of(response: &Response) -> Self {
        let header = |name: &str| {
            let value = response.headers().get(name)?;
            value.to_str().ok().map(ToOwned::to_owned)
        };
        Self {
            status: response.status(),
            content_type: header(header::CONTENT_TYPE.as_str()),
            tag: header(TAG),
            date: header(header::DATE.as_str()),
        }
    }
}

/// An answer that reports success and has arrived in full.
#[derive(Debug)]
pub(crate) struct Answer {
    call: ApiCall,
    status: StatusCode,
    date: Option<String>,
    body: Vec<u8>,
}

impl Answer {
    /// Reads a response to its end; every status but those of success becomes an error.
    pub(crate) async fn read(target: &Target, call: ApiCall, response: Response) -> Result<Self, Error> {
        let head = Head::of(&response);
        let body = read_body(target, &call, response, limit_of(head.status)).await?;
        Self::from_parts(call, head, body)
    }

    /// Makes an answer of its parts.
    pub(crate) fn from_parts(call: ApiCall, head: Head, body: Body) -> Result<Self, Error> {
        let Head {
            status,
            content_type,
            tag: _,
            date,
        } = head;
        let content_type = content_type.as_deref();
        if !status.is_success() {
            return Err(unsuccessful(call, status.as_u16(), content_type, &body));
        }
        match success(call.endpoint(), status, content_type, body) {
            Ok(body) => Ok(Self {
                call,
                status,
                date,
                body,
            }),
            Err(source) => Err(Error::Decode {
                call: Box::new(call),
                source,
            }),
        }
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    /// Returns the time of the service's clock at which it answered, if it says that.
    pub(crate) fn date(&self) -> Option<SystemTime> {
        httpdate::parse_http_date(self.date.as_deref()?).ok()
    }

    /// Decodes the body.
    pub(crate) fn decode<T: DeserializeOwned>(self) -> Result<T, Error> {
        let decoded = decode(&self.body);
        decoded.map_err(|source| Error::Decode {
            call: Box::new(self.call),
            source,
        })
    }

    /// Decodes the body as an entry, and fails if `mismatch` names a field that contradicts the request: then the answer
    /// belongs to another request.
    pub(crate) fn decode_entry<T: Entry>(
        self,
        mismatch: impl FnOnce(&T) -> Option<&'static str>,
    ) -> Result<T, Error> {
        let decoded = decode_entry(&self.body).and_then(|value| match mismatch(&value) {
            None => Ok(value),
            Some(field) => Err(DecodeError::Mismatch { field }),
        });
        decoded.map_err(|source| Error::Decode {
            call: Box::new(self.call),
            source,
        })
    }

    /// Decodes the body as a list, which it is not: returns why.
    pub(crate) fn refuse_list(self) -> Error {
        let source = match serde_json::from_slice::<Vec<IgnoredAny>>(&self.body) {
            Ok(_) => DecodeError::Unended,
            Err(error) => DecodeError::at("", &self.body, error),
        };
        Error::Decode {
            call: Box::new(self.call),
            source,
        }
    }
}

/// Returns the body of an answer with a status of success, if Flocker may have sent it.
fn success(
    endpoint: Endpoint,
    status: StatusCode,
    content_type: Option<&str>,
    body: Body,
) -> Result<Vec<u8>, DecodeError> {
    let body = match body {
        Body::Whole(body) => body,
        Body::Cut(_) => return Err(DecodeError::TooLong { limit: BODY_LIMIT }),
    };
    let status = status.as_u16();
    if is_markup(&body) {
        Err(DecodeError::Html)
    } else if !endpoint.success_statuses().contains(&status) {
        Err(DecodeError::Status { status })
    } else if !is_json(content_type) {
        let content_type = one_line(content_type.unwrap_or("none"), 80);
        Err(DecodeError::NotJson { content_type })
    } else {
        Ok(body)
    }
}

/// The part of a body that has been read.
pub(crate) enum Body {
    /// All of it.
    Whole(Vec<u8>),
    /// The beginning, because it is longer than the limit.
    Cut(Vec<u8>),
}

async fn read_body(
    target: &Target,
    call: &ApiCall,
    mut response: Response,
    limit: usize,
) -> Result<Body, Error> {
    let mut body = Vec::new();
    while let Some(chunk) = next_chunk(target, call, &mut response).await? {
        if chunk.len() > limit - body.len() {
            return Ok(Body::Cut(body));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Body::Whole(body))
}

/// Returns how many bytes are read of an answer with this status.
pub(crate) fn limit_of(status: StatusCode) -> usize {
    if status.is_success() {
        BODY_LIMIT
    } else {
        FAILURE_LIMIT
    }
}

/// Returns the next bytes of an answer's body.
pub(crate) async fn next_chunk(
    target: &Target,
    call: &ApiCall,
    response: &mut Response,
) -> Result<Option<impl Deref<Target = [u8]> + use<>>, Error> {
    let chunk = response.chunk().await;
    chunk.map_err(|error| failed_request(target, call.clone(), error))
}

/// Decodes the text of an answer.
fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, DecodeError> {
    serde_json::from_slice(body).map_err(|error| {
        // Recording the path takes time, so only a body that cannot be decoded is decoded again with it.
        let mut parser = serde_json::Deserializer::from_slice(body);
        let (field, source) = match serde_path_to_error::deserialize::<_, T>(&mut parser) {
            Ok(_) => (".".to_owned(), error),
            Err(error) => (error.path().to_string(), error.into_inner()),
        };
        DecodeError::at(&field, body, source)
    })
}

impl DecodeError {
    /// Makes the error of a parser at the value `field` of an answer, whose text is `body`.
    pub(crate) fn at(field: &str, body: &[u8], source: serde_json::Error) -> Self {
        let field = if field.is_empty() { "." } else { field };
        Self::Field {
            field: one_line(field, 80),
            excerpt: excerpt(body, source.line(), source.column()),
            source: shortened(source),
        }
    }
}

/// Limits the length of a reason, which repeats the value that it is about: that may be all of the answer.
fn shortened(error: serde_json::Error) -> serde_json::Error {
    let reason = error.to_string();
    if reason.len() <= REASON_LIMIT && !reason.contains(char::is_control) {
        return error;
    }
    de::Error::custom(one_line(&reason, REASON_LIMIT))
}
