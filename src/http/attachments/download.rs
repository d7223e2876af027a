//! `GET /attachments/{key}`: for whoever has the key.
//!
//! What is not there answers alike, whether it never was, is not complete or is gone, and after the same look into the
//! database. A browser that is led here is given nothing to show or to run.

use std::ops::Range;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_SECURITY_POLICY,
    CONTENT_TYPE, ETAG, IF_RANGE, RANGE, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use tokio::sync::mpsc;

use crate::attachments::range::{Wanted, wanted};
use crate::attachments::{AttachmentKey, BlobError, Chunks, entity_tag};
use crate::http::error::ApiError;
use crate::http::etag;
use crate::http::extract::PathParams;
use crate::http::state::{AppState, Node};
use crate::telemetry::metrics;

use super::access::NO_KEY;
use super::body::PACE;

/// `GET /attachments/{key}`
pub(in crate::http) async fn download(
    State(node): State<AppState>,
    PathParams(key): PathParams<String>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let name = AttachmentKey::name_in_path(&key).map_err(|_| NO_KEY)?;
    let found = node.attachments.find(&name).await?.ok_or(ApiError::not_found())?;
    let tag = entity_tag(&name);
    if etag::is_known(&headers, &tag) {
        return Ok(described(StatusCode::NOT_MODIFIED, &tag));
    }
    let length = found.length();
    // A range is one of what is sent, and with HEAD nothing is.
    let part = match method {
        Method::HEAD => Wanted::Whole,
        _ => part(&headers, &tag, length),
    };
    let (status, part) = match part {
        Wanted::Whole => (StatusCode::OK, 0..length),
        Wanted::Part(part) => (StatusCode::PARTIAL_CONTENT, part),
        Wanted::Unsatisfiable => {
            let mut refused = NO_RANGE.into_response();
            insert(refused.headers_mut(), CONTENT_RANGE, &format!("bytes */{length}"));
            return Ok(refused);
        }
    };
    let mut answer = described(status, &tag);
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(part.end - part.start));
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if status == StatusCode::PARTIAL_CONTENT {
        let Range { start, end } = part;
        insert(headers, CONTENT_RANGE, &format!("bytes {start}-{}/{length}", end - 1));
    }
    if method != Method::HEAD {
        let chunks = node.attachments.read(&found, part).await?;
        *answer.body_mut() = pumped(&node, chunks);
    }
    Ok(answer)
}

/// What is wanted of it, if the client's idea of it is still right.
fn part(headers: &HeaderMap, tag: &str, length: u64) -> Wanted {
    let Some(range) = headers.get(RANGE) else {
        return Wanted::Whole;
    };
    if headers
        .get(IF_RANGE)
        .is_some_and(|known| known.as_bytes() != tag.as_bytes())
    {
        return Wanted::Whole;
    }
    if headers.get_all(RANGE).iter().count() > 1 {
        return Wanted::Unsatisfiable;
    }
    wanted(range.as_bytes(), length)
}

fn described(status: StatusCode, tag: &str) -> Response {
    let mut answer = status.into_response();
    let headers = answer.headers_mut();
    insert(headers, ETAG, tag);
    // The bytes never change. A cache that others share could go on serving what has been removed.
    headers.insert(
        CACHE_CONTROL,
        HeaderValue::from_static("private, max-age=31536000, immutable"),
    );
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CONTENT_DISPOSITION, HeaderValue::from_static("attachment"));
    headers.insert(
        CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; sandbox"),
    );
    answer
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// A body that ends, too early, when nobody takes of it for the idle time, and when the server stops: a client goes on from
/// there with another one. Nothing is read ahead but the piece that waits.
fn pumped(node: &Node, mut chunks: Chunks) -> Body {
    let (sender, receiver) = mpsc::channel::<Result<Bytes, BlobError>>(1);
    let (idle, stop): (Duration, _) = (node.attachment_idle, node.stop.clone());
    let pump = async move {
        while let Some(chunk) = chunks.next().await {
            let mut bytes = match chunk {
                Ok(bytes) => bytes,
                Err(error) => {
                    tracing::error!(cause = error.0, "an attachment could not be read to its end");
                    let _ = sender.send_timeout(Err(error), idle).await;
                    return;
                }
            };
            while !bytes.is_empty() {
                let piece = bytes.split_to(PACE.min(bytes.len()));
                metrics::attachment_bytes("out", piece.len());
                if sender.send_timeout(Ok(piece), idle).await.is_err() {
                    return;
                }
            }
        }
    };
    // The body that has lost its other end ends before its length, which is an error to whoever reads it.
    node.tasks.spawn(async move { stop.run_until_cancelled(pump).await });
    Body::from_stream(stream::unfold(receiver, async |mut receiver| {
        Some((receiver.recv().await?, receiver))
    }))
}

const NO_RANGE: ApiError = ApiError::new(
    StatusCode::RANGE_NOT_SATISFIABLE,
    "range",
    "there is no such range, or more than one was asked for",
);
