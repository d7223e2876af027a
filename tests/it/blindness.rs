//! What logs, metrics and files must never hold, searched for in every form in which it could be there.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use serde_json::json;
use sqlx::Connection;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::keys::base64;
use crate::support::person::{basic, open_session};
use crate::support::usernames::{Name, url_safe};
use crate::support::{Backend, Person, Server, Socket, ask, hex, on_each_backend, random, send, single};

on_each_backend! {
    t72_trace_logs_and_metrics_of_a_conversation_hold_nothing_personal
}

const USER_AGENT: &str = "a-very-personal-agent/7.3";

async fn t72_trace_logs_and_metrics_of_a_conversation_hold_nothing_personal(backend: Backend) {
    for format in ["text", "json"] {
        let server = Server::spawn_with(backend, &[("LOG", format), ("LOG_LEVEL", "trace")]).await;
        let conversation = converse(&server).await;
        // The admin's address is the operator's own, and the only one there may be.
        let log = server.log();
        assert!(log.contains("serving"), "{log}");
        assert_eq!(log.matches("127.0.0.1").count(), 1, "{log}");
        let text = format!("{log}\n{}", server.metrics().await);
        for secret in &conversation.secrets {
            let found = secret.find(text.as_bytes());
            assert!(
                found.is_none(),
                "the {} is in the {format} log as {found:?}",
                secret.name
            );
        }
        for port in conversation.ports {
            assert!(!text.contains(&format!(":{port}")), "a client's port");
        }
    }
}

#[test]
fn the_search_finds_a_planted_value_in_every_form() {
    let secret = Secret::new("canary", *b"sixteen byte key");
    let bytes = *b"sixteen byte key";
    for planted in [
        "sixteen byte key".to_owned(),
        hex(&bytes),
        hex(&bytes).to_uppercase(),
        format!("{bytes:?}"),
        base64(&bytes),
        base64(&[b"1", &bytes[..], b"22"].concat()),
        base64(&[b"12", &bytes[..], b"22"].concat()),
        URL_SAFE_NO_PAD.encode([b"12", &bytes[..]].concat()),
        uuid::Uuid::from_bytes(bytes).to_string(),
        uuid::Uuid::from_bytes(bytes).to_string().to_uppercase(),
    ] {
        assert!(
            secret.find(format!("2026 TRACE x={planted} y=1").as_bytes()).is_some(),
            "{planted}"
        );
    }
    assert!(secret.find(b"2026 TRACE nothing here, not even 736978").is_none());
}

#[tokio::test]
async fn b15_t71_the_database_file_holds_no_number_password_access_key_or_address() {
    let mut server = Server::spawn(Backend::Sqlite).await;
    let conversation = converse(&server).await;
    let open = Person::new();
    open_session(&server, &open.number).await;
    let mut secrets = conversation.secrets;
    secrets.push(Secret::new("number of a session", open.number.as_bytes()));
    // Killed, so that the write-ahead log is still there.
    server.kill();
    let mut all = Vec::new();
    for entry in std::fs::read_dir(server.place().sqlite().parent().unwrap()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            all.extend(std::fs::read(path).unwrap());
        }
    }
    assert!(all.starts_with(b"SQLite format 3") || all.windows(15).any(|at| at == b"SQLite format 3"));
    for secret in secrets.iter().filter(|secret| secret.stays_out_of_the_database()) {
        let found = secret.find(&all);
        assert!(found.is_none(), "the {} is in the database as {found:?}", secret.name);
    }
    let device = conversation.alice.device_name;
    assert!(
        Secret::new("device name", device).find(&all).is_some(),
        "the search finds what is there"
    );
}

#[tokio::test]
async fn t20_a_number_in_another_devices_row_does_not_open() {
    let mut server = Server::spawn(Backend::Sqlite).await;
    let (alice, bob) = (Person::register(&server).await, Person::register(&server).await);
    server.kill();
    let url = format!("sqlite://{}", server.place().sqlite().display());
    let mut db = sqlx::SqliteConnection::connect(&url).await.unwrap();
    let ids = [&alice, &bob].map(|person| uuid::Uuid::parse_str(&person.aci).unwrap());
    let moved = sqlx::query(MOVE_NUMBER)
        .bind(&ids[0].as_bytes()[..])
        .bind(&ids[1].as_bytes()[..])
        .execute(&mut db)
        .await
        .unwrap();
    assert_eq!(moved.rows_affected(), 1);
    db.close().await.unwrap();
    let server = server.restart();
    let answer = ask(alice.request(&server, "GET", "/v1/accounts/whoami"))
        .await
        .expect(503);
    assert!(!String::from_utf8_lossy(&answer.body).contains(&bob.number));
    let whoami = ask(bob.request(&server, "GET", "/v1/accounts/whoami"))
        .await
        .expect(200)
        .json();
    assert_eq!(whoami["number"], bob.number);
}

const MOVE_NUMBER: &str = "UPDATE devices SET sealed_number = (SELECT sealed_number FROM devices WHERE aci = $2) \
    WHERE aci = $1";

