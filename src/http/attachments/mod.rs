//! Attachments on the wire: upload forms, two ways to upload, downloads.
//!
//! A form names a key and a capability. With the capability a client uploads by [`tus`], or by signed `PUT`s ([`put`]);
//! either may go on where the other one stopped. With the key anyone [`download`]s.

mod access;
mod body;
pub(super) mod download;
pub(super) mod put;
mod refusal;
pub(super) mod tus;

use axum::Json;
use axum::extract::State;
use base64::Engine;
use serde::Deserialize;

use crate::attachments::{Capability, Class, Incoming, Progress};
use crate::domain::Aci;
use crate::encoding::BASE64;

use super::error::ApiError;
use super::extract::{Caller, QueryParams};
use super::origin::Origin;
use super::state::{AppState, Node};
use super::wire::attachments::{UploadFormOut, UploadHeadersOut};

/// How forms tell clients to upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UploadBy {
    /// tus: what clients know as CDN 3.
    Tus,
    /// Signed `PUT`s: what clients know as CDN 2.
    Put,
}

/// What a client says when it wants to upload.
#[derive(Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::http) struct FormQuery {
    /// How many bytes it will be.
    upload_length: Option<u64>,
}

/// `GET /v4/attachments/form/upload`
pub(super) async fn form(
    State(node): State<AppState>,
    Caller(caller): Caller,
    Origin(origin): Origin,
    QueryParams(query): QueryParams<FormQuery>,
) -> Result<Json<UploadFormOut>, ApiError> {
    upload_form(
        &node,
        &origin,
        caller.address.aci,
        Class::Attachment,
        query.upload_length,
    )
    .await
    .map(Json)
}

/// A form for an upload to `origin`.
pub(super) async fn upload_form(
    node: &Node,
    origin: &str,
    owner: Aci,
    class: Class,
    length: Option<u64>,
) -> Result<UploadFormOut, ApiError> {
    let form = node.attachments.form(owner, class, length).await?;
    let key = form.key.to_string();
    let uploads = format!("{origin}{UPLOADS}");
    Ok(match node.upload_by {
        UploadBy::Tus => UploadFormOut {
            cdn: 3,
            headers: UploadHeadersOut {
                authorization: Some(format!("Bearer {}", form.capability)),
                upload_metadata: Some(format!("filename {}", BASE64.encode(&key))),
            },
            signed_upload_location: uploads,
            key,
        },
        UploadBy::Put => UploadFormOut {
            cdn: 2,
            headers: UploadHeadersOut::default(),
            signed_upload_location: format!("{uploads}/{}", form.capability),
            key,
        },
    })
}

/// Writes on a task of its own: when the client goes away, what came so far is still to be stored.
async fn write(node: &AppState, capability: Capability, part: Incoming) -> Result<Progress, ApiError> {
    let attachments = std::sync::Arc::clone(&node.attachments);
    let writing = node
        .tasks
        .spawn(async move { attachments.write(&capability, part).await });
    let written = writing.await.map_err(|_| ApiError::unavailable("an upload panicked"))?;
    Ok(written?)
}

/// Where attachments are downloaded, without the slash that every path begins with.
pub(super) const DOWNLOADS: &str = "attachments";
/// Where uploads go.
const UPLOADS: &str = "/upload/attachments";
