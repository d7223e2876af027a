//! Attachments: uploads as stock clients do them, interruptions, and what comes back.

use std::sync::Arc;

use rustix::process::Signal;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::attachments::{Form, content, downloaded, files, raw_status, uploaded};
use crate::support::http2::Http2;
use crate::support::keys::base64;
use crate::support::server::spawn_pair;
use crate::support::{Answer, Backend, Person, Server, Socket, ask, on_each_backend, setting, until, within};

on_each_backend! {
    a_stock_client_uploads_by_tus_and_another_downloads
    an_interrupted_part_goes_on_where_it_was_cut
    an_upload_goes_on_after_a_restart
    of_two_parts_at_one_place_one_wins
    many_small_parts_make_one_attachment
    an_upload_of_nothing_is_an_attachment
    any_range_of_a_large_attachment_is_read
    first_bytes_may_come_with_the_creation
    a_part_with_a_checksum_is_kept_whole_or_not_at_all
    an_upload_can_be_given_up
    parts_can_be_put_and_the_question_asked_how_far_they_are
    one_put_is_a_whole_upload
    the_other_form_can_be_the_settings_choice
    a_length_that_was_deferred_may_come_with_another_creation
    t76_sigterm_ends_a_long_download_and_the_server_with_it
}

const MIB: usize = 1024 * 1024;

async fn a_stock_client_uploads_by_tus_and_another_downloads(backend: Backend) {
    let server = Server::spawn(backend).await;
    let alice = Person::register(&server).await;
    let form = Form::ask(&server, &alice, "").await;
    assert_eq!(form.whole["cdn"], 3);
    assert_eq!(form.location, "/upload/attachments");
    assert_eq!(form.key.len(), 32);
    let metadata = format!("filename {}", base64(form.key.as_bytes()));
    assert_eq!(form.whole["headers"]["Upload-Metadata"], metadata);

    let bytes = content(5 * MIB + 541);
    let created = form
        .tus(&server, "POST", &form.location)
        .header("content-length", "0")
        .header("upload-defer-length", "1");
    let created = ask(created).await.expect(201);
    let location = format!("http://{}{}", server.address(), form.path());
    assert_eq!(created.header("location"), Some(location.as_str()));
    assert_eq!(created.header("tus-resumable"), Some("1.0.0"));
    assert!(created.header("upload-expires").is_some());
    let standing = ask(form.tus(&server, "HEAD", &form.path())).await.expect(200);
    assert_eq!(standing.header("upload-offset"), Some("0"));
    assert_eq!(standing.header("upload-defer-length"), Some("1"));
    ask(server.request("GET", &form.download())).await.expect(404);

    let written = ask(form.part(&server, 0, bytes.len(), &bytes)).await.expect(204);
    assert_eq!(written.header("upload-offset").unwrap(), bytes.len().to_string());
    assert_eq!(written.header("content-type"), None);
    assert_eq!(form.offset(&server).await, bytes.len());
    let answer = ask(server.request("GET", &form.download())).await.expect(200);
    assert!(answer.body == bytes);
    for (name, value) in [
        ("content-type", "application/octet-stream"),
        ("x-content-type-options", "nosniff"),
        ("content-disposition", "attachment"),
        ("cache-control", "private, max-age=31536000, immutable"),
        ("accept-ranges", "bytes"),
    ] {
        assert_eq!(answer.header(name), Some(value));
    }
    let head = ask(server.request("HEAD", &form.download())).await.expect(200);
    assert_eq!(head.header("content-length").unwrap(), bytes.len().to_string());
    assert!(head.body.is_empty());
    let range = server.request("HEAD", &form.download()).header("range", "bytes=0-4");
    let head = ask(range).await.expect(200);
    assert_eq!(head.header("content-length").unwrap(), bytes.len().to_string());
    // Once more, as a client that lost the answer does.
    ask(form.part(&server, bytes.len(), bytes.len(), b"")).await.expect(204);
    assert_eq!(
        ask(form.part(&server, 0, bytes.len(), &bytes)).await.expect(409).code(),
        "upload_offset"
    );
    assert!(
        server
            .metric("blind_relay_attachment_parts_total{outcome=\"complete\"}")
            .await
            >= 1.0
    );
    let log = server.log();
    assert!(!log.contains(&form.key) && !log.contains(form.capability()));
}

