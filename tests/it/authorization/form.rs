//! Upload forms, whose capability opens what device credentials do not.

use super::cases::Case;
use crate::support::{Person, Server, ask};

/// An upload form.
pub(super) struct Form {
    pub(super) key: String,
    pub(super) capability: String,
}

impl Form {
    /// A new one of the caller's.
    pub(super) async fn get(server: &Server, caller: &Person) -> Self {
        let form = ask(caller.request(server, "GET", "/v4/attachments/form/upload")).await;
        let form = form.expect(200).json();
        Self {
            key: form["key"].as_str().unwrap().to_owned(),
            capability: form["headers"]["Authorization"].as_str().unwrap().to_owned(),
        }
    }

    /// The path of its upload.
    pub(super) fn upload(&self) -> String {
        format!("/upload/attachments/{}", self.key)
    }

    /// Opens the upload, five bytes long.
    pub(super) async fn open(&self, server: &Server) {
        let open = server
            .request("POST", "/upload/attachments")
            .header("authorization", &self.capability)
            .header("tus-resumable", "1.0.0")
            .header("upload-length", "5");
        ask(open).await.expect(201);
    }

    /// A request that its capability opens.
    pub(super) fn case(&self, path: &str, success: u16) -> Case {
        let case = Case::new(path, success).header("tus-resumable", "1.0.0");
        Case {
            capability: Some(self.capability.clone()),
            ..case
        }
    }
}
