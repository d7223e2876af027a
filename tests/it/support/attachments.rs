//! Upload forms and what is done with them, as clients do it.

use std::path::PathBuf;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Answer, Person, Server, ask, random, within};

/// An upload form, as a client got it.
pub(crate) struct Form {
    pub(crate) key: String,
    /// The path of the signed location.
    pub(crate) location: String,
    /// The bearer token, or empty.
    pub(crate) authorization: String,
    pub(crate) whole: Value,
}

impl Form {
    pub(crate) async fn ask(server: &Server, person: &Person, query: &str) -> Self {
        let path = format!("/v4/attachments/form/upload{query}");
        Self::read(server, &ask(person.request(server, "GET", &path)).await.expect(200))
    }

    pub(crate) fn read(server: &Server, answer: &Answer) -> Self {
        let whole = answer.json();
        let location = whole["signedUploadLocation"].as_str().unwrap();
        let here = format!("http://{}", server.address());
        Self {
            key: whole["key"].as_str().unwrap().to_owned(),
            location: location.strip_prefix(&here).unwrap().to_owned(),
            authorization: whole["headers"]["Authorization"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
            whole,
        }
    }

    /// The capability alone.
    pub(crate) fn capability(&self) -> &str {
        self.authorization.strip_prefix("Bearer ").unwrap()
    }

    /// Where the upload is, by tus.
    pub(crate) fn path(&self) -> String {
        format!("/upload/attachments/{}", self.key)
    }

    /// Where the attachment will be.
    pub(crate) fn download(&self) -> String {
        format!("/attachments/{}", self.key)
    }

    /// A request of tus with the headers of the form.
    pub(crate) fn tus(&self, server: &Server, method: &str, path: &str) -> reqwest::RequestBuilder {
        let mut request = server.request(method, path).header("tus-resumable", "1.0.0");
        for (name, value) in self.whole["headers"].as_object().unwrap() {
            request = request.header(name, value.as_str().unwrap());
        }
        request
    }

    /// Opens the upload; its length comes later.
    pub(crate) async fn open(&self, server: &Server) {
        let opened = self
            .tus(server, "POST", &self.location)
            .header("upload-defer-length", "1");
        ask(opened.header("content-length", "0")).await.expect(201);
    }

    /// How far the upload is.
    pub(crate) async fn offset(&self, server: &Server) -> usize {
        let answer = ask(self.tus(server, "HEAD", &self.path())).await.expect(200);
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        answer.header("upload-offset").unwrap().parse().unwrap()
    }

    /// A part of the upload.
    pub(crate) fn part(&self, server: &Server, at: usize, whole: usize, bytes: &[u8]) -> reqwest::RequestBuilder {
        self.tus(server, "PATCH", &self.path())
            .header("upload-offset", at)
            .header("upload-length", whole)
            .header("content-type", "application/offset+octet-stream")
            .body(bytes.to_vec())
    }

    /// Uploads everything at once.
    pub(crate) async fn upload(&self, server: &Server, bytes: &[u8]) {
        self.open(server).await;
        ask(self.part(server, 0, bytes.len(), bytes)).await.expect(204);
    }

    /// Sends the beginning of a part, and cuts the connection.
    pub(crate) async fn cut_after(&self, server: &Server, at: usize, whole: usize, bytes: &[u8]) {
        let mut stream = self.begin(server, at, whole, bytes).await;
        stream.shutdown().await.unwrap();
        drop(stream);
        super::until("what came to be stored", async || {
            self.offset(server).await == at + bytes.len()
        })
        .await;
    }

    /// Sends the head of a part for all of the rest, and these bytes of it. When this returns, the server has taken the part
    /// on: it asks for the bytes.
    pub(crate) async fn begin(&self, server: &Server, at: usize, whole: usize, bytes: &[u8]) -> TcpStream {
        let head = format!(
            "PATCH {} HTTP/1.1\r\nHost: x\r\nTus-Resumable: 1.0.0\r\nAuthorization: {}\r\nUpload-Offset: {at}\r\n\
             Upload-Length: {whole}\r\nContent-Type: application/offset+octet-stream\r\nContent-Length: {}\r\n\
             Expect: 100-continue\r\n\r\n",
            self.path(),
            self.authorization,
            whole - at,
        );
        let mut stream = TcpStream::connect(server.address()).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut asked = [0; CONTINUE.len()];
        within("being asked for the bytes", stream.read_exact(&mut asked))
            .await
            .unwrap();
        assert_eq!(&asked, CONTINUE, "{}", String::from_utf8_lossy(&asked));
        stream.write_all(bytes).await.unwrap();
        stream
    }
}

const CONTINUE: &[u8; 25] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// A complete attachment.
pub(crate) async fn uploaded(server: &Server, person: &Person, bytes: &[u8]) -> Form {
    let form = Form::ask(server, person, "").await;
    form.upload(server, bytes).await;
    form
}

/// What is downloaded.
pub(crate) async fn downloaded(server: &Server, form: &Form) -> Vec<u8> {
    let answer = ask(server.request("GET", &form.download())).await.expect(200);
    answer.body.to_vec()
}

/// Bytes in which no two places look alike.
pub(crate) fn content(length: usize) -> Vec<u8> {
    let mut state = u64::from_be_bytes(random()) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        // xorshift64: quick, and good enough to tell bytes apart.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Sends a request as it is written, and reads the status.
pub(crate) async fn raw_status(server: &Server, request: &[u8]) -> u16 {
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut status = [0; 12];
    within("a status line", stream.read_exact(&mut status)).await.unwrap();
    std::str::from_utf8(&status[9..]).unwrap().parse().unwrap()
}

/// Every file below a directory.
pub(crate) fn files(directory: &PathBuf) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = std::fs::read_dir(directory) else {
        return found;
    };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}
