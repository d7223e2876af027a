//! `/v1/data`: what an account keeps for its own devices. An extension of ours; no stock client asks for it.
//!
//! Keys and values are opaque. Nothing is ever overwritten unseen: every write names the version that it replaces.

use axum::Json;
use axum::extract::State;
use axum::http::header::ETAG;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};

use crate::auth::Authenticated;
use crate::domain::{DataKey, DataLimits, DataWrite, Revision, Written};

use super::error::ApiError;
use super::etag;
use super::extract::{Caller, JsonBody, PathParams, QueryParams};
use super::state::AppState;
use super::wire::account_data::{
    BatchConflictOut, BatchIn, BatchOut, ChangesOut, ChangesQuery, DataIn, DataOut, DataVersionOut, DeletionQuery,
    parse_key,
};

/// Bounds of what one account may keep.
#[derive(Clone, Copy, Debug)]
pub struct DataBounds {
    /// The largest value, in bytes.
    pub max_value: usize,
    /// All entries together.
    pub limits: DataLimits,
}

/// `GET /v1/data`
pub(super) async fn changes(
    State(node): State<AppState>,
    Caller(caller): Caller,
    QueryParams(query): QueryParams<ChangesQuery>,
) -> Result<Json<ChangesOut>, ApiError> {
    let from = query.cursor()?;
    let data = &node.storage.account_data;
    let page = data.changes(caller.address.aci, from, PAGE_ENTRIES).await?;
    Ok(Json(page.into()))
}

/// `GET /v1/data/{key}`
pub(super) async fn show(
    State(node): State<AppState>,
    Caller(caller): Caller,
    PathParams(key): PathParams<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let key = parse_key(&key)?;
    let found = node.storage.account_data.find(caller.address.aci, &key).await?;
    let entry = found.ok_or(ApiError::not_found())?;
    let tag = format!("\"{}\"", entry.version.0);
    if etag::is_known(&headers, &tag) {
        return Ok((StatusCode::NOT_MODIFIED, [(ETAG, tag)]).into_response());
    }
    Ok(([(ETAG, tag)], Json(DataOut::from(entry))).into_response())
}

/// `PUT /v1/data/{key}`
pub(super) async fn put(
    State(node): State<AppState>,
    Caller(caller): Caller,
    PathParams(key): PathParams<String>,
    JsonBody(body): JsonBody<DataIn>,
) -> Result<Response, ApiError> {
    let write = body.write(parse_key(&key)?, node.data.max_value)?;
    Ok(one(write_all(&node, &caller, &[write]).await?))
}

/// `DELETE /v1/data/{key}`
pub(super) async fn delete(
    State(node): State<AppState>,
    Caller(caller): Caller,
    PathParams(key): PathParams<String>,
    QueryParams(query): QueryParams<DeletionQuery>,
) -> Result<Response, ApiError> {
    let write = DataWrite {
        key: parse_key(&key)?,
        expected: query.version()?,
        value: None,
    };
    Ok(one(write_all(&node, &caller, &[write]).await?))
}

/// `POST /v1/data/batch`
pub(super) async fn batch(
    State(node): State<AppState>,
    Caller(caller): Caller,
    JsonBody(body): JsonBody<BatchIn>,
) -> Result<Response, ApiError> {
    let writes = body.writes(node.data.max_value)?;
    Ok(match write_all(&node, &caller, &writes).await? {
        Outcome::At(versions) => {
            let versions: Vec<i64> = versions.iter().map(|version| version.0).collect();
            let revision = versions.last().copied().unwrap_or_default();
            Json(BatchOut { revision, versions }).into_response()
        }
        Outcome::Conflicts(conflicts) => {
            (StatusCode::CONFLICT, Json(BatchConflictOut::new(&conflicts))).into_response()
        }
    })
}

/// What the writer is told.
enum Outcome {
    At(Vec<Revision>),
    Conflicts(Vec<(DataKey, Revision)>),
}

async fn write_all(node: &AppState, caller: &Authenticated, writes: &[DataWrite]) -> Result<Outcome, ApiError> {
    let data = &node.storage.account_data;
    match data.write(&caller.actor(), writes, node.data.limits).await? {
        Written::At(versions) => Ok(Outcome::At(versions)),
        Written::Conflicts(conflicts) => Ok(Outcome::Conflicts(conflicts)),
        Written::QuotaExceeded => Err(ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "quota",
            "the account would have more entries or bytes than it may; delete some first",
        )),
        Written::UnknownAccount => Err(ApiError::unauthorized()),
    }
}

/// The answer to a single write.
fn one(outcome: Outcome) -> Response {
    let (status, version) = match outcome {
        Outcome::At(versions) => (StatusCode::OK, versions.first().copied()),
        Outcome::Conflicts(conflicts) => (StatusCode::CONFLICT, conflicts.first().map(|(_, version)| *version)),
    };
    let version = version.unwrap_or_default().0;
    (status, Json(DataVersionOut { version })).into_response()
}

/// Entries in one answer of the list: about 40 kB.
const PAGE_ENTRIES: u32 = 500;
