//! Uploads by tus 1.0.0.

use std::time::{Duration, UNIX_EPOCH};

use axum::extract::{Request, State};
use axum::http::header::{CACHE_CONTROL, LOCATION};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use crate::attachments::tus::{EXTENSIONS, HeadersRefused, UploadHeaders, VERSION, parse};
use crate::attachments::{Checksum, Incoming, Progress};
use crate::domain::Timestamp;
use crate::http::error::ApiError;
use crate::http::extract::PathParams;
use crate::http::origin::Origin;
use crate::http::state::AppState;

use super::body::parts;
use super::{UPLOADS, access, write};

/// `OPTIONS /upload/attachments`: what is spoken here.
pub(in crate::http) async fn options(State(node): State<AppState>) -> Response {
    let mut answer = spoken(Ok(StatusCode::NO_CONTENT.into_response()));
    let headers = answer.headers_mut();
    headers.insert(TUS_VERSION, HeaderValue::from_static(VERSION));
    headers.insert(TUS_EXTENSION, HeaderValue::from_static(EXTENSIONS));
    headers.insert(TUS_CHECKSUM_ALGORITHM, HeaderValue::from_static(Checksum::KINDS));
    headers.insert(TUS_MAX_SIZE, HeaderValue::from(node.attachments.limits().max_bytes));
    answer
}

/// `POST /upload/attachments`: opens the upload of a form, and takes its first bytes if there are any.
pub(in crate::http) async fn create(
    State(node): State<AppState>,
    Origin(origin): Origin,
    request: Request,
) -> Response {
    spoken(try_create(&node, &origin, request).await)
}

async fn try_create(node: &AppState, origin: &str, request: Request) -> Result<Response, ApiError> {
    let request = parts(node, request);
    let capability = access::by_header(&node.attachments, &request.headers)?;
    let said = said(&request.headers)?;
    if said.length.is_none() && !said.length_comes_later {
        return Err(ApiError::bad_request(
            "upload_length",
            "give Upload-Length, or Upload-Defer-Length: 1",
        ));
    }
    let mut part = said.carries_bytes.then_some(Incoming {
        at: 0,
        length: said.length,
        announced: request.announced,
        checksum: said.checksum,
        body: request.body,
    });
    if let Some(part) = &mut part {
        part.may_open().await?;
    }
    let mut progress = node.attachments.open(&capability, said.length).await?;
    let location = format!("{origin}{UPLOADS}/{}", capability.key);
    if let Some(part) = part {
        progress = write(node, capability, part).await?;
    }
    let mut answer = StatusCode::CREATED.into_response();
    let location = HeaderValue::from_str(&location).map_err(|_| ApiError::unavailable("a URL is no header"))?;
    answer.headers_mut().insert(LOCATION, location);
    stand(answer.headers_mut(), &progress);
    Ok(answer)
}

/// `HEAD /upload/attachments/{key}`: how far it is.
pub(in crate::http) async fn progress(
    State(node): State<AppState>,
    PathParams(path): PathParams<String>,
    headers: HeaderMap,
) -> Response {
    spoken(try_progress(&node, &path, &headers).await)
}

async fn try_progress(node: &AppState, path: &str, headers: &HeaderMap) -> Result<Response, ApiError> {
    let capability = access::for_path(&node.attachments, path, headers)?;
    said(headers)?;
    let progress = node.attachments.progress(&capability).await?;
    let mut answer = StatusCode::OK.into_response();
    let headers = answer.headers_mut();
    stand(headers, &progress);
    match progress.upload.length {
        Some(length) => headers.insert(UPLOAD_LENGTH, HeaderValue::from(length)),
        None => headers.insert(UPLOAD_DEFER_LENGTH, HeaderValue::from_static("1")),
    };
    Ok(answer)
}

/// `PATCH /upload/attachments/{key}`: more bytes.
pub(in crate::http) async fn append(
    State(node): State<AppState>,
    PathParams(path): PathParams<String>,
    request: Request,
) -> Response {
    spoken(try_append(&node, &path, request).await)
}

