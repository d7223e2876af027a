//! What people do with a server, every feature of it, with canaries for whatever a client may choose.

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::marks::Fate;
use super::world::{World, digits};
use crate::support::attachments::Form;
use crate::support::fan_out::{self, Entry};
use crate::support::keys::{base64, digest, one_time_keys};
use crate::support::provisioning::NewDevice;
use crate::support::tokens::Tokens;
use crate::support::usernames::{Name, url_safe};
use crate::support::{Answer, Event, Person, Server, Socket, single};

/// Everything, until all messages are delivered.
pub(super) async fn use_everything(world: &World, people: &[Person]) {
    let publishing = people.iter().enumerate().map(|(n, person)| async move {
        let server = &world.nodes[n % world.nodes.len()];
        let other = &people[(n + 1) % people.len()];
        account(world, server, person, other).await;
        keys(world, server, person, other).await;
        profile(world, server, person, other).await;
        username(world, server, person).await;
        account_data(world, server, person).await;
        attachments(world, server, person).await;
        Box::pin(tokens(world, server, person)).await;
        Box::pin(devices(world, server, person)).await;
    });
    join_all(publishing).await;
    // A third of them is connected meanwhile.
    let done = CancellationToken::new();
    let receiving = people
        .iter()
        .step_by(3)
        .map(|person| listen(world, person, Some(done.clone())));
    let sending = async {
        join_all(people.iter().enumerate().map(|(n, _)| send_all(world, people, n))).await;
        done.cancel();
    };
    tokio::join!(Box::pin(join_all(receiving)), Box::pin(sending));
    join_all(people.iter().enumerate().map(|(n, person)| async move {
        if n % 5 == 1 {
            fetch(world, person).await;
        }
        Box::pin(listen(world, person, None)).await;
    }))
    .await;
}

/// Everybody takes what there is of them, and goes or replaces it.
pub(super) async fn leave(world: &World, people: &[Person]) {
    // One after the other: a node carries out few at a time.
    for person in people {
        let exporting = person.request(world.node(), "GET", "/v1/accounts/export");
        world.ask(exporting).await.expect(200);
    }
    join_all(people.iter().enumerate().map(|(n, person)| async move {
        let server = world.node();
        if n % 4 == 0 {
            let name = world.marks.bytes_of("device name that stays", Fate::Stored, 40);
            let request = person.request(server, "PUT", "/v1/accounts/name?deviceId=1");
            let request = request.json(&json!({ "deviceName": base64(&name) }));
            world.ask(request).await.expect(204);
            // Five versions are kept.
            for _ in 0..6 {
                let body = profile_body(world, Fate::Stored);
                publish(world, server, person, &body).await;
            }
        } else {
            world
                .ask(person.request(server, "DELETE", "/v1/accounts/me"))
                .await
                .expect(204);
        }
    }))
    .await;
}

