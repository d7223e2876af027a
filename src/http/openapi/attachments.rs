//! Attachments.

use serde_json::json;

use super::build::{Api, Describing};
use crate::http::attachments::FormQuery;
use crate::http::wire::attachments::UploadFormOut;
use crate::http::wire::forms::AnyText;

pub(super) fn describe(api: &mut Api) {
    api.route("get", "/v4/attachments/form/upload", "Makes an upload form")
        .query::<FormQuery>()
        .answers::<UploadFormOut>(200, "A key, and what it takes to upload under it")
        .refuses(400, &["host"])
        .refuses(413, &["attachment_too_large"])
        .refuses(429, &["attachment_quota"]);

    describe_tus(api);

    api.route("post", UPLOAD, "Opens an upload by signed PUT")
        .path::<AnyText>("upload", WHICH)
        .takes_bytes("application/octet-stream", "Not looked at")
        .done(201, "It is open; Location says where its parts go")
        .with_header(201, "location", text())
        .refuses(400, &["attachment_key", "host"])
        .refuses(413, &["attachment_too_large"])
        .refuses(422, &["upload_length"])
        .refuses(429, &["attachment_quota"]);

    writes(
        api.route(
            "put",
            UPLOAD,
            "Uploads all, or the part in Content-Range; asks how far it is",
        )
        .path::<AnyText>("upload", WHICH)
        .header::<String>(
            "Content-Range",
            false,
            "bytes FIRST-LAST/WHOLE, or bytes */WHOLE to ask",
        )
        .takes_bytes("application/octet-stream", "The bytes")
        .done(200, "All of it is there")
        .done(308, "Not all of it is there; Range says what is")
        .with_header(308, "range", text())
        .refuses(400, &["content_range"])
        .refuses(411, &["length_required"]),
    );

    api.route("get", "/attachments/{*key}", "Downloads an attachment")
        .path::<AnyText>("key", "The key of a form")
        .header::<String>("Range", false, "One range of bytes")
        .header::<String>("If-Range", false, "The range is wanted only of what has this tag")
        .header::<String>("If-None-Match", false, "The tag of what is known")
        .answers_bytes(200, BYTES, "All of it")
        .answers_bytes(206, BYTES, "The range")
        .done(304, "It is what has that tag")
        .refuses(400, &["attachment_key"])
        .refuses(416, &["range"])
        .with_header(416, "content-range", text())
        .refuses(503, &["downloads_busy"]);
}

fn describe_tus(api: &mut Api) {
    api.route("options", "/upload/attachments", "Says what is spoken of tus")
        .done(204, "Versions, extensions, checksums and the largest size, in headers");

    writes(tus(api
        .route("post", "/upload/attachments", "Opens an upload by tus")
        .header::<String>("Upload-Length", false, "How many bytes it will have")
        .header::<String>("Upload-Defer-Length", false, "1: the length comes later")
        .takes_bytes(OFFSET_BYTES, "The first bytes, if there are any")
        .done(201, "It is open; Location says where")
        .with_header(201, "location", text())
        .refuses(400, &["host"])
        .refuses(405, &["method_not_allowed"])));

    tus(api
        .route("head", UPLOAD, "How far is the upload?")
        .path::<AnyText>("upload", WHICH))
    .done(200, "Upload-Offset says it")
    .with_header(200, "upload-offset", number())
    .refuses(400, &["attachment_key"]);

    writes(tus(api
        .route("patch", UPLOAD, "Uploads more by tus")
        .path::<AnyText>("upload", WHICH)
        .header::<String>("Upload-Offset", true, "Where these bytes begin")
        .header::<String>("Upload-Length", false, "How many bytes the upload will have")
        .header::<String>(
            "Upload-Checksum",
            false,
            "sha1 or sha256, and that of these bytes in base64. The length of the upload has to be known",
        )
        .takes_bytes(OFFSET_BYTES, "The bytes")
        .done(204, "They are there")
        .with_header(204, "upload-offset", number())
        .refuses(415, &["upload_type"])));

    tus(api
        .route("delete", UPLOAD, "Gives an upload up, or removes what it became")
        .path::<AnyText>("upload", WHICH))
    .done(204, "It is gone")
    .refuses(400, &["attachment_key"]);
}

/// What every request of tus has in common.
fn tus(describing: Describing<'_>) -> Describing<'_> {
    describing
        .header::<String>("Tus-Resumable", true, "1.0.0")
        .refuses(400, &["upload_headers"])
        .refuses(412, &["tus_version"])
}

/// What every request that writes has in common.
fn writes(describing: Describing<'_>) -> Describing<'_> {
    describing
        .refuses(400, &["attachment_key", "body_incomplete", "upload_length"])
        .refuses(404, &["not_found"])
        .refuses(408, &["upload_stalled"])
        .refuses(409, &["upload_offset", "upload_overtaken"])
        .refuses(413, &["attachment_too_large"])
        .refuses(422, &["upload_length", "upload_longer", "upload_parts"])
        .refuses(429, &["attachment_quota", "uploads_at_once"])
        .refuses(460, &["upload_checksum"])
        .refuses(503, &["uploads_busy", "stopping"])
}

fn text() -> serde_json::Value {
    json!({ "type": "string" })
}

fn number() -> serde_json::Value {
    json!({ "type": "integer", "minimum": 0 })
}

const UPLOAD: &str = "/upload/attachments/{*upload}";
const WHICH: &str = "The capability of a form; or its key, with the capability as bearer token";
const BYTES: &str = "application/octet-stream";
const OFFSET_BYTES: &str = "application/offset+octet-stream";
