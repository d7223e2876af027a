//! Uploads by signed `PUT`: whole, or in parts that can be resumed.

use axum::extract::{Request, State};
use axum::http::header::{CONTENT_RANGE, LOCATION, RANGE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use crate::attachments::range::{Brought, brought};
use crate::attachments::{Incoming, Progress};
use crate::http::error::ApiError;
use crate::http::extract::PathParams;
use crate::http::origin::Origin;
use crate::http::state::AppState;

use super::body::{Parts, parts};
use super::{UPLOADS, access, write};

/// `POST /upload/attachments/{capability}`: opens the upload, whose parts go to the URL in the answer.
pub(in crate::http) async fn open(
    State(node): State<AppState>,
    Origin(origin): Origin,
    PathParams(path): PathParams<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let capability = access::for_path(&node.attachments, &path, &headers)?;
    node.attachments.open(&capability, None).await?;
    let location = HeaderValue::from_str(&format!("{origin}{UPLOADS}/{path}"));
    let location = location.map_err(|_| ApiError::unavailable("a URL is no header"))?;
    Ok((StatusCode::CREATED, [(LOCATION, location)]).into_response())
}

/// `PUT /upload/attachments/{capability}`: all of it, a part of it, or the question how far it is.
pub(in crate::http) async fn put(
    State(node): State<AppState>,
    PathParams(path): PathParams<String>,
    request: Request,
) -> Result<Response, ApiError> {
    let Parts {
        headers,
        announced,
        body,
    } = parts(&node, request);
    let capability = access::for_path(&node.attachments, &path, &headers)?;
    let part = match headers.get(CONTENT_RANGE).map(|value| brought(value.as_bytes())) {
        Some(None) => return Err(CONTENT_RANGE_MALFORMED),
        Some(Some(Brought::Question(_))) => return Ok(stand(&node.attachments.progress(&capability).await?)),
        Some(Some(Brought::Part(range, whole))) => {
            let bytes = range.end - range.start;
            if announced.is_some_and(|announced| announced != bytes) {
                return Err(CONTENT_RANGE_MALFORMED);
            }
            // A body that comes in chunks ends where the header says, or is refused.
            Incoming {
                at: range.start,
                length: whole,
                announced: Some(bytes),
                checksum: None,
                body,
            }
        }
        None => {
            let length = announced.ok_or(LENGTH_REQUIRED)?;
            // It may be open already, by a `POST` that did not know the length.
            node.attachments.open(&capability, None).await?;
            Incoming {
                at: 0,
                length: Some(length),
                announced: Some(length),
                checksum: None,
                body,
            }
        }
    };
    let found = node.attachments.progress(&capability).await?;
    if found.upload.stored != part.at || found.complete {
        // The client goes on from where the upload stands.
        return Ok(stand(&found));
    }
    Ok(stand(&write(&node, capability, part).await?))
}

/// 200 if all of it is there, else 308 and what there is.
fn stand(progress: &Progress) -> Response {
    if progress.complete {
        return StatusCode::OK.into_response();
    }
    let mut answer = StatusCode::PERMANENT_REDIRECT.into_response();
    if let Some(last) = progress.upload.stored.checked_sub(1)
        && let Ok(range) = HeaderValue::from_str(&format!("bytes=0-{last}"))
    {
        answer.headers_mut().insert(RANGE, range);
    }
    answer
}

const CONTENT_RANGE_MALFORMED: ApiError = ApiError::bad_request(
    "content_range",
    "Content-Range reads bytes FIRST-LAST/WHOLE or bytes */WHOLE, and the body has as many bytes",
);
const LENGTH_REQUIRED: ApiError = ApiError::new(
    StatusCode::LENGTH_REQUIRED,
    "length_required",
    "say how many bytes the upload has, in Content-Length or Content-Range",
);
