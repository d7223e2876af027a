//! The settings of attachments.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::read::Reader;
use super::secret::Secret;

/// Attachments.
#[derive(Clone)]
pub struct Attachments {
    /// How upload forms tell clients to upload.
    pub form: UploadForm,
    /// The largest attachment.
    pub max_bytes: u64,
    /// What one account may upload in a day.
    pub daily_bytes: u64,
    /// For how many days an attachment is kept.
    pub retention_days: u16,
    /// How long an upload waits for its next byte before it is dropped.
    pub incomplete: Duration,
    /// How long an upload or a download may stand still.
    pub idle: Duration,
    /// Uploads that write at the same time.
    pub max_uploads: usize,
    /// Downloads at the same time.
    pub max_downloads: usize,
    /// Where the bytes are.
    pub store: AttachmentStore,
}

/// How upload forms tell clients to upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UploadForm {
    /// By tus.
    Tus,
    /// By signed `PUT`s.
    Put,
}

/// Where the bytes of attachments are.
#[derive(Clone)]
pub enum AttachmentStore {
    /// In a directory.
    Directory(PathBuf),
    /// In a bucket of a service that speaks S3.
    S3 {
        /// Its name.
        bucket: String,
        /// The URL of the service; `None` for the one of Amazon's region.
        endpoint: Option<String>,
        /// Its region.
        region: String,
        /// Whose it is.
        access_key_id: Secret,
        /// What proves that.
        secret_access_key: Secret,
        /// What the names of objects begin with.
        prefix: String,
    },
}

pub(super) fn read_attachments(r: &mut Reader<'_>, data_dir: &Path) -> Attachments {
    let forms = [("tus", UploadForm::Tus), ("put", UploadForm::Put)];
    // As much as the most segments hold.
    let max_bytes = r.integer("attachments.max_bytes", 1_024..=17_179_869_184);
    // At least what the smallest upload costs.
    let daily_bytes = r.integer("attachments.daily_bytes", 65_536..=1_125_899_906_842_624);
    if daily_bytes < max_bytes {
        r.refuse(
            "attachments.daily_bytes",
            "less than one attachment may have",
            "choose at least attachments.max_bytes",
        );
    }
    let incomplete = r.seconds("attachments.incomplete_secs", 2..=86_400);
    // Less than a connection may stand still.
    let idle = r.seconds("attachments.idle_secs", 1..=60);
    if incomplete < idle * 2 {
        r.refuse(
            "attachments.incomplete_secs",
            "so short that an upload which gets on is dropped",
            "choose at least twice attachments.idle_secs",
        );
    }
    Attachments {
        form: r.choice("attachments.form", &forms).unwrap_or(UploadForm::Tus),
        max_bytes,
        daily_bytes,
        retention_days: r.integer("attachments.retention_days", 1..=3_650),
        incomplete,
        idle,
        max_uploads: r.integer("attachments.max_uploads", 1..=10_000),
        max_downloads: r.integer("attachments.max_downloads", 1..=100_000),
        store: read_store(r, data_dir),
    }
}

fn read_store(r: &mut Reader<'_>, data_dir: &Path) -> AttachmentStore {
    for file in [
        "attachments.s3_access_key_id_file",
        "attachments.s3_secret_access_key_file",
    ] {
        // Their texts have been read into their siblings by `load`.
        r.path(file);
    }
    let dir = r.path("attachments.dir");
    let bucket = r.text("attachments.s3_bucket");
    let endpoint = Some(r.text("attachments.s3_endpoint")).filter(|url| !url.is_empty());
    let region = r.text("attachments.s3_region");
    let prefix = r.text("attachments.s3_prefix");
    let access_key_id = r.secret("attachments.s3_access_key_id");
    let secret_access_key = r.secret("attachments.s3_secret_access_key");
    if bucket.is_empty() {
        if endpoint.is_some() || access_key_id.is_some() || secret_access_key.is_some() {
            r.refuse(
                "attachments.s3_bucket",
                "empty, but other settings of S3 are given",
                "name the bucket, or leave out the others",
            );
        }
        return AttachmentStore::Directory(dir.unwrap_or_else(|| data_dir.join("attachments")));
    }
    if dir.is_some() {
        r.refuse("attachments.dir", "given beside s3_bucket", "keep one of the two");
    }
    if endpoint
        .as_ref()
        .is_some_and(|url| !url.starts_with("http://") && !url.starts_with("https://"))
    {
        r.refuse("attachments.s3_endpoint", "not a URL", "write https://HOST");
    }
    let (Some(access_key_id), Some(secret_access_key)) = (access_key_id, secret_access_key) else {
        r.refuse(
            "attachments.s3_secret_access_key",
            "a bucket without credentials",
            "give s3_access_key_id and s3_secret_access_key, or the files that hold them",
        );
        return AttachmentStore::Directory(PathBuf::new());
    };
    AttachmentStore::S3 {
        bucket,
        endpoint,
        region,
        access_key_id,
        secret_access_key,
        prefix,
    }
}

/// The URL under which clients reach the server, without a slash at its end.
pub(super) fn read_public_url(r: &mut Reader<'_>) -> Option<Arc<str>> {
    let text = r.text("public_url");
    let url = text.trim_end_matches('/');
    if url.is_empty() {
        return None;
    }
    let rest = url.strip_prefix("https://").or(url.strip_prefix("http://"));
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]/".contains(&byte);
    if rest.is_none_or(|rest| rest.is_empty() || rest.starts_with('/') || !rest.bytes().all(fits)) {
        r.refuse("public_url", "not a URL", "write https://HOST, or https://HOST/PATH");
    }
    Some(url.into())
}