async fn account(world: &World, server: &Server, person: &Person, other: &Person) {
    let marks = &world.marks;
    let mut attributes = person.attributes();
    attributes["recoveryPassword"] = base64(&marks.raw::<32>("recovery password")).into();
    attributes["registrationLock"] = digits(&marks.raw("registration lock")).into();
    attributes[marks.text("unknown field")] = marks.text("unknown value").into();
    attributes["capabilities"][marks.text("capability")] = true.into();
    let lock = json!({ "registrationLock": digits(&marks.raw("registration lock")) });
    let blocked = format!("/v1/blocks/{}", uuid::Uuid::from_bytes(marks.raw("blocked id")));
    for (method, path, body, status) in [
        ("PUT", "/v1/accounts/attributes", attributes, 204),
        ("PUT", "/v1/accounts/registration_lock", lock, 204),
        ("DELETE", "/v1/accounts/registration_lock", Value::Null, 204),
        (
            "PUT",
            "/v1/accounts/gcm",
            json!({ "gcmRegistrationId": marks.text("push token") }),
            204,
        ),
        (
            "PUT",
            "/v1/accounts/apn",
            json!({ "apnRegistrationId": marks.text("push token") }),
            204,
        ),
        ("DELETE", "/v1/accounts/gcm", Value::Null, 204),
        (
            "PUT",
            "/v2/accounts/phone_number_discoverability",
            json!({ "discoverableByPhoneNumber": false }),
            204,
        ),
        (
            "PUT",
            "/v1/devices/capabilities",
            json!({ "spqr": true, marks.text("capability"): true }),
            204,
        ),
        ("PUT", blocked.as_str(), Value::Null, 204),
        ("GET", "/v1/blocks", Value::Null, 200),
        ("DELETE", blocked.as_str(), Value::Null, 204),
        ("DELETE", "/v1/blocks", Value::Null, 204),
        ("PUT", blocked.as_str(), Value::Null, 204),
        ("GET", "/v1/accounts/whoami", Value::Null, 200),
        ("GET", "/v1/certificate/delivery?includeE164=true", Value::Null, 200),
        ("GET", "/v2/config", Value::Null, 200),
        ("GET", "/v2/calling/relays", Value::Null, 200),
    ] {
        let query = if path.contains('?') { '&' } else { '?' };
        let path = format!("{path}{query}{}={}", marks.text("query"), marks.text("query"));
        let mut request = person.request(server, method, &path);
        if body != Value::Null {
            request = request.json(&body);
        }
        world.ask(request).await.expect(status);
    }
    let known = server.request("HEAD", &format!("/v1/accounts/account/{}", other.aci));
    world.ask(known).await.expect(200);
    let guid = uuid::Uuid::from_bytes(marks.raw("reported guid"));
    let report = person.request(server, "POST", &format!("/v1/messages/report/{}/{guid}", other.aci));
    let report = report.json(&json!({ "token": base64(&marks.raw::<48>("spam token")) }));
    world.ask(report).await.expect(202);
}

async fn keys(world: &World, server: &Server, person: &Person, other: &Person) {
    let uploaded = one_time_keys(&person.aci_identity, 1, 2);
    let request = person.request(server, "PUT", "/v2/keys?identity=ACI");
    world.ask(request.json(&uploaded)).await.expect(204);
    world.ask(person.request(server, "GET", "/v2/keys")).await.expect(200);
    let digest = digest(&person.aci_identity, &person.aci_signed, &person.aci_last_resort);
    let check = person.request(server, "POST", "/v2/keys/check");
    let check = check.json(&json!({ "identityType": "ACI", "digest": digest }));
    world.ask(check).await.expect(200);
    let bundles = person.request(server, "GET", &format!("/v2/keys/{}/*", other.aci));
    world.ask(bundles).await.expect(200);
    let fingerprint = base64(&world.marks.raw::<12>("fingerprint")[..4]);
    let identities = server.request("POST", "/v1/profile/identity_check/batch");
    let identities = identities.json(&json!({ "elements": [{ "uuid": other.aci, "fingerprint": fingerprint }] }));
    world.ask(identities).await.expect(200);
}

fn profile_body(world: &World, fate: Fate) -> Value {
    let field = |what, length| base64(&world.marks.bytes_of(what, fate, length));
    let version: [u8; 32] = world.marks.bytes_of("profile version", fate, 32).try_into().unwrap();
    json!({
        "version": digits(&version),
        "commitment": field("profile commitment", 97),
        "name": field("profile name", 81),
        "about": field("profile about", 156),
        "aboutEmoji": field("profile emoji", 60),
        "paymentAddress": field("payment address", 582),
        "phoneNumberSharing": field("number sharing", 29),
        "avatar": false,
        "sameAvatar": false,
    })
}

async fn publish(world: &World, server: &Server, person: &Person, body: &Value) -> Answer {
    let request = person.request(server, "PUT", "/v1/profile").json(body);
    world.ask(request).await.expect(200)
}