async fn an_interrupted_part_goes_on_where_it_was_cut(backend: Backend) {
    let server = Server::spawn(backend).await;
    let alice = Person::register(&server).await;
    let form = Form::ask(&server, &alice, "").await;
    form.open(&server).await;
    let bytes = content(6 * MIB);
    for (from, to) in [(0, 1), (1, 100_000), (100_000, 5 * MIB)] {
        form.cut_after(&server, from, bytes.len(), &bytes[from..to]).await;
        ask(server.request("GET", &form.download())).await.expect(404);
    }
    ask(form.part(&server, 5 * MIB, bytes.len(), &bytes[5 * MIB..]))
        .await
        .expect(204);
    assert!(downloaded(&server, &form).await == bytes);
}

async fn an_upload_goes_on_after_a_restart(backend: Backend) {
    let mut server = Server::spawn(backend).await;
    let alice = Person::register(&server).await;
    let form = Form::ask(&server, &alice, "").await;
    form.open(&server).await;
    let bytes = content(6 * MIB);
    form.cut_after(&server, 0, bytes.len(), &bytes[..MIB + 3]).await;
    // Killed in the middle of a part whose first segment is stored.
    let kept = 4 * MIB + MIB + 3;
    let _part = form
        .begin(&server, MIB + 3, bytes.len(), &bytes[MIB + 3..kept + 1000])
        .await;
    until("the first segment", async || form.offset(&server).await == kept).await;
    server.kill();
    let server = server.restart();
    assert_eq!(form.offset(&server).await, kept);
    ask(form.part(&server, kept, bytes.len(), &bytes[kept..]))
        .await
        .expect(204);
    assert!(downloaded(&server, &form).await == bytes);
}

async fn of_two_parts_at_one_place_one_wins(backend: Backend) {
    let server = Server::spawn(backend).await;
    let alice = Person::register(&server).await;
    let form = Form::ask(&server, &alice, "").await;
    form.open(&server).await;
    let contents: Vec<_> = (0..6).map(|_| content(300_000)).collect();
    let racing = contents
        .iter()
        .map(|bytes| ask(form.part(&server, 0, bytes.len(), bytes)));
    let answers = futures_util::future::join_all(racing).await;
    let won: Vec<_> = (0..6).filter(|at| answers[*at].status == 204).collect();
    assert_eq!(
        won.len(),
        1,
        "{:?}",
        answers.iter().map(|answer| answer.status).collect::<Vec<_>>()
    );
    assert!(answers.iter().all(|answer| matches!(answer.status, 204 | 409)));
    assert!(downloaded(&server, &form).await == contents[won[0]]);
}

async fn many_small_parts_make_one_attachment(backend: Backend) {
    let server = Server::spawn(backend).await;
    let alice = Person::register(&server).await;
    let bytes = content(20 * 64 * 1024 + 17);
    let form = Form::ask(&server, &alice, &format!("?uploadLength={}", bytes.len())).await;
    form.open(&server).await;
    for (index, part) in bytes.chunks(64 * 1024).enumerate() {
        ask(form.part(&server, index * 64 * 1024, bytes.len(), part))
            .await
            .expect(204);
    }
    assert!(downloaded(&server, &form).await == bytes);
}

async fn an_upload_of_nothing_is_an_attachment(backend: Backend) {
    let server = Server::spawn(backend).await;
    let alice = Person::register(&server).await;
    let form = Form::ask(&server, &alice, "?uploadLength=0").await;
    let created = form.tus(&server, "POST", &form.location).header("upload-length", "0");
    ask(created.header("content-length", "0")).await.expect(201);
    assert!(downloaded(&server, &form).await.is_empty());
    let range = server.request("GET", &form.download()).header("range", "bytes=0-");
    assert_eq!(ask(range).await.expect(416).header("content-range"), Some("bytes */0"));
    let later = Form::ask(&server, &alice, "").await;
    later.upload(&server, b"").await;
    assert!(downloaded(&server, &later).await.is_empty());
}

