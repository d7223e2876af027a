//! People: a number, a password, keys, and what they ask of a server.

use std::time::Duration;

use serde_json::{Value, json};

use super::keys::{Identity, base64, kyber, one_time_keys, signed_ec};
use super::{Answer, Server, Socket, ask, framed, hex, random};

/// Someone at one of their devices.
#[derive(Clone)]
pub(crate) struct Person {
    pub(crate) number: String,
    pub(crate) password: String,
    pub(crate) access_key: [u8; 16],
    /// The encrypted name of the device.
    pub(crate) device_name: [u8; 40],
    /// 1 unless linked.
    pub(crate) device_id: u8,
    pub(crate) registration_id: u16,
    pub(crate) pni_registration_id: u16,
    pub(crate) aci_identity: Identity,
    pub(crate) pni_identity: Identity,
    pub(crate) aci_signed: Value,
    pub(crate) pni_signed: Value,
    pub(crate) aci_last_resort: Value,
    pub(crate) pni_last_resort: Value,
    /// Empty until registered.
    pub(crate) aci: String,
    /// Empty until registered.
    pub(crate) pni: String,
}

impl Person {
    /// Someone whom no server knows.
    pub(crate) fn new() -> Self {
        let (aci_identity, pni_identity) = (Identity::new(), Identity::new());
        Self {
            number: format!("+49{:010}", u64::from_be_bytes(random()) % 10_000_000_000),
            password: hex(&random::<16>()),
            access_key: random(),
            device_name: random(),
            device_id: 1,
            registration_id: registration_id(),
            pni_registration_id: registration_id(),
            aci_signed: signed_ec(&aci_identity, 1),
            pni_signed: signed_ec(&pni_identity, 2),
            aci_last_resort: kyber(&aci_identity, 3),
            pni_last_resort: kyber(&pni_identity, 4),
            aci_identity,
            pni_identity,
            aci: String::new(),
            pni: String::new(),
        }
    }

    /// Someone with an account.
    pub(crate) async fn register(server: &Server) -> Self {
        let mut person = Self::new();
        person.register_on(server).await;
        person
    }

    /// Registers, or registers again.
    pub(crate) async fn register_on(&mut self, server: &Server) -> Value {
        let session = verified_session(server, &self.number).await;
        let answer = ask(self.registering(server).json(&self.registration(&session)))
            .await
            .expect(200)
            .json();
        answer["uuid"].as_str().unwrap().clone_into(&mut self.aci);
        answer["pni"].as_str().unwrap().clone_into(&mut self.pni);
        answer
    }

    /// A registration request without its body.
    pub(crate) fn registering(&self, server: &Server) -> reqwest::RequestBuilder {
        server
            .request("POST", "/v1/registration")
            .basic_auth(&self.number, Some(&self.password))
    }

    /// The body of a registration.
    pub(crate) fn registration(&self, session: &str) -> Value {
        json!({
            "sessionId": session,
            "accountAttributes": self.attributes(),
            "skipDeviceTransfer": true,
            "aciIdentityKey": self.aci_identity.base64(),
            "pniIdentityKey": self.pni_identity.base64(),
            "aciSignedPreKey": self.aci_signed,
            "pniSignedPreKey": self.pni_signed,
            "aciPqLastResortPreKey": self.aci_last_resort,
            "pniPqLastResortPreKey": self.pni_last_resort,
        })
    }

    pub(crate) fn attributes(&self) -> Value {
        json!({
            "fetchesMessages": true,
            "registrationId": self.registration_id,
            "pniRegistrationId": self.pni_registration_id,
            "name": base64(&self.device_name),
            "capabilities": { "spqr": true },
            "unidentifiedAccessKey": base64(&self.access_key),
        })
    }

    /// The same person at a new device, linked to the account with a code of this one, its primary.
    pub(crate) async fn link(&self, server: &Server) -> Self {
        let device = self.new_device();
        let code = self.link_code(server).await;
        let answer = ask(device.linking(server, &code)).await.expect(200).json();
        device.linked(&answer)
    }

    /// A code with which a new device joins this account.
    pub(crate) async fn link_code(&self, server: &Server) -> String {
        let code = ask(self.request(server, "GET", "/v1/devices/provisioning/code"))
            .await
            .expect(200)
            .json();
        code["verificationCode"].as_str().unwrap().to_owned()
    }

    /// A device that knows the account's identity keys and has nothing else in common with this one.
    pub(crate) fn new_device(&self) -> Self {
        Self {
            password: hex(&random::<16>()),
            device_name: random(),
            device_id: 0,
            registration_id: registration_id(),
            pni_registration_id: registration_id(),
            aci_signed: signed_ec(&self.aci_identity, 11),
            pni_signed: signed_ec(&self.pni_identity, 12),
            aci_last_resort: kyber(&self.aci_identity, 13),
            pni_last_resort: kyber(&self.pni_identity, 14),
            ..self.clone()
        }
    }

    /// The request with which a new device joins.
    pub(crate) fn linking(&self, server: &Server, code: &str) -> reqwest::RequestBuilder {
        server
            .request("PUT", "/v1/devices/link")
            .basic_auth(&self.number, Some(&self.password))
            .json(&self.link_body(code))
    }