async fn profile(world: &World, server: &Server, person: &Person, other: &Person) {
    let mut body = profile_body(world, Fate::Replaced);
    body["avatar"] = true.into();
    let form = Form::read(server, &publish(world, server, person, &body).await);
    upload(
        world,
        server,
        &form,
        &world.marks.bytes_of("picture", Fate::Replaced, 3000),
    )
    .await;
    let version = body["version"].as_str().unwrap();
    let path = format!("/v1/profile/{}/{version}", person.aci);
    world.ask(other.request(server, "GET", &path)).await.expect(200);
    let with_key = server.request("GET", &path);
    let with_key = with_key.header("unidentified-access-key", person.access_key_header());
    world.ask(with_key).await.expect(200);
    let credential = format!(
        "{path}/{}?credentialType=expiringProfileKey",
        digits(&world.marks.raw("request"))
    );
    world.ask(other.request(server, "GET", &credential)).await.expect(200);
    // The same version with all of it new, and no picture any more.
    let mut replaced = profile_body(world, Fate::Replaced);
    replaced["version"] = version.into();
    publish(world, server, person, &replaced).await;
    world
        .ask(other.request(server, "GET", &format!("/v1/profile/{}", person.aci)))
        .await
        .expect(200);
}

async fn username(world: &World, server: &Server, person: &Person) {
    let name = Name::new();
    world.marks.exact("name's hash", Fate::Stored, name.hash);
    world.marks.exact("name's proof", Fate::Passing, name.proof);
    let encrypted = |what| url_safe(&world.marks.bytes_of(what, Fate::Replaced, 100));
    let reserving = person.request(server, "PUT", "/v1/accounts/username_hash/reserve");
    let reserving = reserving.json(&json!({ "usernameHashes": [name.text()] }));
    world.ask(reserving).await.expect(200);
    let mut body = name.confirmation(None);
    body["encryptedUsername"] = encrypted("user name").into();
    let confirming = person.request(server, "PUT", "/v1/accounts/username_hash/confirm");
    world.ask(confirming.json(&body)).await.expect(200);
    world.ask(server.request("GET", &name.path())).await.expect(200);
    let linking = person.request(server, "PUT", "/v1/accounts/username_link");
    let linking = linking.json(&json!({ "usernameLinkEncryptedValue": encrypted("user name link") }));
    let handle = world.ask(linking).await.expect(200).json()["usernameLinkHandle"].clone();
    let path = format!("/v1/accounts/username_link/{}", handle.as_str().unwrap());
    world.ask(server.request("GET", &path)).await.expect(200);
    for path in ["/v1/accounts/username_link", "/v1/accounts/username_hash"] {
        world.ask(person.request(server, "DELETE", path)).await.expect(204);
    }
}

async fn account_data(world: &World, server: &Server, person: &Person) {
    let key = || url_safe(&world.marks.bytes_of("key of account data", Fate::Stored, 32));
    let value = || base64(&world.marks.bytes_of("account data", Fate::Replaced, 500));
    let first = key();
    let path = format!("/v1/data/{first}");
    let mut version = json!(0);
    for _ in 0..2 {
        let put = person.request(server, "PUT", &path);
        let put = put.json(&json!({ "version": version, "value": value() }));
        version = world.ask(put).await.expect(200).json()["version"].clone();
    }
    let operation = json!({ "key": key(), "version": 0, "value": value() });
    let batch = person.request(server, "POST", "/v1/data/batch");
    let batch = batch.json(&json!({ "operations": [operation] }));
    world.ask(batch).await.expect(200);
    world.ask(person.request(server, "GET", &path)).await.expect(200);
    world.ask(person.request(server, "GET", "/v1/data")).await.expect(200);
    let delete = person.request(server, "DELETE", &format!("{path}?version={version}"));
    world.ask(delete).await.expect(200);
    // What is kept beside it goes too.
    let rest = person.request(server, "GET", "/v1/data");
    for entry in world.ask(rest).await.expect(200).json()["entries"]
        .as_array()
        .into_iter()
        .flatten()
    {
        let (key, version) = (entry["key"].as_str().unwrap(), &entry["version"]);
        if entry["deleted"] != true {
            let path = format!("/v1/data/{key}?version={version}");
            world.ask(person.request(server, "DELETE", &path)).await;
        }
    }
}

