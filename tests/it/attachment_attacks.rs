//! Attachments under attack: guessing, path tricks, lies about lengths, ranges, budgets (T50 to T54).

use crate::support::attachments::{Form, content, downloaded, files, raw_status, uploaded};
use crate::support::{Answer, Backend, Person, Server, ask, on_each_backend, random, until};

on_each_backend! {
    t50_what_is_not_there_answers_alike_and_tags_are_for_holders_of_the_key
    t51_path_tricks_are_refused_and_touch_no_file
    t52_bytes_that_are_not_as_said_are_never_visible_and_go_soon
    t53_many_ranges_are_refused_and_nothing_is_shown_as_a_page
    t54_uploads_at_once_do_not_pass_the_quota_of_a_day
    t54_single_bytes_do_not_pass_the_quota_of_a_day
    downloads_that_nobody_takes_do_not_keep_others_out_for_ever
}

async fn t50_what_is_not_there_answers_alike_and_tags_are_for_holders_of_the_key(backend: Backend) {
    let server = Server::spawn(backend).await;
    let (alice, bob) = (Person::register(&server).await, Person::register(&server).await);
    let there = uploaded(&server, &alice, b"ciphertext").await;
    let tag = ask(server.request("GET", &there.download()))
        .await
        .header("etag")
        .unwrap()
        .to_owned();
    let open = Form::ask(&server, &alice, "").await;
    open.open(&server).await;
    open.cut_after(&server, 0, 10, b"12345").await;
    let gone = uploaded(&server, &alice, b"ciphertext").await;
    ask(gone.tus(&server, "DELETE", &gone.path())).await.expect(204);
    let never = Form::ask(&server, &alice, "").await;
    let short = "/attachments/AAAA".to_owned();
    let other = format!("/attachments/{}", crate::support::hex(&random::<16>()));
    let looks = async |path: &str, name: &str, value: &str| {
        let answer = ask(server.request("GET", path).header(name, value)).await.expect(404);
        assert_eq!(answer.header("etag"), None);
        answer.looks()
    };
    let alike = looks(&other, "accept", "*/*").await;
    for path in [&open.download(), &gone.download(), &never.download(), &short] {
        for (name, value) in [
            ("accept", "*/*"),
            ("if-none-match", "*"),
            ("if-none-match", &tag),
            ("range", "bytes=0-"),
        ] {
            assert_eq!(looks(path, name, value).await, alike, "{path} {name}");
        }
    }
    // Credentials change nothing, and no account is needed with the key.
    ask(bob.request(&server, "GET", &open.download())).await.expect(404);
    ask(bob.request(&server, "GET", &there.download())).await.expect(200);
    // The key alone uploads nothing.
    for method in ["HEAD", "PATCH", "DELETE", "PUT", "POST"] {
        ask(server.request(method, &there.path()).header("tus-resumable", "1.0.0"))
            .await
            .expect(403);
    }
    assert_eq!(downloaded(&server, &there).await, b"ciphertext");
}

async fn t51_path_tricks_are_refused_and_touch_no_file(backend: Backend) {
    let server = Server::spawn(backend).await;
    let alice = Person::register(&server).await;
    let form = uploaded(&server, &alice, b"ciphertext").await;
    let outside = server.place().path().to_owned();
    let before = files(&outside.join("data/attachments"));
    let long = "A".repeat(10 * 1024);
    let tricks = [
        "..",
        "../relay.db",
        "../../etc/passwd",
        "..%2f..%2fetc%2fpasswd",
        "%2e%2e%2frelay.db",
        "%2e%2e",
        "%2fetc%2fpasswd",
        "http://127.0.0.1/x",
        "file:///etc/passwd",
        "a%00b",
        "%00",
        "a%0d%0ab",
        "a%5cb",
        "a/b",
        "%ff",
        "x.y",
        &long,
    ];
    for trick in tricks {
        for base in ["/attachments/", "/upload/attachments/"] {
            let methods: &[&str] = if base == "/attachments/" {
                &["GET", "HEAD"]
            } else {
                &["HEAD", "PATCH", "PUT", "POST", "DELETE"]
            };
            for method in methods {
                let request = format!(
                    "{method} {base}{trick} HTTP/1.1\r\nHost: x\r\nTus-Resumable: 1.0.0\r\nAuthorization: {}\r\n\
                     Content-Length: 0\r\nConnection: close\r\n\r\n",
                    form.authorization
                );
                let status = raw_status(&server, request.as_bytes()).await;
                assert_eq!(status, 400, "{method} {base}{}", &trick[..trick.len().min(30)]);
            }
        }
    }
    assert_eq!(
        raw_status(&server, b"GET /attachments/a\0b HTTP/1.1\r\nHost: x\r\n\r\n").await,
        400
    );
    assert_eq!(files(&outside.join("data/attachments")), before);
    assert!(!outside.join("etc").exists());
}

