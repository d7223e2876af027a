//! How each route is used rightfully. A route without a case fails here.

use blind_relay::http::routes::Route;
use serde_json::{Value, json};

use super::form::Form;
use crate::support::fan_out::{self, Entry};
use crate::support::keys::{base64, digest};
use crate::support::person::{open_session, verified_session};
use crate::support::tokens::Tokens;
use crate::support::usernames::{Name, url_safe};
use crate::support::{Person, Server, ask, random, single};

/// A request that its route's rightful caller is answered as it says.
pub(super) struct Case {
    pub(super) path: String,
    pub(super) body: Option<Body>,
    pub(super) headers: Vec<(&'static str, String)>,
    /// What the rightful caller is answered.
    pub(super) success: u16,
    /// What a linked device is answered, if something else.
    pub(super) linked: Option<u16>,
    /// What another account is answered to the same request, if something else.
    pub(super) foreign: Option<u16>,
    /// Whoever asks first uses up what the request is about.
    pub(super) once: bool,
    /// What opens it to whoever holds the form of an upload.
    pub(super) capability: Option<String>,
}

/// The body of a request.
pub(super) enum Body {
    Json(Value),
    Bytes(&'static str, Vec<u8>),
}

impl Case {
    pub(super) fn new(path: impl Into<String>, success: u16) -> Self {
        Self {
            path: path.into(),
            body: None,
            headers: Vec::new(),
            success,
            linked: None,
            foreign: None,
            once: false,
            capability: None,
        }
    }

    fn json(mut self, body: Value) -> Self {
        self.body = Some(Body::Json(body));
        self
    }

    fn bytes(mut self, content_type: &'static str, bytes: Vec<u8>) -> Self {
        self.body = Some(Body::Bytes(content_type, bytes));
        self
    }

    pub(super) fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    fn foreign(mut self, status: u16) -> Self {
        self.foreign = Some(status);
        self
    }