async fn try_append(node: &AppState, path: &str, request: Request) -> Result<Response, ApiError> {
    let request = parts(node, request);
    let capability = access::for_path(&node.attachments, path, &request.headers)?;
    let said = said(&request.headers)?;
    if !said.carries_bytes {
        return Err(ApiError::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "upload_type",
            "bytes have the content type application/offset+octet-stream",
        ));
    }
    let at = said.offset.ok_or(ApiError::bad_request(
        "upload_headers",
        "give Upload-Offset: where these bytes begin",
    ))?;
    let part = Incoming {
        at,
        length: said.length,
        announced: request.announced,
        checksum: said.checksum,
        body: request.body,
    };
    let progress = write(node, capability, part).await?;
    let mut answer = StatusCode::NO_CONTENT.into_response();
    stand(answer.headers_mut(), &progress);
    Ok(answer)
}

/// `DELETE /upload/attachments/{key}`: gives the upload up, or removes what it became.
pub(in crate::http) async fn remove(
    State(node): State<AppState>,
    PathParams(path): PathParams<String>,
    headers: HeaderMap,
) -> Response {
    let removed = async {
        let capability = access::for_path(&node.attachments, &path, &headers)?;
        said(&headers)?;
        node.attachments.remove(&capability).await?;
        Ok(StatusCode::NO_CONTENT.into_response())
    };
    spoken(removed.await)
}

fn said(headers: &HeaderMap) -> Result<UploadHeaders, ApiError> {
    let lines = headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    parse(lines).map_err(|refused| match refused {
        HeadersRefused::Version => ApiError::new(
            StatusCode::PRECONDITION_FAILED,
            "tus_version",
            "say Tus-Resumable: 1.0.0",
        ),
        HeadersRefused::Malformed => ApiError::bad_request("upload_headers", "a header of the upload is malformed"),
        HeadersRefused::ChecksumKind => ApiError::bad_request("upload_headers", "checksums are sha1 or sha256"),
    })
}

/// What is said of how far an upload is.
fn stand(headers: &mut HeaderMap, progress: &Progress) {
    headers.insert(UPLOAD_OFFSET, HeaderValue::from(progress.upload.stored));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(expires) = progress.upload.drop_at.and_then(date) {
        headers.insert(UPLOAD_EXPIRES, expires);
    }
}

fn date(time: Timestamp) -> Option<HeaderValue> {
    let since = Duration::from_millis(u64::try_from(time.0).ok()?);
    HeaderValue::from_str(&httpdate::fmt_http_date(UNIX_EPOCH.checked_add(since)?)).ok()
}

/// An answer of this protocol, whether it succeeded or not.
fn spoken(answer: Result<Response, ApiError>) -> Response {
    let mut answer = answer.into_response();
    let version = HeaderValue::from_static(VERSION);
    if answer.status() == StatusCode::PRECONDITION_FAILED {
        answer.headers_mut().insert(TUS_VERSION, version.clone());
    }
    answer.headers_mut().insert(TUS_RESUMABLE, version);
    answer
}

const TUS_RESUMABLE: HeaderName = HeaderName::from_static("tus-resumable");
const TUS_VERSION: HeaderName = HeaderName::from_static("tus-version");
const TUS_EXTENSION: HeaderName = HeaderName::from_static("tus-extension");
const TUS_CHECKSUM_ALGORITHM: HeaderName = HeaderName::from_static("tus-checksum-algorithm");
const TUS_MAX_SIZE: HeaderName = HeaderName::from_static("tus-max-size");
const UPLOAD_OFFSET: HeaderName = HeaderName::from_static("upload-offset");
const UPLOAD_LENGTH: HeaderName = HeaderName::from_static("upload-length");
const UPLOAD_DEFER_LENGTH: HeaderName = HeaderName::from_static("upload-defer-length");
const UPLOAD_EXPIRES: HeaderName = HeaderName::from_static("upload-expires");