async fn any_range_of_a_large_attachment_is_read(backend: Backend) {
    let server = Server::spawn(backend).await;
    let alice = Person::register(&server).await;
    let bytes = content(9 * MIB + 7);
    let form = uploaded(&server, &alice, &bytes).await;
    let get = |range: &str| server.request("GET", &form.download()).header("range", range);
    for (header, from, to) in [
        ("bytes=0-0", 0, 1),
        ("bytes=4194303-4194304", 4 * MIB - 1, 4 * MIB + 1),
        ("bytes=1048576-9000000", MIB, 9_000_001),
        ("bytes=9437183-", 9 * MIB - 1, bytes.len()),
        ("bytes=-7", 9 * MIB, bytes.len()),
        ("bytes=5-99999999999", 5, bytes.len()),
    ] {
        let answer = ask(get(header)).await.expect(206);
        assert!(answer.body == bytes[from..to], "{header}");
        let said = format!("bytes {from}-{}/{}", to - 1, bytes.len());
        assert_eq!(answer.header("content-range"), Some(said.as_str()));
    }
    let beyond = ask(get(&format!("bytes={}-", bytes.len()))).await.expect(416);
    assert_eq!(
        (beyond.header("content-range").unwrap(), beyond.code().as_str()),
        (format!("bytes */{}", bytes.len()).as_str(), "range")
    );
    assert_eq!(ask(get("lines=0-1")).await.expect(200).body.len(), bytes.len());

    let tag = ask(get("bytes=0-0")).await.header("etag").unwrap().to_owned();
    let known = server
        .request("GET", &form.download())
        .header("if-none-match", format!("\"x\", W/{tag}"));
    let known = ask(known).await.expect(304);
    assert!(known.body.is_empty() && known.header("etag") == Some(&tag));
    assert_eq!(
        ask(get("bytes=0-4").header("if-range", &tag))
            .await
            .expect(206)
            .body
            .len(),
        5
    );
    let other = get("bytes=0-4").header("if-range", "\"x\"");
    assert_eq!(ask(other).await.expect(200).body.len(), bytes.len());
}

async fn first_bytes_may_come_with_the_creation(backend: Backend) {
    let server = Server::spawn(backend).await;
    let alice = Person::register(&server).await;
    let form = Form::ask(&server, &alice, "").await;
    let created = form
        .tus(&server, "POST", &form.location)
        .header("upload-length", "10")
        .header("content-type", "application/offset+octet-stream")
        .body(b"01234".to_vec());
    let created = ask(created).await.expect(201);
    assert_eq!(created.header("upload-offset"), Some("5"));
    ask(form.part(&server, 5, 10, b"56789")).await.expect(204);
    assert_eq!(downloaded(&server, &form).await, b"0123456789");
}

async fn a_part_with_a_checksum_is_kept_whole_or_not_at_all(backend: Backend) {
    use sha2::{Digest, Sha256};
    let server = Server::spawn(backend).await;
    let alice = Person::register(&server).await;
    let form = Form::ask(&server, &alice, "").await;
    form.open(&server).await;
    let bytes = content(5 * MIB);
    let with = |sum: [u8; 32]| {
        let sum = format!("sha256 {}", base64(&sum));
        ask(form
            .part(&server, 0, bytes.len(), &bytes)
            .header("upload-checksum", sum))
    };
    assert_eq!(with([0; 32]).await.expect(460).code(), "upload_checksum");
    assert_eq!(form.offset(&server).await, 0);
    with(Sha256::digest(&bytes).into()).await.expect(204);
    assert!(downloaded(&server, &form).await == bytes);
    // SHA-1, which tus asks servers to know; and of an upload whose length nobody said.
    let tested = Form::ask(&server, &alice, "").await;
    tested.open(&server).await;
    let sha1 = "sha1 qUqP5cyxm6YcTAhz05Hph5gvu9M=";
    let unknown = tested
        .tus(&server, "PATCH", &tested.path())
        .header("upload-offset", 0)
        .header("content-type", "application/offset+octet-stream")
        .header("upload-checksum", sha1);
    assert_eq!(ask(unknown.body("test")).await.expect(400).code(), "upload_length");
    let known = |bytes: &[u8]| ask(tested.part(&server, 0, 4, bytes).header("upload-checksum", sha1));
    known(b"Test").await.expect(460);
    known(b"test").await.expect(204);
    let other = Form::ask(&server, &alice, "").await;
    other.open(&server).await;
    let kind = other.part(&server, 0, 1, b"x").header("upload-checksum", "md5 AAAA");
    assert_eq!(ask(kind).await.expect(400).code(), "upload_headers");
}