async fn t52_bytes_that_are_not_as_said_are_never_visible_and_go_soon(backend: Backend) {
    let times = [("ATTACHMENTS__INCOMPLETE_SECS", "2"), ("ATTACHMENTS__IDLE_SECS", "1")];
    let mut server = Server::spawn_with(backend, &times).await;
    let alice = Person::register(&server).await;
    let bytes = content(100_000);
    let invisible = async |form: &Form| {
        ask(server.request("GET", &form.download())).await.expect(404);
    };
    // Longer than declared: announced, and in chunks whose sum nobody announced.
    let longer = Form::ask(&server, &alice, "").await;
    let opened = longer
        .tus(&server, "POST", &longer.location)
        .header("upload-length", "99999");
    ask(opened).await.expect(201);
    let part = longer
        .tus(&server, "PATCH", &longer.path())
        .header("upload-offset", "0")
        .header("content-type", "application/offset+octet-stream");
    assert_eq!(ask(part.body(bytes.clone())).await.expect(422).code(), "upload_longer");
    let chunked = format!(
        "PATCH {} HTTP/1.1\r\nHost: x\r\nTus-Resumable: 1.0.0\r\nAuthorization: {}\r\nUpload-Offset: 0\r\n\
         Content-Type: application/offset+octet-stream\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n",
        longer.path(),
        longer.authorization,
        bytes.len()
    );
    let mut chunked = chunked.into_bytes();
    chunked.extend_from_slice(&bytes);
    chunked.extend_from_slice(b"\r\n0\r\n\r\n");
    assert_eq!(raw_status(&server, &chunked).await, 422);
    invisible(&longer).await;
    // Upload-Length says that there is nothing more, and a body comes all the same.
    let nothing = Form::ask(&server, &alice, "").await;
    let with_body = nothing
        .tus(&server, "POST", &nothing.location)
        .header("upload-length", "0")
        .header("content-type", "application/offset+octet-stream");
    assert_eq!(ask(with_body.body("x")).await.expect(422).code(), "upload_longer");
    ask(nothing.tus(&server, "HEAD", &nothing.path())).await.expect(404);
    let finished = Form::ask(&server, &alice, "").await;
    finished.open(&server).await;
    ask(finished
        .tus(&server, "PATCH", &finished.path())
        .header("upload-offset", "0")
        .header("content-type", "application/offset+octet-stream")
        .body("12345"))
    .await
    .expect(204);
    ask(finished.part(&server, 5, 5, b"x")).await.expect(422);
    invisible(&finished).await;
    // A part that goes on behind the end of its Content-Range.
    let put = format!(
        "PUT {} HTTP/1.1\r\nHost: x\r\nAuthorization: {}\r\nContent-Range: bytes 5-6/7\r\n\
         Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        finished.path(),
        finished.authorization
    );
    assert_eq!(raw_status(&server, put.as_bytes()).await, 422);
    invisible(&finished).await;
    // A length that changes.
    let other = longer.part(&server, 0, 99_998, b"x");
    assert_eq!(ask(other).await.expect(422).code(), "upload_length");
    // A hash that does not fit.
    let hashed = Form::ask(&server, &alice, "").await;
    hashed.open(&server).await;
    let wrong = format!("sha256 {}", crate::support::keys::base64(&[0; 32]));
    let wrong = hashed
        .part(&server, 0, bytes.len(), &bytes)
        .header("upload-checksum", wrong);
    ask(wrong).await.expect(460);
    invisible(&hashed).await;
    // Aborted at 99 %.
    let aborted = Form::ask(&server, &alice, "").await;
    aborted.open(&server).await;
    drop(aborted.begin(&server, 0, bytes.len(), &bytes[..99_000]).await);
    invisible(&aborted).await;
    let answers = async |method: &str| ask(aborted.tus(&server, method, &aborted.path())).await.status;
    until("the end of the upload", async || answers("HEAD").await == 404).await;
    invisible(&aborted).await;
    // Swept once a minute, and when a server starts.
    server.kill();
    let server = server.restart();
    let store = server.place().path().join("data/attachments");
    until("an empty store", async || files(&store).is_empty()).await;
    ask(aborted.part(&server, 99_000, bytes.len(), &bytes[99_000..]))
        .await
        .expect(404);
}

async fn t53_many_ranges_are_refused_and_nothing_is_shown_as_a_page(backend: Backend) {
    let server = Server::spawn(backend).await;
    let (alice, bob) = (Person::register(&server).await, Person::register(&server).await);
    let page = b"<html><script>alert(1)</script></html>";
    let form = uploaded(&server, &alice, page).await;
    let get = |range: &str| ask(server.request("GET", &form.download()).header("range", range));
    let many = format!(
        "bytes={}",
        (0..1000).map(|at| format!("{}-", at % 5)).collect::<Vec<_>>().join(",")
    );
    assert_eq!(get(&many).await.expect(416).code(), "range");
    assert_eq!(get("bytes=0-1,2-3").await.expect(416).code(), "range");
    let twice = server
        .request("GET", &form.download())
        .header("range", "bytes=0-1")
        .header("range", "bytes=2-3");
    ask(twice).await.expect(416);
    let shown = ask(server.request("GET", &form.download())).await.expect(200);
    for (name, value) in [
        ("content-type", "application/octet-stream"),
        ("x-content-type-options", "nosniff"),
        ("content-disposition", "attachment"),
        ("content-security-policy", "default-src 'none'; sandbox"),
    ] {
        assert_eq!(shown.header(name), Some(value));
    }
    // Another form of another account, or of the same one, does not remove it.
    for person in [&alice, &bob] {
        let own = Form::ask(&server, person, "").await;
        ask(own.tus(&server, "DELETE", &form.path())).await.expect(403);
    }
    ask(bob
        .request(&server, "DELETE", &form.path())
        .header("tus-resumable", "1.0.0"))
    .await
    .expect(403);
    assert_eq!(downloaded(&server, &form).await, page);
}