/// Something that must not be found.
struct Secret {
    name: &'static str,
    forms: Vec<Vec<u8>>,
}

impl Secret {
    fn new(name: &'static str, bytes: impl AsRef<[u8]>) -> Self {
        let bytes = bytes.as_ref();
        let list = format!("{bytes:?}");
        let mut forms = vec![bytes.to_owned(), hex(bytes).into(), hex(bytes).to_uppercase().into()];
        forms.push(list[1..list.len() - 1].to_owned().into());
        // Base64 depends on what stands before; what it shares with its neighbours is left out.
        for shift in 0..3 {
            let whole = (bytes.len() - shift) / 3 * 3;
            for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
                forms.push(engine.encode(&bytes[shift..shift + whole]).into());
            }
        }
        if let Ok(bytes) = <[u8; 16]>::try_from(bytes) {
            let text = uuid::Uuid::from_bytes(bytes).to_string();
            forms.extend([text.to_uppercase().into(), text.into()]);
        }
        Self { name, forms }
    }

    /// The form in which it is there.
    fn find(&self, text: &[u8]) -> Option<String> {
        let found = self
            .forms
            .iter()
            .find(|form| text.windows(form.len()).any(|window| window == form.as_slice()))?;
        Some(String::from_utf8_lossy(found).into_owned())
    }

    fn stays_out_of_the_database(&self) -> bool {
        [
            "ciphertext",
            "sealed ciphertext",
            "refused ciphertext",
            "number",
            "digits",
            "password",
            "credentials",
            "access key",
            "user agent",
            "recovery password",
            "registration lock",
            "link token",
            "session",
            "username proof",
        ]
        .contains(&self.name)
            || self.name.starts_with("number")
    }
}

struct Conversation {
    alice: Person,
    secrets: Vec<Secret>,
    /// Of connections that clients opened.
    ports: Vec<u16>,
}