async fn attachments(world: &World, server: &Server, person: &Person) {
    let form = async |query: &str| {
        let path = format!("/v4/attachments/form/upload{query}");
        let form = Form::read(
            server,
            &world.ask(person.request(server, "GET", &path)).await.expect(200),
        );
        world.marks.exact("key of an attachment", Fate::Passing, &form.key);
        let token = form.authorization.rsplit(' ').next().unwrap();
        world
            .marks
            .exact("upload form", Fate::Passing, &token[token.len() - 40..]);
        form
    };
    let whole = form("").await;
    let content = world.marks.bytes_of("attachment", Fate::Stored, 5000);
    upload(world, server, &whole, &content).await;
    let range = server.request("GET", &whole.download()).header("range", "bytes=7-1000");
    world.ask(range).await.expect(206);
    // Begun and given up.
    let begun = form("").await;
    let part = world.marks.bytes_of("part of an attachment", Fate::Replaced, 4000);
    let opening = begun.tus(server, "POST", &begun.location).header("upload-length", 9000);
    world.ask(opening.header("content-length", "0")).await.expect(201);
    world.ask(begun.part(server, 0, 9000, &part)).await.expect(204);
    world.ask(begun.tus(server, "HEAD", &begun.path())).await.expect(200);
    world.ask(begun.tus(server, "DELETE", &begun.path())).await.expect(204);
    world.ask(server.request("GET", &begun.download())).await.expect(404);
    // By the other protocol.
    let put = form("?uploadLength=3000").await;
    let request = server.request("PUT", &put.path());
    let request = request.header("authorization", &put.authorization);
    let content = world.marks.bytes_of("attachment", Fate::Stored, 3000);
    world.ask(request.body(content)).await.expect(200);
}

async fn upload(world: &World, server: &Server, form: &Form, bytes: &[u8]) {
    let opening = form
        .tus(server, "POST", &form.location)
        .header("upload-defer-length", "1");
    world.ask(opening.header("content-length", "0")).await.expect(201);
    world.ask(form.part(server, 0, bytes.len(), bytes)).await.expect(204);
    world.ask(server.request("GET", &form.download())).await.expect(200);
}

/// Sessions with tokens, each of which passes through: those that are good, used up and thrown away.
async fn tokens(world: &World, server: &Server, person: &Person) {
    let taken = |answer: &Answer| {
        let tokens = Tokens::of(answer);
        world.marks.exact("access token", Fate::Passing, &tokens.access);
        world.marks.exact("refresh token", Fate::Passing, &tokens.refresh);
        tokens
    };
    let opening = || world.ask(person.request(server, "POST", "/v1/auth/token"));
    let first = taken(&opening().await);
    let other = world.node();
    world
        .ask(first.request(other, "GET", "/v1/accounts/whoami"))
        .await
        .expect(200);
    let attempt = world.marks.text("name of an attempt");
    for _ in 0..2 {
        let refreshing = first.refreshing(other).header("idempotency-key", &attempt);
        taken(&world.ask(refreshing).await);
    }
    world.ask(first.refreshing(server)).await.expect(401);
    let second = taken(&opening().await);
    world
        .ask(second.request(server, "GET", "/v1/auth/sessions"))
        .await
        .expect(200);
    let path = format!("/v1/auth/sessions/{}", second.session);
    world.ask(second.request(other, "DELETE", &path)).await.expect(204);
    let third = taken(&opening().await);
    let revoking = server.request("POST", "/v1/auth/revoke");
    world
        .ask(revoking.json(&json!({ "refreshToken": third.refresh })))
        .await
        .expect(204);
    taken(&opening().await);
    world
        .ask(person.request(server, "DELETE", "/v1/auth/sessions"))
        .await
        .expect(204);
    // One that stays.
    taken(&opening().await);
    world
        .ask(server.request("GET", "/.well-known/jwks.json"))
        .await
        .expect(200);
}