async fn t54_uploads_at_once_do_not_pass_the_quota_of_a_day(backend: Backend) {
    let settings = [
        ("ATTACHMENTS__MAX_BYTES", "1000000"),
        ("ATTACHMENTS__DAILY_BYTES", "3000000"),
    ];
    let server = Server::spawn_with(backend, &settings).await;
    let (alice, bob) = (Person::register(&server).await, Person::register(&server).await);
    let refused = |answer: &Answer| {
        let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
        (1..=86_400).contains(&wait)
    };
    // Forms that name a length are paid when they are made.
    let path = "/v4/attachments/form/upload?uploadLength=700000";
    let asking = (0..10).map(|_| ask(alice.request(&server, "GET", path)));
    let answers = futures_util::future::join_all(asking).await;
    assert_eq!(answers.iter().filter(|answer| answer.status == 200).count(), 4);
    for answer in answers.iter().filter(|answer| answer.status != 200) {
        assert_eq!((answer.status, answer.code().as_str()), (429, "attachment_quota"));
        assert!(refused(answer));
    }
    let form = Form::read(&server, answers.iter().find(|answer| answer.status == 200).unwrap());
    let small = form
        .tus(&server, "POST", &form.location)
        .header("upload-length", "700001");
    assert_eq!(ask(small).await.expect(413).code(), "attachment_too_large");
    // Others are paid as their bytes come.
    let mut forms = Vec::new();
    for _ in 0..8 {
        forms.push(Form::ask(&server, &bob, "").await);
    }
    let bytes = content(600_000);
    let uploading = forms.iter().map(|form| async {
        let created = form
            .tus(&server, "POST", &form.location)
            .header("upload-defer-length", "1");
        let created = ask(created).await;
        if created.status != 201 {
            return created;
        }
        ask(form.part(&server, 0, bytes.len(), &bytes)).await
    });
    let answers = futures_util::future::join_all(uploading).await;
    let stored = answers.iter().filter(|answer| answer.status == 204).count();
    assert!((1..=5).contains(&stored), "{stored}");
    for answer in answers.iter().filter(|answer| answer.status != 204) {
        assert_eq!(answer.code(), "attachment_quota");
        assert!(refused(answer));
    }
    let mut visible = 0;
    for form in &forms {
        visible += usize::from(ask(server.request("GET", &form.download())).await.status == 200);
    }
    assert_eq!(visible, stored);
}

async fn t54_single_bytes_do_not_pass_the_quota_of_a_day(backend: Backend) {
    let settings = [
        ("ATTACHMENTS__MAX_BYTES", "1000000"),
        ("ATTACHMENTS__DAILY_BYTES", "1000000"),
    ];
    let server = Server::spawn_with(backend, &settings).await;
    let alice = Person::register(&server).await;
    let form = Form::ask(&server, &alice, "").await;
    form.open(&server).await;
    for at in 0..15 {
        ask(form.part(&server, at, 16, b"x")).await.expect(204);
    }
    let refused = ask(form.part(&server, 15, 16, b"x")).await.expect(429);
    assert_eq!(refused.code(), "attachment_quota");
    let store = server.place().path().join("data/attachments");
    assert_eq!(files(&store).len(), 15);
}

async fn downloads_that_nobody_takes_do_not_keep_others_out_for_ever(backend: Backend) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let settings = [("ATTACHMENTS__MAX_DOWNLOADS", "1"), ("ATTACHMENTS__IDLE_SECS", "1")];
    let server = Server::spawn_with(backend, &settings).await;
    let alice = Person::register(&server).await;
    // More than sockets hold.
    let form = uploaded(&server, &alice, &content(40 * 1024 * 1024)).await;
    let mut held = tokio::net::TcpStream::connect(server.address()).await.unwrap();
    let request = format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", form.download());
    held.write_all(request.as_bytes()).await.unwrap();
    held.read_exact(&mut [0; 12]).await.unwrap();
    let first = || {
        let request = server.request("GET", &form.download());
        ask(request.header("range", "bytes=0-0"))
    };
    let busy = first().await.expect(503);
    assert_eq!(
        (busy.code().as_str(), busy.header("retry-after")),
        ("downloads_busy", Some("5"))
    );
    ask(server.request("HEAD", &form.download())).await.expect(200);
    until("a place", async || first().await.status == 206).await;
}