/// Everything that two people do with a server, and much that it refuses.
async fn converse(server: &Server) -> Conversation {
    let (alice, bob) = (Person::register(server).await, Person::register(server).await);
    let (ciphertext, sealed, refused) = (random::<64>(), random::<64>(), random::<64>());
    let (recovery, lock) = (random::<32>(), random::<32>());
    let mut attributes = alice.attributes();
    attributes["recoveryPassword"] = base64(&recovery).into();
    attributes["registrationLock"] = hex(&lock).into();
    ask(alice
        .request(server, "PUT", "/v1/accounts/attributes")
        .json(&attributes))
    .await
    .expect(204);
    for person in [&alice, &bob] {
        person.upload_keys(server, 1, 3).await;
        ask(person
            .request(server, "GET", "/v1/accounts/whoami")
            .header("user-agent", USER_AGENT))
        .await
        .expect(200);
    }
    ask(alice.request(server, "GET", &format!("/v2/keys/{}/*", bob.aci)))
        .await
        .expect(200);
    ask(alice.request(server, "GET", &format!("/v2/keys/PNI:{}/1", bob.pni)))
        .await
        .expect(200);
    let laptop = alice.link(server).await;
    ask(laptop.request(server, "GET", "/v1/devices")).await.expect(200);
    // A second one is offered a place, and is too late.
    let (open, used) = (alice.link_code(server).await, alice.link_code(server).await);
    let late = alice.new_device();
    for status in [200, 403] {
        ask(late.linking(server, &used)).await.expect(status);
    }
    ask(alice.request(server, "DELETE", "/v1/devices/3")).await.expect(204);
    send(server, &alice, &bob, &ciphertext).await.expect(200);
    let key = server
        .request("PUT", &bob.inbox())
        .header("unidentified-access-key", bob.access_key_header());
    ask(key.json(&single(&bob, 6, &sealed))).await.expect(200);
    let agent = [("user-agent", USER_AGENT)];
    let mut socket = Socket::open(server, Some(&bob.authorization()), &agent).await.unwrap();
    assert_eq!(socket.drain().await.len(), 2);
    socket.ask("GET", "/v1/accounts/whoami", &[], None).await.expect(200);
    let mut online = single(&bob, 1, &ciphertext);
    online["online"] = true.into();
    ask(alice.request(server, "PUT", &bob.inbox()).json(&online))
        .await
        .expect(200);
    socket.content().await;
    socket.keepalive().await;

    let (version, commitment, name) = (random::<32>(), random::<97>(), random::<81>());
    let profile = json!({ "version": hex(&version), "commitment": base64(&commitment), "name": base64(&name) });
    ask(bob.request(server, "PUT", "/v1/profile").json(&profile))
        .await
        .expect(200);
    let path = format!("/v1/profile/{}/{}", bob.aci, hex(&version));
    ask(alice.request(server, "GET", &path)).await.expect(200);
    let report = format!("/v1/messages/report/{}/{}", alice.aci, uuid::Uuid::from_bytes(random()));
    ask(bob.request(server, "POST", &report)).await.expect(202);

    let username = Name::of(server, &alice).await;
    username.find(server).await.expect(200);
    let (entry, value) = (random::<32>(), random::<64>());
    let entry_path = format!("/v1/data/{}", url_safe(&entry));
    for status in [200, 409] {
        let body = json!({ "version": 0, "value": base64(&value) });
        ask(alice.request(server, "PUT", &entry_path).json(&body))
            .await
            .expect(status);
    }
    ask(alice.request(server, "GET", &entry_path)).await.expect(200);

    // Refusals of every kind.
    ask(server
        .request("GET", "/v1/accounts/whoami")
        .basic_auth(&alice.aci, Some(&bob.password)))
    .await
    .expect(401);
    let wrong = basic(&bob.aci, &alice.password);
    assert_eq!(Socket::open(server, Some(&wrong), &agent).await.err(), Some(403));
    let mut stale = single(&bob, 1, &refused);
    stale["messages"][0]["destinationRegistrationId"] = 0.into();
    ask(alice.request(server, "PUT", &bob.inbox()).json(&stale))
        .await
        .expect(410);
    let mut extra = single(&bob, 1, &refused);
    extra["messages"][0]["destinationDeviceId"] = 9.into();
    ask(alice.request(server, "PUT", &bob.inbox()).json(&extra))
        .await
        .expect(409);
    ask(alice
        .request(server, "PUT", &bob.inbox())
        .body(format!("no JSON: {}", base64(&refused))))
    .await
    .expect(400);
    ask(alice
        .request(server, "PUT", &format!("/v1/messages/{}x", bob.aci))
        .json(&online))
    .await
    .expect(404);
    ask(alice.request(server, "GET", &format!("/{}/{}", alice.number, bob.aci)))
        .await
        .expect(404);
    ask(alice
        .request(server, "PUT", "/v2/keys")
        .json(&json!({ "signedPreKey": bob.aci_signed })))
    .await
    .expect(422);
    let number = server
        .request("POST", "/v1/verification/session")
        .json(&json!({ "number": &alice.number[1..] }));
    ask(number).await.expect(400);
    let registration = alice.registration(&base64(&[7; 32]).replace('=', ""));
    ask(alice.registering(server).json(&registration)).await.expect(401);
    socket
        .raw(tokio_tungstenite::tungstenite::Message::binary(refused.to_vec()))
        .await;
    assert_eq!(socket.close_code().await, Some(1007));

    // By hand, so that the port is known; a forwarded address is a canary as well.
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    let port = stream.local_addr().unwrap().port();
    let request = format!(
        "GET /v1/accounts/whoami HTTP/1.1\r\nHost: x\r\nUser-Agent: {USER_AGENT}\r\nX-Forwarded-For: 203.0.113.77\r\n\
         Authorization: {}\r\nConnection: close\r\n\r\nGET {} nonsense",
        alice.authorization(),
        alice.number
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200"));

    let mut secrets = vec![
        Secret::new("user agent", USER_AGENT),
        Secret::new("address", "203.0.113.77"),
        Secret::new("ciphertext", ciphertext),
        Secret::new("sealed ciphertext", sealed),
        Secret::new("refused ciphertext", refused),
        Secret::new("recovery password", recovery),
        Secret::new("registration lock", lock),
        Secret::new("link token", &open),
        Secret::new("link token", &used),
        Secret::new("password", &laptop.password),
        Secret::new("password", &late.password),
        Secret::new("device name", laptop.device_name),
        Secret::new("profile version", version),
        Secret::new("profile commitment", commitment),
        Secret::new("profile name", name),
        Secret::new("username hash", username.hash),
        Secret::new("username proof", username.proof),
        Secret::new("key of account data", entry),
        Secret::new("value of account data", value),
    ];
    for person in [&alice, &bob] {
        secrets.extend([
            Secret::new("number", &person.number),
            Secret::new("digits", &person.number[1..]),
            Secret::new("ACI", uuid::Uuid::parse_str(&person.aci).unwrap().as_bytes()),
            Secret::new("PNI", uuid::Uuid::parse_str(&person.pni).unwrap().as_bytes()),
            Secret::new("password", &person.password),
            Secret::new("credentials", person.authorization().strip_prefix("Basic ").unwrap()),
            Secret::new("access key", person.access_key),
            Secret::new("device name", person.device_name),
            Secret::new("identity key", &person.aci_identity.public[1..]),
            Secret::new("PNI identity key", &person.pni_identity.public[1..]),
        ]);
        for key in [
            &person.aci_signed,
            &person.pni_signed,
            &person.aci_last_resort,
            &person.pni_last_resort,
        ] {
            for field in ["publicKey", "signature"] {
                let bytes = base64::engine::general_purpose::STANDARD
                    .decode(key[field].as_str().unwrap())
                    .unwrap();
                secrets.push(Secret::new("prekey", &bytes[..64.min(bytes.len())]));
            }
        }
    }
    Conversation {
        alice,
        secrets,
        ports: vec![port],
    }
}