async fn an_upload_can_be_given_up(backend: Backend) {
    let server = Server::spawn(backend).await;
    let alice = Person::register(&server).await;
    let store = server.place().path().join("data/attachments");
    let (open, complete) = (
        Form::ask(&server, &alice, "").await,
        uploaded(&server, &alice, b"bytes").await,
    );
    open.open(&server).await;
    open.cut_after(&server, 0, 10, b"12345").await;
    assert_eq!(files(&store).len(), 2);
    for form in [&open, &complete] {
        ask(form.tus(&server, "DELETE", &form.path())).await.expect(204);
        for method in ["DELETE", "HEAD"] {
            ask(form.tus(&server, method, &form.path())).await.expect(404);
        }
        ask(server.request("GET", &form.download())).await.expect(404);
        let again = form.tus(&server, "POST", &form.location).header("upload-length", "1");
        ask(again).await.expect(404);
    }
    assert!(files(&store).is_empty());
}

async fn parts_can_be_put_and_the_question_asked_how_far_they_are(backend: Backend) {
    let server = Server::spawn(backend).await;
    let alice = Person::register(&server).await;
    let form = Form::ask(&server, &alice, "").await;
    let url = format!("/upload/attachments/{}", form.capability());
    let opened = ask(server.request("POST", &url).header("content-length", "0"))
        .await
        .expect(201);
    let location = format!("http://{}{url}", server.address());
    assert_eq!(opened.header("location"), Some(location.as_str()));
    let bytes = content(MIB);
    let put = |range: String, body: &[u8]| {
        let request = server.request("PUT", &url).header("content-range", range);
        ask(request.body(body.to_vec()))
    };
    let whole = bytes.len();
    let asked = put(format!("bytes */{whole}"), b"").await.expect(308);
    assert_eq!(asked.header("range"), None);
    let first = put(format!("bytes 0-99999/{whole}"), &bytes[..100_000])
        .await
        .expect(308);
    assert_eq!(first.header("range"), Some("bytes=0-99999"));
    let asked = put(format!("bytes */{whole}"), b"").await.expect(308);
    assert_eq!(asked.header("range"), Some("bytes=0-99999"));
    // A part that begins elsewhere is told where to go on.
    let wrong = put(format!("bytes 5-9/{whole}"), &bytes[5..10]).await.expect(308);
    assert_eq!(wrong.header("range"), Some("bytes=0-99999"));
    for (malformed, body) in [
        ("bytes 100000-1/5".to_owned(), &b"x"[..]),
        (format!("bytes 100000-100009/{whole}"), b"x"),
    ] {
        assert_eq!(put(malformed, body).await.expect(400).code(), "content_range");
    }
    put(format!("bytes 100000-{}/{whole}", whole - 1), &bytes[100_000..])
        .await
        .expect(200);
    put(format!("bytes */{whole}"), b"").await.expect(200);
    assert!(downloaded(&server, &form).await == bytes);
}

