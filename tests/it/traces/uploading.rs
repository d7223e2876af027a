//! An attachment, as libsignal-service-rs uploads it in three steps and anyone downloads it.

use super::client::plain_with;
use super::fields::{UPLOAD_FORM, json};
use crate::support::{Answer, Backend, Person, Server, random};

/// The form without a query; the upload opened with its headers, its length to come; where it stands; the bytes.
pub(super) async fn an_attachment_is_uploaded_in_three_steps(backend: Backend) {
    let server = Server::spawn(backend).await;
    let alice = Person::register(&server).await;
    let authorization = alice.authorization();
    let headers = [("authorization", authorization.as_str())];
    let form = plain_with(&server, "GET /v4/attachments/form/upload", &headers, None).await;
    let form = json(&form, 200, UPLOAD_FORM);
    assert_eq!(form["cdn"], 3);
    let host = format!("http://{}/", server.address());
    let location = form["signedUploadLocation"].as_str().unwrap();
    let path = location.strip_prefix(&host).unwrap();

    // Whatever headers the form names come with every request, as they are.
    let named = form["headers"].as_object().unwrap();
    let named: Vec<_> = named
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str().unwrap()))
        .collect();
    let with = |more: &[(&'static str, &'static str)]| [&named[..], more].concat();
    let open = with(&[("Upload-Defer-Length", "1"), ("Tus-Resumable", "1.0.0")]);
    let answer = plain_with(&server, &format!("POST /{path}"), &open, Some(b"")).await;
    let location = success(&answer).header("location").unwrap();
    // Only the path of it is used; the host is the configured one.
    let path = location.strip_prefix(&host).unwrap().to_owned();

    let ask = with(&[("Tus-Resumable", "1.0.0")]);
    let answer = plain_with(&server, &format!("HEAD /{path}"), &ask, None).await;
    assert_eq!(success(&answer).header("upload-offset"), Some("0"));

    let content: [u8; 541] = random();
    let write = with(&[
        ("Tus-Resumable", "1.0.0"),
        ("Upload-Offset", "0"),
        ("Upload-Length", "541"),
        ("Content-Type", "application/offset+octet-stream"),
    ]);
    let answer = plain_with(&server, &format!("PATCH /{path}"), &write, Some(&content)).await;
    success(&answer);

    let line = format!("GET /attachments/{}", form["key"].as_str().unwrap());
    let answer = plain_with(&server, &line, &[], None).await;
    assert_eq!(success(&answer).body, content[..]);
}

#[track_caller]
fn success(answer: &Answer) -> &Answer {
    assert!(matches!(answer.status, 200 | 201 | 202 | 204), "{answer:?}");
    answer
}
