//! The form with which a client uploads.

use schemars::JsonSchema;
use serde::Serialize;

/// What a client needs in order to upload.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UploadFormOut {
    /// 3 for tus, 2 for signed `PUT`s.
    pub cdn: u8,
    /// Under which the attachment is downloaded.
    pub key: String,
    /// To be sent with every request of the upload.
    pub headers: UploadHeadersOut,
    /// Where the upload begins: an absolute URL.
    pub signed_upload_location: String,
}

/// Headers of an upload.
#[derive(Default, Serialize, JsonSchema)]
pub struct UploadHeadersOut {
    /// What proves that it may be uploaded.
    #[serde(rename = "Authorization", skip_serializing_if = "Option::is_none")]
    pub authorization: Option<String>,
    /// The key once more, as tus has it.
    #[serde(rename = "Upload-Metadata", skip_serializing_if = "Option::is_none")]
    pub upload_metadata: Option<String>,
}