async fn devices(world: &World, server: &Server, person: &Person) {
    let mut device = person.new_device();
    device.password = world.marks.text("password");
    device.device_name = world.replaced("device name");
    let code = person.request(server, "GET", "/v1/devices/provisioning/code");
    let code = world.ask(code).await.expect(200).json();
    let waiting = format!(
        "/v1/devices/wait_for_linked_device/{}?timeout=30",
        code["tokenIdentifier"].as_str().unwrap()
    );
    let code = code["verificationCode"].as_str().unwrap();
    world.marks.exact("link token", Fate::Passing, code);
    let waiting = world.ask(person.request(server, "GET", &waiting));
    let (waited, linked) = tokio::join!(waiting, world.ask(device.linking(server, code)));
    waited.expect(200);
    let answer = linked.expect(200).json();
    let mut device = device.linked(&answer);
    let password = world.marks.text("new password");
    let changing = device.request(server, "PUT", "/v1/devices/password");
    world
        .ask(changing.json(&json!({ "password": password })))
        .await
        .expect(204);
    device.password = password;
    let rename = json!({ "deviceName": base64(&world.replaced::<40>("device name")) });
    let renaming = device.request(server, "PUT", "/v1/accounts/name").json(&rename);
    world.ask(renaming).await.expect(204);
    world
        .ask(device.request(server, "GET", "/v1/devices"))
        .await
        .expect(200);
    let removing = person.request(server, "DELETE", &format!("/v1/devices/{}", device.device_id));
    world.ask(removing).await.expect(204);

    let mut waiting = NewDevice::wait_on(server).await.unwrap();
    let address = waiting.address.clone();
    world.marks.exact("provisioning address", Fate::Passing, &address);
    let body = json!({ "body": base64(&world.marks.bytes("provisioning message", 400)) });
    // From another node, where there is one.
    let sender = world.node();
    let handing = person.request(sender, "PUT", &format!("/v1/provisioning/{address}"));
    let receiving = async {
        let (id, _) = waiting.message().await;
        waiting.answer(id).await;
        waiting.closed().await;
    };
    let (answer, ()) = tokio::join!(Box::pin(world.ask(handing.json(&body))), Box::pin(receiving));
    answer.expect(204);
}

/// One of them to all others, in every way there is.
async fn send_all(world: &World, people: &[Person], from: usize) {
    let sender = &people[from];
    let others: Vec<&Person> = people.iter().cycle().skip(from + 1).take(people.len() - 1).collect();
    for (n, to) in others.iter().enumerate() {
        for way in 0..3 {
            send(world, sender, to, 3 * n + way).await;
        }
    }
    for group in others.chunks(5) {
        let server = world.node();
        let mut entries: Vec<Entry> = group.iter().map(|person| Entry::of(person)).collect();
        for entry in &mut entries {
            entry.key_material = world.marks.raw("key material");
        }
        let tail = world.marks.bytes("message to many", 300);
        let whole = fan_out::message(&entries, &tail);
        let request = fan_out::request(server, "?ts=1700000000123&online=false&urgent=true", whole);
        let key = fan_out::combined_key(group.iter().copied());
        world
            .ask(request.header("unidentified-access-key", key))
            .await
            .expect(200);
    }
    let mut own = world.socket(world.node(), Some(&sender.authorization())).await.unwrap();
    let mut nobodys = world.socket(world.node(), None).await.unwrap();
    for to in others.iter().take(4) {
        tunnelled(world, &mut own, sender, to, false).await;
        tunnelled(world, &mut nobodys, sender, to, true).await;
    }
    // What arrived meanwhile on the own socket was not acknowledged and comes again.
}

