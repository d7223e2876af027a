//! Where the bytes of attachments go.

use std::path::Path;

use rustix::fs::{Access, access};

use super::Check;
use crate::config::{AttachmentStore, Config};
use crate::server::blobs;

/// Whether the store of attachments can be written to. In a bucket a small object is written and deleted again.
pub async fn attachments(config: &Config) -> Check {
    match &config.attachments.store {
        AttachmentStore::Directory(path) => directory(path, config.redis_url.is_some()),
        AttachmentStore::S3 { bucket, .. } => {
            let probed = match blobs(&config.attachments.store, "doctor") {
                Ok(blobs) => blobs.probe().await.map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            };
            match probed {
                Ok(()) => Check::ok(NAME, format!("the bucket {bucket} is writable")),
                Err(error) => Check::fail(
                    NAME,
                    format!("the bucket {bucket}: {error}"),
                    "see that the bucket exists, and check s3_endpoint, s3_region and the credentials in [attachments]",
                ),
            }
        }
    }
}

fn directory(path: &Path, several_nodes: bool) -> Check {
    let shown = path.display();
    let (there, what) = match path.ancestors().find(|parent| parent.exists()) {
        Some(found) if found == path => (found, format!("{shown} is writable")),
        Some(parent) => (parent, format!("{shown} does not exist yet, the first start makes it")),
        None => (
            Path::new("."),
            format!("{shown} does not exist yet, the first start makes it"),
        ),
    };
    if !there.is_dir() || access(there, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK).is_err() {
        let remedy = format!("run: mkdir -p -m 700 {shown}, and chown it to the server's user");
        return Check::fail(NAME, format!("{} is not writable", there.display()), remedy);
    }
    if several_nodes {
        let remedy = "all nodes need the same: share the directory, or use a bucket (s3_bucket in [attachments])";
        return Check::warn(NAME, format!("{what}, on this machine as far as is known"), remedy);
    }
    Check::ok(NAME, what)
}

const NAME: &str = "attachments";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse_toml;
    use crate::doctor::Verdict;

    #[test]
    fn a_directory_is_writable_or_will_be_made_and_several_nodes_are_told_to_share_it() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(directory(dir.path(), false).verdict, Verdict::Ok);
        assert_eq!(directory(&dir.path().join("new"), false).verdict, Verdict::Ok);
        assert!(matches!(directory(dir.path(), true).verdict, Verdict::Warn(_)));
        std::fs::write(dir.path().join("file"), "").unwrap();
        assert!(matches!(
            directory(&dir.path().join("file"), false).verdict,
            Verdict::Fail(_)
        ));
    }

    #[tokio::test]
    async fn a_bucket_that_does_not_answer_fails_without_its_credentials() {
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let text = format!(
            "attachments.s3_bucket = 'b'\nattachments.s3_endpoint = 'http://127.0.0.1:{port}'\n\
             attachments.s3_access_key_id = 'hunter1'\nattachments.s3_secret_access_key = 'hunter2'"
        );
        let check = attachments(&parse_toml(&text).unwrap()).await;
        assert!(matches!(check.verdict, Verdict::Fail(_)), "{check}");
        assert!(!check.to_string().contains("hunter"), "{check}");
    }
}