async fn one_put_is_a_whole_upload(backend: Backend) {
    let server = Server::spawn(backend).await;
    let alice = Person::register(&server).await;
    let form = Form::ask(&server, &alice, "").await;
    let url = format!("/upload/attachments/{}", form.capability());
    let bytes = content(5 * MIB);
    ask(server.request("PUT", &url).body(bytes.clone())).await.expect(200);
    assert!(downloaded(&server, &form).await == bytes);
    let without = format!("PUT {url} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
    assert_eq!(raw_status(&server, without.as_bytes()).await, 411);
    // Both protocols write to the same upload.
    let mixed = Form::ask(&server, &alice, "").await;
    mixed.open(&server).await;
    mixed.cut_after(&server, 0, bytes.len(), &bytes[..1000]).await;
    let rest = server
        .request("PUT", &mixed.path())
        .header("authorization", &mixed.authorization)
        .header(
            "content-range",
            format!("bytes 1000-{}/{}", bytes.len() - 1, bytes.len()),
        );
    ask(rest.body(bytes[1000..].to_vec())).await.expect(200);
    assert!(downloaded(&server, &mixed).await == bytes);
}

async fn the_other_form_can_be_the_settings_choice(backend: Backend) {
    let server = Server::spawn_with(backend, &[("ATTACHMENTS__FORM", "put")]).await;
    let alice = Person::register(&server).await;
    let form = Form::ask(&server, &alice, "").await;
    assert_eq!(form.whole["cdn"], 2);
    assert_eq!(form.whole["headers"], serde_json::json!({}));
    let bytes = content(1000);
    ask(server.request("POST", &form.location)).await.expect(201);
    let whole = server
        .request("PUT", &form.location)
        .header("content-range", "bytes 0-999/1000");
    ask(whole.body(bytes.clone())).await.expect(200);
    assert!(downloaded(&server, &form).await == bytes);
}

async fn a_length_that_was_deferred_may_come_with_another_creation(backend: Backend) {
    let server = Server::spawn(backend).await;
    let alice = Person::register(&server).await;
    let form = Form::ask(&server, &alice, "").await;
    form.open(&server).await;
    let create = |length: usize| {
        let request = form.tus(&server, "POST", &form.location);
        ask(request.header("upload-length", length))
    };
    for _ in 0..2 {
        create(5).await.expect(201);
    }
    assert_eq!(create(6).await.expect(422).code(), "upload_length");
    let standing = ask(form.tus(&server, "HEAD", &form.path())).await.expect(200);
    assert_eq!(standing.header("upload-length"), Some("5"));
    ask(form.part(&server, 0, 5, b"12345")).await.expect(204);
    assert_eq!(downloaded(&server, &form).await, b"12345");
}

async fn t76_sigterm_ends_a_long_download_and_the_server_with_it(backend: Backend) {
    let mut server = Server::spawn(backend).await;
    let alice = Person::register(&server).await;
    let form = uploaded(&server, &alice, &content(40 * MIB)).await;
    // Taken steadily, but not so fast that it would end in time.
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    let request = format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", form.download());
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut taken = vec![0; 64 * 1024];
    stream.read_exact(&mut taken).await.unwrap();
    server.signal(Signal::TERM);
    let mut rest = 0;
    let taking = async {
        loop {
            // Waits for nothing: this is the reader that would take for ever.
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            match stream.read(&mut taken).await {
                Ok(0) | Err(_) => break,
                Ok(count) => rest += count,
            }
        }
    };
    within("the end of the body", taking).await;
    assert!(rest < 39 * MIB, "{rest}");
    assert_eq!(server.exit_code().await, Some(0));
}

#[tokio::test]
async fn an_upload_goes_on_at_the_other_node_postgres() {
    let (Some(_), Some(redis)) = (
        crate::support::server::postgres_url(),
        setting("BLIND_RELAY_TEST_REDIS_URL"),
    ) else {
        return;
    };
    let shared = tempfile::tempdir().unwrap();
    let dir = shared.path().to_str().unwrap();
    let (one, other) = spawn_pair(&redis, &[("ATTACHMENTS__DIR", dir)]).await;
    let alice = Person::register(&one).await;
    let form = Form::ask(&one, &alice, "").await;
    form.open(&one).await;
    let bytes = content(5 * MIB);
    form.cut_after(&one, 0, bytes.len(), &bytes[..70_000]).await;
    assert_eq!(form.offset(&other).await, 70_000);
    // A part that still trickles on one node yields to the one on the other.
    let mut trickling = form.begin(&one, 70_000, bytes.len(), &bytes[70_000..70_010]).await;
    ask(form.part(&other, 70_000, bytes.len(), &bytes[70_000..]))
        .await
        .expect(204);
    // The refusal comes when the first of it has come, and the connection ends with it: the rest may not be taken any more.
    let _ = trickling.write_all(&bytes[70_010..]).await;
    let mut status = [0; 12];
    within("an answer", trickling.read_exact(&mut status)).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 409");
    for node in [&one, &other] {
        assert!(downloaded(node, &form).await == bytes);
    }
}

#[tokio::test]
async fn bytes_may_be_in_a_bucket() {
    let Some(endpoint) = std::env::var("BLIND_RELAY_TEST_S3_URL")
        .ok()
        .filter(|url| !url.is_empty())
    else {
        eprintln!("skipped: BLIND_RELAY_TEST_S3_URL is not set");
        return;
    };
    let bucket = format!("it-{}", crate::support::hex(&crate::support::random::<8>()));
    let made = reqwest::Client::new()
        .put(format!("{endpoint}/{bucket}"))
        .send()
        .await
        .unwrap();
    assert!(made.status().is_success());
    let settings = [
        ("ATTACHMENTS__S3_BUCKET", bucket.as_str()),
        ("ATTACHMENTS__S3_ENDPOINT", &endpoint),
        ("ATTACHMENTS__S3_ACCESS_KEY_ID", "test"),
        ("ATTACHMENTS__S3_SECRET_ACCESS_KEY", "test"),
        ("ATTACHMENTS__S3_PREFIX", "some/where"),
    ];
    let server = Server::spawn_with(Backend::Sqlite, &settings).await;
    let alice = Person::register(&server).await;
    let form = Form::ask(&server, &alice, "").await;
    form.open(&server).await;
    let bytes = content(9 * MIB);
    form.cut_after(&server, 0, bytes.len(), &bytes[..5 * MIB]).await;
    ask(form.part(&server, 5 * MIB, bytes.len(), &bytes[5 * MIB..]))
        .await
        .expect(204);
    assert!(downloaded(&server, &form).await == bytes);
    let range = server
        .request("GET", &form.download())
        .header("range", "bytes=4194300-4194310");
    assert!(ask(range).await.expect(206).body == bytes[4_194_300..4_194_311]);
    ask(form.tus(&server, "DELETE", &form.path())).await.expect(204);
    ask(server.request("GET", &form.download())).await.expect(404);
    // A store that goes away is our failure, and is said so.
    let listed = reqwest::get(format!("{endpoint}/{bucket}?list-type=2"))
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    assert!(!listed.contains("<Key>"), "{listed}");
    assert_eq!(
        ask(reqwest::Client::new().delete(format!("{endpoint}/{bucket}")))
            .await
            .status,
        204
    );
    let lost = Form::ask(&server, &alice, "").await;
    lost.open(&server).await;
    assert_eq!(
        ask(lost.part(&server, 0, 5, b"bytes")).await.expect(503).code(),
        "unavailable"
    );
    assert!(!server.log().contains(&lost.key));
}

#[tokio::test]
async fn a_form_asked_through_a_socket_names_the_same_place() {
    let server = Server::spawn(Backend::Sqlite).await;
    let alice = Person::register(&server).await;
    let plain = Form::ask(&server, &alice, "?uploadLength=1").await;
    let mut socket = alice.connect(&server).await;
    let path = "/v4/attachments/form/upload?uploadLength=1";
    let tunnelled = socket.ask("GET", path, &[], None).await.expect(200);
    assert_eq!(
        tunnelled.json()["signedUploadLocation"],
        plain.whole["signedUploadLocation"]
    );
    Form::read(&server, &tunnelled).upload(&server, b"x").await;
    // Bytes do not pass through sockets.
    let mut anonymous = Socket::open(&server, None, &[]).await.unwrap();
    anonymous.ask("GET", &plain.download(), &[], None).await.expect(404);
    anonymous
        .ask("PUT", &format!("/upload/attachments/{}", plain.capability()), &[], None)
        .await
        .expect(404);

    // A header that a proxy may have added is not looked at.
    let forwarded = alice
        .request(&server, "GET", path)
        .header("x-forwarded-host", "evil.example");
    let forwarded = ask(forwarded.header("x-forwarded-proto", "https"))
        .await
        .expect(200)
        .json();
    assert_eq!(forwarded["signedUploadLocation"], plain.whole["signedUploadLocation"]);
    let strange = alice.request(&server, "GET", path).header("host", "evil.example/path?");
    assert_eq!(ask(strange).await.expect(400).code(), "host");
}

#[tokio::test]
async fn a_form_says_https_where_tls_is_spoken_and_the_host_of_http2() {
    let mut plain = Server::spawn(Backend::Sqlite).await;
    let alice = Person::register(&plain).await;
    let authorization = alice.authorization();
    let location = async |client: Http2| {
        let headers = [("authorization", authorization.as_str())];
        let answer = client.ask("GET", "/v4/attachments/form/upload", &headers, "").await;
        let form = answer.expect(200).json();
        form["signedUploadLocation"].as_str().unwrap().to_owned()
    };
    let wanted = "://relay/upload/attachments";
    assert_eq!(location(Http2::connect(&plain).await).await, format!("http{wanted}"));
    plain.kill();
    let server = Server::start(Arc::clone(plain.place()), "data", &[("TLS_SELF_SIGNED", "true")]);
    let ca = server.place().path().join("data/tls/ca-cert.pem");
    assert_eq!(
        location(Http2::connect_tls(&server, &ca).await).await,
        format!("https{wanted}")
    );
}

#[tokio::test]
async fn the_public_url_is_the_operators() {
    let settings = [("PUBLIC_URL", "https://relay.example.org/below/")];
    let server = Server::spawn_with(Backend::Sqlite, &settings).await;
    let alice = Person::register(&server).await;
    let answer = ask(alice.request(&server, "GET", "/v4/attachments/form/upload"))
        .await
        .expect(200);
    let form: Value = answer.json();
    assert_eq!(
        form["signedUploadLocation"],
        "https://relay.example.org/below/upload/attachments"
    );
    let created = server
        .request("POST", "/upload/attachments")
        .header("authorization", form["headers"]["Authorization"].as_str().unwrap())
        .header("tus-resumable", "1.0.0")
        .header("upload-length", "5");
    let location = format!(
        "https://relay.example.org/below/upload/attachments/{}",
        form["key"].as_str().unwrap()
    );
    assert_eq!(
        ask(created).await.expect(201).header("location"),
        Some(location.as_str())
    );
}

#[tokio::test]
async fn what_is_said_wrongly_is_refused_and_changes_nothing() {
    let server = Server::spawn(Backend::Sqlite).await;
    let alice = Person::register(&server).await;
    let form = Form::ask(&server, &alice, "").await;
    let code = |answer: Answer, status: u16| answer.expect(status).code();
    let post = || form.tus(&server, "POST", &form.location);
    assert_eq!(code(ask(post()).await, 400), "upload_length");
    let both = post().header("upload-length", "1").header("upload-defer-length", "1");
    assert_eq!(code(ask(both).await, 400), "upload_headers");
    assert_eq!(
        code(ask(post().header("upload-length", "-1")).await, 400),
        "upload_headers"
    );
    assert_eq!(
        code(ask(post().header("upload-length", "999999999999")).await, 413),
        "attachment_too_large"
    );
    let bare = |method: &str, path: &str| {
        server
            .request(method, path)
            .header("authorization", &form.authorization)
    };
    for (method, path) in [
        ("POST", form.location.clone()),
        ("PATCH", form.path()),
        ("DELETE", form.path()),
    ] {
        let without = ask(bare(method, &path)).await;
        assert_eq!(without.header("tus-version"), Some("1.0.0"));
        assert_eq!(code(without, 412), "tus_version");
        assert_eq!(
            code(ask(bare(method, &path).header("tus-resumable", "0.2.2")).await, 412),
            "tus_version"
        );
    }
    ask(form.part(&server, 0, 5, b"bytes")).await.expect(404);
    ask(form.tus(&server, "HEAD", &form.path())).await.expect(404);
    form.open(&server).await;
    let patch = || form.tus(&server, "PATCH", &form.path());
    assert_eq!(
        code(ask(patch().header("upload-offset", "0").body("x")).await, 415),
        "upload_type"
    );
    let bytes = || patch().header("content-type", "application/offset+octet-stream");
    assert_eq!(code(ask(bytes().body("x")).await, 400), "upload_headers");
    assert_eq!(
        code(ask(bytes().header("upload-offset", "1").body("x")).await, 409),
        "upload_offset"
    );
    assert_eq!(form.offset(&server).await, 0);
    let asked = |query: &str| alice.request(&server, "GET", &format!("/v4/attachments/form/upload{query}"));
    assert_eq!(
        code(ask(asked("?uploadLength=111149057")).await, 413),
        "attachment_too_large"
    );
    for query in ["?uploadLength=-1", "?uploadLength=x", "?uploadLength="] {
        assert_eq!(code(ask(asked(query)).await, 400), "malformed_query", "{query}");
    }
    let options = ask(server.request("OPTIONS", "/upload/attachments")).await.expect(204);
    assert_eq!(options.header("tus-version"), Some("1.0.0"));
    assert_eq!(options.header("tus-checksum-algorithm"), Some("sha1,sha256"));
    assert_eq!(options.header("tus-max-size"), Some("111149056"));
    assert!(options.header("tus-extension").unwrap().contains("creation"));
}

#[tokio::test]
async fn who_stands_still_is_given_up_and_what_came_is_kept() {
    let server = Server::spawn_with(Backend::Sqlite, &[("ATTACHMENTS__IDLE_SECS", "1")]).await;
    let alice = Person::register(&server).await;
    let form = Form::ask(&server, &alice, "").await;
    form.open(&server).await;
    let mut writing = form.begin(&server, 0, 1000, b"12345").await;
    let mut status = [0; 12];
    within("the end of patience", writing.read_exact(&mut status))
        .await
        .unwrap();
    assert_eq!(&status, b"HTTP/1.1 408");
    assert_eq!(form.offset(&server).await, 5);

    // Far more than any socket buffers, so that the server has to wait for the reader.
    let large = uploaded(&server, &alice, &content(60 * MIB)).await;
    let mut reading = TcpStream::connect(server.address()).await.unwrap();
    let request = format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", large.download());
    reading.write_all(request.as_bytes()).await.unwrap();
    let descriptors = format!("/proc/{}/fd", server.pid().as_raw_nonzero());
    let holds_a_segment = || {
        let links = std::fs::read_dir(&descriptors).unwrap();
        links
            .filter_map(|link| std::fs::read_link(link.unwrap().path()).ok())
            .any(|file| file.starts_with(server.place().path().join("data/attachments")))
    };
    until("a segment to be read", async || holds_a_segment()).await;
    until("the download to be given up", async || !holds_a_segment()).await;
    let mut rest = Vec::new();
    // The end comes early: by a reset, or by fewer bytes than were said.
    let _ = within("the end of the connection", reading.read_to_end(&mut rest)).await;
    assert!(rest.len() < 60 * MIB);
}

#[tokio::test]
async fn only_so_many_uploads_are_written_at_once() {
    let server = Server::spawn_with(Backend::Sqlite, &[("ATTACHMENTS__MAX_UPLOADS", "1")]).await;
    let alice = Person::register(&server).await;
    let (first, second) = (
        Form::ask(&server, &alice, "").await,
        Form::ask(&server, &alice, "").await,
    );
    first.open(&server).await;
    second.open(&server).await;
    let bytes = content(5 * MIB);
    let writing = first.begin(&server, 0, bytes.len(), &bytes[..4 * MIB + 100]).await;
    // What it has written shows that it has the place; a request in between could take it from it.
    until("the first segment", async || first.offset(&server).await == 4 * MIB).await;
    let answer = ask(second.part(&server, 0, 5, b"bytes")).await;
    assert_eq!(answer.expect(503).code(), "uploads_busy");
    drop(writing);
    until("a free place", async || {
        ask(second.part(&server, 0, 5, b"bytes")).await.status == 204
    })
    .await;
}

#[tokio::test]
async fn a_stopping_server_keeps_what_came_of_an_upload() {
    let mut server = Server::spawn(Backend::Sqlite).await;
    let alice = Person::register(&server).await;
    let form = Form::ask(&server, &alice, "").await;
    form.open(&server).await;
    let bytes = content(5 * MIB);
    let mut writing = form.begin(&server, 0, bytes.len(), &bytes[..4 * MIB + 100]).await;
    until("the first segment", async || form.offset(&server).await == 4 * MIB).await;
    server.signal(Signal::TERM);
    let mut status = [0; 12];
    within("an answer", writing.read_exact(&mut status)).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 503");
    drop(writing);
    assert_eq!(server.exit_code().await, Some(0));
    let server = server.restart();
    assert_eq!(form.offset(&server).await, 4 * MIB + 100);
}