async fn send(world: &World, from: &Person, to: &Person, way: usize) {
    let server = world.node();
    let length = [100, 200, 700, 1500][way % 4];
    let canary = world.marks.bytes("message", length);
    let request = |kind| {
        let body = single(to, kind, &canary);
        let path = to.inbox();
        (body, path)
    };
    match way % 7 {
        0 | 1 => {
            let (body, path) = request(1);
            world
                .ask(from.request(server, "PUT", &path).json(&body))
                .await
                .expect(200);
        }
        2 | 3 => {
            let (body, path) = request(6);
            let request = server.request("PUT", &path).json(&body);
            let request = request.header("unidentified-access-key", to.access_key_header());
            world.ask(request).await.expect(200);
        }
        4 => {
            let (mut body, path) = request(6);
            body["online"] = true.into();
            let request = server.request("PUT", &path).json(&body);
            let request = request.header("unidentified-access-key", to.access_key_header());
            world.ask(request).await.expect(200);
        }
        5 => {
            let (body, path) = request(6);
            let path = format!("{path}?story=true&{}=1", world.marks.text("query"));
            world.ask(server.request("PUT", &path).json(&body)).await.expect(200);
        }
        _ => {
            let (mut body, path) = request(1);
            body[world.marks.text("unknown field")] = world.marks.text("unknown value").into();
            body["urgent"] = false.into();
            world
                .ask(from.request(server, "PUT", &path).json(&body))
                .await
                .expect(200);
        }
    }
}

async fn tunnelled(world: &World, socket: &mut Socket, from: &Person, to: &Person, sealed: bool) {
    let canary = world.marks.bytes("tunnelled message", 300);
    let kind = if sealed { 6 } else { 1 };
    let body = single(to, kind, &canary);
    let mut headers = vec![
        format!("x-something:{}", world.marks.text("tunnelled header")),
        format!("user-agent:{}", world.marks.text("user agent")),
        "content-type:application/json".to_owned(),
    ];
    if sealed {
        headers.push(format!("unidentified-access-key:{}", to.access_key_header()));
    }
    let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
    let path = format!("{}?{}", to.inbox(), world.marks.text("query"));
    let answer = socket.ask("PUT", &path, &headers, Some(&body)).await;
    assert_eq!(answer.status, 200, "{answer:?} from {}", from.device_id);
}

/// Takes and deletes what there is, as clients did before there were sockets.
async fn fetch(world: &World, person: &Person) {
    loop {
        let fetched = person.request(world.node(), "GET", "/v1/messages");
        let fetched = world.ask(fetched).await.expect(200).json();
        let messages = fetched["messages"].as_array().unwrap();
        for message in messages {
            let guid = message["guid"].as_str().unwrap();
            let path = format!("/v1/messages/uuid/{guid}");
            world
                .ask(person.request(world.node(), "DELETE", &path))
                .await
                .expect(204);
        }
        if messages.is_empty() {
            return;
        }
    }
}

/// Takes and acknowledges what there is, and with a token what comes until it is cancelled.
async fn listen(world: &World, person: &Person, until: Option<CancellationToken>) {
    let authorization = person.authorization();
    let mut socket = world.socket(world.node(), Some(&authorization)).await.unwrap();
    loop {
        let event = match &until {
            None => socket.next().await,
            Some(until) => tokio::select! {
                event = socket.next() => event,
                () = until.cancelled() => break,
            },
        };
        match event {
            Event::Envelope(id, envelope) => {
                for guid in [envelope.server_guid.as_deref()].into_iter().flatten() {
                    let guid = uuid::Uuid::parse_str(guid).unwrap();
                    world.marks.exact("server's guid", Fate::Passing, guid.as_bytes());
                }
                socket.answer(id, 200).await;
            }
            Event::Empty if until.is_none() => break,
            Event::Empty => {}
            // A later connection of the same device took over.
            Event::Closed(_) => return,
            Event::Answer(..) => unreachable!("nothing was asked"),
        }
    }
    socket.keepalive().await;
}