    fn once(mut self) -> Self {
        self.once = true;
        self
    }
}

/// Makes a request of `caller` that may concern `target`.
pub(super) async fn case(route: &Route, server: &Server, caller: &Person, target: &Person) -> Case {
    let number = Person::new().number;
    let session = async |rest: &str| format!("/v1/verification/session/{}{rest}", open_session(server, &number).await);
    let path = route.path;
    match (route.method, path) {
        ("get", "/.well-known/jwks.json" | "/v1/keepalive" | "/openapi.json" | "/v1/time" | "/v1/limits") => {
            Case::new(path, 200)
        }

        ("post", "/v1/verification/session") => Case::new(path, 200).json(json!({ "number": number })),
        ("get", "/v1/verification/session/{id}") => Case::new(session("").await, 200),
        ("patch", "/v1/verification/session/{id}") => {
            Case::new(session("").await, 200).json(json!({ "captcha": null }))
        }
        ("post", "/v1/verification/session/{id}/code") => {
            Case::new(session("/code").await, 200).json(json!({ "transport": "sms", "client": "ios" }))
        }
        ("put", "/v1/verification/session/{id}/code") => Case::new(session("/code").await, 200)
            .json(json!({ "code": "1" }))
            .once(),
        ("post", "/v1/registration") => {
            let session = verified_session(server, &caller.number).await;
            Case::new(path, 200).json(caller.registration(&session))
        }

        ("get", "/v1/accounts/whoami" | "/v1/accounts/export") => Case::new(path, 200),
        ("put", "/v1/accounts/attributes") => Case::new(path, 204).json(caller.attributes()),
        ("delete", "/v1/accounts/me") => Case::new(path, 204),
        ("put", "/v1/accounts/name") => Case::new(format!("{path}?deviceId={}", caller.device_id), 204)
            .json(json!({ "deviceName": base64(&[1; 20]) })),
        ("put", "/v1/accounts/registration_lock") => {
            Case::new(path, 204).json(json!({ "registrationLock": "ab".repeat(32) }))
        }
        ("put", "/v1/accounts/gcm") => Case::new(path, 204).json(json!({ "gcmRegistrationId": "token" })),
        ("put", "/v1/accounts/apn") => Case::new(path, 204).json(json!({ "apnRegistrationId": "token" })),
        ("delete", "/v1/accounts/registration_lock" | "/v1/accounts/gcm" | "/v1/accounts/apn") => Case::new(path, 204),
        ("head", "/v1/accounts/account/{id}") => Case::new(format!("/v1/accounts/account/{}", target.aci), 200),
        ("put", "/v2/accounts/phone_number_discoverability") => {
            Case::new(path, 204).json(json!({ "discoverableByPhoneNumber": false }))
        }
        ("get", "/v1/certificate/delivery") => Case::new(format!("{path}?includeE164=false"), 200),

        ("get", "/v1/blocks") => Case::new(path, 200),
        ("put" | "delete", "/v1/blocks/{id}") => Case::new(format!("/v1/blocks/{}", guid()), 204),
        ("delete", "/v1/blocks") => Case::new(path, 204),

        ("get", "/v1/devices" | "/v1/devices/provisioning/code") => Case::new(path, 200),
        ("put", "/v1/devices/link") => {
            // To an account of its own, which has room.
            let other = Person::register(server).await;
            let code = other.link_code(server).await;
            Case::new(path, 200).json(other.new_device().link_body(&code)).once()
        }
        ("put", "/v1/devices/capabilities") => Case::new(path, 204).json(json!({ "spqr": true })),
        // The caller keeps its password, so that the next case can use it.
        ("put", "/v1/devices/password") => Case::new(path, 204).json(json!({ "password": caller.password })),
        ("delete", "/v1/devices/{id}") => {
            let id = if caller.device_id == 1 { 2 } else { caller.device_id };
            Case::new(format!("/v1/devices/{id}"), 204)
        }
        ("get", "/v1/devices/wait_for_linked_device/{token}") => {
            // Nobody joins.
            Case::new(
                format!("/v1/devices/wait_for_linked_device/{}?timeout=1", "A".repeat(43)),
                204,
            )
        }
        // Nobody listens there.
        ("put", "/v1/provisioning/{address}") => {
            Case::new(format!("/v1/provisioning/{}==", "A".repeat(22)), 404).json(json!({ "body": base64(b"message") }))
        }

        ("post", "/v1/auth/token") | ("get", "/v1/auth/sessions") => Case::new(path, 200),
        ("post", "/v1/auth/refresh") => {
            let tokens = Tokens::open(server, caller).await;
            Case::new(path, 200)
                .json(json!({ "refreshToken": tokens.refresh }))
                .once()
        }
        ("post", "/v1/auth/revoke") => {
            let tokens = Tokens::open(server, caller).await;
            Case::new(path, 204).json(json!({ "refreshToken": tokens.refresh }))
        }
        ("delete", "/v1/auth/sessions") => Case::new(path, 204),
        ("delete", "/v1/auth/sessions/{id}") => {
            let tokens = Tokens::open(server, caller).await;
            Case::new(format!("/v1/auth/sessions/{}", tokens.session), 204)
        }

        ("get", "/v2/keys") => Case::new(path, 200),
        ("put", "/v2/keys") => Case::new(path, 204).json(json!({})),
        ("post", "/v2/keys/check") => {
            let digest = digest(&caller.aci_identity, &caller.aci_signed, &caller.aci_last_resort);
            Case::new(path, 200)
                .json(json!({ "identityType": "ACI", "digest": digest }))
                .foreign(409)
        }
        ("get", "/v2/keys/{target}/{device}") => Case::new(format!("/v2/keys/{}/1", target.aci), 200),

        ("put", "/v1/messages/{destination}") => Case::new(target.inbox(), 200).json(single(target, 6, b"c")),
        ("put", "/v1/messages/multi_recipient") => {
            let message = fan_out::message(&[Entry::of(target)], &[0; 64]);
            Case::new(format!("{path}?ts=1"), 200).bytes(fan_out::CONTENT_TYPE, message)
        }
        ("get", "/v1/messages") => Case::new(path, 200),
        ("delete", "/v1/messages/uuid/{guid}") => Case::new(format!("/v1/messages/uuid/{}", guid()), 204),
        ("post", "/v1/messages/report/{source}/{guid}") => {
            Case::new(format!("/v1/messages/report/{}/{}", target.aci, guid()), 202).json(json!({ "token": null }))
        }

        ("put", "/v1/profile") => Case::new(path, 200).json(json!({
            "version": "ab".repeat(32),
            "commitment": base64(&[1; 97]),
            "name": base64(&[2; 81]),
        })),
        ("get", "/v1/profile/{target}") => Case::new(format!("/v1/profile/{}", target.aci), 200),
        ("get", "/v1/profile/{target}/{version}") => {
            Case::new(format!("/v1/profile/{}/{}", target.aci, "ab".repeat(32)), 200)
        }
        ("get", "/v1/profile/{target}/{version}/{request}") => {
            Case::new(format!("/v1/profile/{}/{}/00", target.aci, "ab".repeat(32)), 200)
        }
        ("post", "/v1/profile/identity_check/batch") => Case::new(path, 200).json(json!({ "elements": [] })),

        ("put", "/v1/accounts/username_hash/reserve") => {
            // Names are for whoever comes first.
            Case::new(path, 200)
                .json(json!({ "usernameHashes": [Name::new().text()] }))
                .once()
        }
        ("put", "/v1/accounts/username_hash/confirm") => {
            let name = Name::new();
            name.reserve(server, caller).await.expect(200);
            Case::new(path, 200).json(name.confirmation(None)).foreign(410)
        }
        ("delete", "/v1/accounts/username_hash" | "/v1/accounts/username_link") => Case::new(path, 204),
        ("get", "/v1/accounts/username_hash/{hash}") => Case::new(Name::of(server, target).await.path(), 200),
        ("put", "/v1/accounts/username_link") => {
            Name::of(server, caller).await;
            Case::new(path, 200)
                .json(json!({ "usernameLinkEncryptedValue": "AAAA" }))
                .foreign(409)
        }
        ("get", "/v1/accounts/username_link/{handle}") => {
            let name = Name::new();
            name.reserve(server, target).await.expect(200);
            let named = name.confirm(server, target, Some(&[7; 100])).await.expect(200).json();
            let handle = named["usernameLinkHandle"].as_str().unwrap();
            Case::new(format!("/v1/accounts/username_link/{handle}"), 200)
        }

        ("get", "/v1/data") => Case::new(path, 200),
        ("post", "/v1/data/batch") => {
            let operation = json!({ "key": data_key(), "version": 0, "value": "AAAA" });
            Case::new(path, 200).json(json!({ "operations": [operation] }))
        }
        ("put", "/v1/data/{key}") => {
            Case::new(format!("/v1/data/{}", data_key()), 200).json(json!({ "version": 0, "value": "AAAA" }))
        }
        ("get", "/v1/data/{key}") => {
            let (path, _) = stored(server, caller).await;
            Case::new(path, 200).foreign(404)
        }
        ("delete", "/v1/data/{key}") => {
            let (path, version) = stored(server, caller).await;
            Case::new(format!("{path}?version={version}"), 200).foreign(409)
        }

        ("get", "/v4/attachments/form/upload") => Case::new(path, 200),
        ("options", "/upload/attachments") => Case::new(path, 204),
        ("post", "/upload/attachments") => Form::get(server, caller)
            .await
            .case(path, 201)
            .header("upload-length", "5"),
        ("post", "/upload/attachments/{*upload}") => {
            let form = Form::get(server, caller).await;
            form.case(&form.upload(), 201)
        }
        (method, "/upload/attachments/{*upload}") => {
            let form = Form::get(server, caller).await;
            form.open(server).await;
            let case = form.case(
                &form.upload(),
                if method == "head" || method == "put" { 200 } else { 204 },
            );
            match method {
                "patch" => case
                    .header("upload-offset", "0")
                    .bytes("application/offset+octet-stream", b"bytes".to_vec()),
                "put" => case.bytes("application/octet-stream", b"bytes".to_vec()),
                _ => case,
            }
        }
        ("get", "/attachments/{*key}") => {
            let form = Form::get(server, caller).await;
            let put = server
                .request("PUT", &form.upload())
                .header("authorization", &form.capability);
            ask(put.body("bytes")).await.expect(200);
            Case::new(format!("/attachments/{}", form.key), 200)
        }

        ("get", "/v2/config" | "/v2/calling/relays") => Case::new(path, 200),
        // What this server does not have it does not have for anyone; who asks is checked all the same.
        (
            "get",
            "/v1/storage/auth"
            | "/v2/directory/auth"
            | "/v2/svr/auth"
            | "/v2/backup/auth"
            | "/v1/certificate/auth/group",
        ) => Case::new(path, 404),
        ("put", "/v1/challenge") | ("post", "/v1/challenge/push") => Case::new(path, 404).json(json!({})),
        other => panic!("{other:?} has no case: say here how it is used rightfully"),
    }
}

/// The path of an entry that the caller's account has, and its version.
async fn stored(server: &Server, caller: &Person) -> (String, u64) {
    let path = format!("/v1/data/{}", data_key());
    let put = caller.request(server, "PUT", &path);
    let answer = ask(put.json(&json!({ "version": 0, "value": "AAAA" }))).await;
    (path, answer.expect(200).json()["version"].as_u64().unwrap())
}

fn data_key() -> String {
    url_safe(&random::<32>())
}

fn guid() -> String {
    uuid::Uuid::from_bytes(random()).to_string()
}