    /// The body of that request.
    pub(crate) fn link_body(&self, code: &str) -> Value {
        json!({
            "verificationCode": code,
            "accountAttributes": {
                "fetchesMessages": true,
                "registrationId": self.registration_id,
                "pniRegistrationId": self.pni_registration_id,
                "name": base64(&self.device_name),
                "capabilities": { "deleteSync": true, "versionedExpirationTimer": true, "ssre2": true, "spqr": true },
            },
            "aciSignedPreKey": self.aci_signed,
            "pniSignedPreKey": self.pni_signed,
            "aciPqLastResortPreKey": self.aci_last_resort,
            "pniPqLastResortPreKey": self.pni_last_resort,
        })
    }

    /// This device as the answer to its link says.
    pub(crate) fn linked(&self, answer: &Value) -> Self {
        assert_eq!((&answer["uuid"], &answer["pni"]), (&json!(self.aci), &json!(self.pni)));
        Self {
            device_id: answer["deviceId"].as_u64().unwrap().try_into().unwrap(),
            ..self.clone()
        }
    }

    /// The user of this device's credentials.
    pub(crate) fn user(&self) -> String {
        match self.device_id {
            1 => self.aci.clone(),
            linked => format!("{}.{linked}", self.aci),
        }
    }

    /// The value of an `Authorization` header.
    pub(crate) fn authorization(&self) -> String {
        basic(&self.user(), &self.password)
    }

    /// A request with this device's credentials.
    pub(crate) fn request(&self, server: &Server, method: &str, path: &str) -> reqwest::RequestBuilder {
        server
            .request(method, path)
            .basic_auth(self.user(), Some(&self.password))
    }

    /// The device's socket.
    pub(crate) async fn connect(&self, server: &Server) -> Socket {
        Socket::open(server, Some(&self.authorization()), &[]).await.unwrap()
    }

    /// Uploads one-time keys of both kinds, with ids from `first`.
    pub(crate) async fn upload_keys(&self, server: &Server, first: u32, count: u32) {
        let keys = one_time_keys(&self.aci_identity, first, count);
        ask(self.request(server, "PUT", "/v2/keys?identity=ACI").json(&keys))
            .await
            .expect(204);
    }

    /// The path to write to this person.
    pub(crate) fn inbox(&self) -> String {
        format!("/v1/messages/{}", self.aci)
    }

    pub(crate) fn access_key_header(&self) -> String {
        base64(&self.access_key)
    }

    /// What waits in the queue, by the historic fetch.
    pub(crate) async fn fetch(&self, server: &Server) -> Value {
        ask(self.request(server, "GET", "/v1/messages"))
            .await
            .expect(200)
            .json()
    }
}

/// The body of a send of one message to one device, with this marker in its content.
pub(crate) fn single(to: &Person, kind: u8, marker: &[u8]) -> Value {
    json!({ "messages": [message(to, kind, marker)], "online": false, "urgent": true, "timestamp": 1_700_000_000_123_u64 })
}

/// One message of a send, with this marker in its content.
pub(crate) fn message(to: &Person, kind: u8, marker: &[u8]) -> Value {
    json!({
        "type": kind,
        "destinationDeviceId": to.device_id,
        "destinationRegistrationId": to.registration_id,
        "content": base64(&framed(kind, marker)),
    })
}

/// Sends one message of a running session, with this marker in its content.
pub(crate) async fn send(server: &Server, from: &Person, to: &Person, marker: &[u8]) -> Answer {
    ask(from.request(server, "PUT", &to.inbox()).json(&single(to, 1, marker))).await
}

/// A verification session of the number that has been given its code.
pub(crate) async fn verified_session(server: &Server, number: &str) -> String {
    let session = open_session(server, number).await;
    let path = format!("/v1/verification/session/{session}/code");
    let answer = ask(server.request("PUT", &path).json(&json!({ "code": "123456" })))
        .await
        .expect(200);
    assert_eq!(answer.json()["verified"], true);
    session
}

/// A verification session of the number.
pub(crate) async fn open_session(server: &Server, number: &str) -> String {
    let request = server
        .request("POST", "/v1/verification/session")
        .json(&json!({ "number": number }));
    ask(request).await.expect(200).json()["id"].as_str().unwrap().to_owned()
}

/// The value of an `Authorization` header.
pub(crate) fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", base64(format!("{user}:{password}").as_bytes()))
}

/// `count` people with accounts.
pub(crate) async fn people(server: &Server, count: usize) -> Vec<Person> {
    let mut people = Vec::new();
    for _ in 0..count {
        people.push(Person::register(server).await);
    }
    people
}

/// Returns once the credentials are dead on this server, and fails the test if that takes longer than `limit`.
pub(crate) async fn until_dead(server: &Server, person: &Person, limit: Duration) {
    let dying = super::until("credentials to die", async || {
        ask(person.request(server, "GET", "/v1/accounts/whoami")).await.status == 401
    });
    assert!(
        tokio::time::timeout(limit, dying).await.is_ok(),
        "still alive after {limit:?}"
    );
}

fn registration_id() -> u16 {
    u16::from_be_bytes(random()) % 16_379 + 1
}
