//! Attachments as the settings want them.

use std::sync::Arc;

use anyhow::Context;

use crate::attachments::{AttachmentLimits, Attachments, Blobs, CapabilityKey, S3};
use crate::auth::ServerSecrets;
use crate::config::{self, AttachmentStore, UploadForm};
use crate::domain::Clock;
use crate::http::attachments::UploadBy;
use crate::sealing::random;
use crate::secret_file;
use crate::storage::Storage;

/// Attachments over this database and the store of the settings, which is made if it is a directory.
pub(super) async fn open(
    settings: &config::Attachments,
    secrets: &ServerSecrets,
    storage: &Storage,
    clock: &Arc<dyn Clock>,
) -> anyhow::Result<Arc<Attachments>> {
    let secret = secrets.attachment_secret();
    if let AttachmentStore::Directory(path) = &settings.store {
        secret_file::create_private_dir(path)
            .with_context(|| format!("cannot make the directory of attachments {}", path.display()))?;
    }
    let limits = AttachmentLimits {
        max_bytes: settings.max_bytes,
        daily_bytes: settings.daily_bytes,
        retention_days: settings.retention_days,
        incomplete: settings.incomplete,
        max_uploads: settings.max_uploads,
        max_downloads: settings.max_downloads,
    };
    let realm = storage.attachments.realm(random()).await;
    let realm = Attachments::realm(secret, realm.context("cannot read the database")?);
    Ok(Arc::new(Attachments::new(
        Arc::clone(&storage.attachments),
        blobs(&settings.store, &realm)?,
        CapabilityKey::derive(secret),
        Arc::clone(clock),
        limits,
    )))
}

/// The store of the settings, as one realm sees it.
pub fn blobs(store: &AttachmentStore, realm: &str) -> anyhow::Result<Blobs> {
    Ok(match store {
        AttachmentStore::Directory(path) => Blobs::local(path, realm)?,
        AttachmentStore::S3 {
            bucket,
            endpoint,
            region,
            access_key_id,
            secret_access_key,
            prefix,
        } => {
            let settings = S3 {
                bucket: bucket.clone(),
                endpoint: endpoint.clone(),
                region: region.clone(),
                access_key_id: access_key_id.expose().to_owned(),
                secret_access_key: secret_access_key.expose().to_owned(),
                prefix: prefix.clone(),
            };
            Blobs::s3(&settings, realm)?
        }
    })
}

/// How forms tell clients to upload.
pub(super) fn upload_by(form: UploadForm) -> UploadBy {
    match form {
        UploadForm::Tus => UploadBy::Tus,
        UploadForm::Put => UploadBy::Put,
    }
}
