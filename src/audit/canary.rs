//! Two throw-away people who send each other canaries, so that the search has something to search for.
//!
//! Their numbers begin with +999, which the ITU assigns to no country: nobody's account is taken over. Whatever happens in
//! between, [`Canary::clear`] deletes both accounts, and what is still found of them then is a violation.

use base64::Engine;
use http::Method;
use keys_schema::{PrivateKey, xeddsa};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::encoding::{self, BASE64};
use crate::sealing::random;

use super::client::{Client, Socket};
use super::needles::Needles;

/// What was planted.
pub(super) struct Canary {
    client: Client,
    people: Vec<Person>,
    /// Of the content that waits in the queue of the second.
    queued: Vec<u8>,
    /// Random bytes inside of each content.
    cores: Vec<(&'static str, [u8; CORE])>,
}

struct Person {
    number: String,
    password: String,
    access_key: [u8; 16],
    registration_id: u16,
    aci: Uuid,
    pni: Uuid,
}

impl Canary {
    /// Registers two accounts. The second is away and is sent a message; the first is connected and is sent one that is
    /// stored, or overtaken by its acknowledgement, and one that is for connected devices alone.
    pub(super) async fn plant(client: Client) -> Result<Self, String> {
        let mut canary = Self {
            client,
            people: Vec::new(),
            queued: Vec::new(),
            cores: Vec::new(),
        };
        match canary.converse().await {
            Ok(()) => Ok(canary),
            Err(why) => match canary.clear().await {
                Ok(()) => Err(why),
                Err(also) => Err(format!("{why}; and {also}")),
            },
        }
    }

    async fn converse(&mut self) -> Result<(), String> {
        for _ in 0..2 {
            self.register().await?;
        }
        self.queued = self.content("a queued message");
        let stored = self.content("a message to a connected device");
        let online = self.content("a message for connected devices alone");
        self.send(0, 1, &self.queued, false).await?;
        let mut socket = self.client.socket(&self.people[0].authorization()).await?;
        if socket.envelope().await?.is_some() {
            return Err("a new account has an envelope already".to_owned());
        }
        for (content, is_online) in [(&stored, false), (&online, true)] {
            self.send(1, 0, content, is_online).await?;
            expect(&mut socket, content).await?;
        }
        socket.settle().await
    }

    async fn register(&mut self) -> Result<(), String> {
        let mut person = Person {
            number: format!("+999{:011}", u64::from_be_bytes(random()) % 100_000_000_000),
            password: encoding::hex(&random::<24>()),
            access_key: random(),
            registration_id: u16::from_be_bytes(random()) % 16_379 + 1,
            aci: Uuid::nil(),
            pni: Uuid::nil(),
        };
        let number = json!({ "number": person.number });
        let session = self
            .json(Method::POST, "/v1/verification/session", None, &number)
            .await?;
        let id = session["id"].as_str().ok_or(STRANGE)?.to_owned();
        let path = format!("/v1/verification/session/{id}/code");
        let checked = self
            .json(Method::PUT, &path, None, &json!({ "code": "000000" }))
            .await?;
        if checked["verified"] != true {
            return Err("the server wants a code that only the number's owner gets".to_owned());
        }
        let credentials = basic(&person.number, &person.password);
        let registration = registration(&person, &id);
        let account = self
            .json(Method::POST, "/v1/registration", Some(&credentials), &registration)
            .await?;
        let id = |name: &str| {
            account[name]
                .as_str()
                .and_then(|text| Uuid::parse_str(text).ok())
                .ok_or(STRANGE)
        };
        (person.aci, person.pni) = (id("uuid")?, id("pni")?);
        self.people.push(person);
        Ok(())
    }

    /// Bytes that are framed as a message of a running session, around random ones.
    fn content(&mut self, what: &'static str) -> Vec<u8> {
        let core = random();
        self.cores.push((what, core));
        let key = PrivateKey::from_bytes(&random()).public_key();
        let mut content = vec![0x44, 0x0a, 33];
        content.extend_from_slice(key.serialized());
        // Counters, then the ciphertext behind its length.
        content.extend_from_slice(&[0x10, 1, 0x18, 0, 0x22, 112]);
        content.extend_from_slice(&core);
        content.extend_from_slice(&random::<{ 112 - CORE }>());
        content.extend_from_slice(&random::<8>());
        content
    }

    async fn send(&self, from: usize, to: usize, content: &[u8], online: bool) -> Result<(), String> {
        let (from, to) = (&self.people[from], &self.people[to]);
        let message = json!({
            "type": 1,
            "destinationDeviceId": 1,
            "destinationRegistrationId": to.registration_id,
            "content": BASE64.encode(content),
        });
        // Any time at all: it is for the recipient.
        let body =
            json!({ "messages": [message], "online": online, "urgent": true, "timestamp": 1_700_000_000_000_u64 });
        let path = format!("/v1/messages/{}", to.aci);
        self.json(Method::PUT, &path, Some(&from.authorization()), &body)
            .await
            .map(drop)
    }

    /// What must be nowhere at any time.
    pub(super) fn secrets(&self) -> Needles {
        let mut needles = Needles::new();
        for (what, core) in &self.cores {
            needles.add(what, core);
        }
        for person in &self.people {
            needles.add("a phone number", person.number.as_bytes());
            needles.add("a phone number without its plus", &person.number.as_bytes()[1..]);
            needles.add("a device's password", person.password.as_bytes());
            needles.add("an access key", &person.access_key);
        }
        needles
    }

    /// What must be nowhere once the accounts are deleted.
    pub(super) fn remains(&self) -> Needles {
        let mut needles = self.secrets();
        for person in &self.people {
            needles.add("an ACI", person.aci.as_bytes());
            needles.add("a PNI", person.pni.as_bytes());
        }
        needles
    }

    /// The second comes and takes what waits, and both accounts are deleted. Tries all of it and tells the first failure.
    pub(super) async fn clear(&mut self) -> Result<(), String> {
        let drained = if self.people.len() == 2 && !self.queued.is_empty() {
            self.drain().await
        } else {
            Ok(())
        };
        let mut deleted = Ok(());
        for person in &self.people {
            let asked = self
                .client
                .ask(Method::DELETE, "/v1/accounts/me", Some(&person.authorization()), None)
                .await;
            let done = match asked {
                Ok(answer) if answer.status == 204 => Ok(()),
                Ok(answer) => Err(format!("a throw-away account was not deleted: {}", answer.status)),
                Err(why) => Err(format!("a throw-away account was not deleted: {why}")),
            };
            deleted = deleted.and(done);
        }
        drained.and(deleted)
    }

    async fn drain(&self) -> Result<(), String> {
        let mut socket = self.client.socket(&self.people[1].authorization()).await?;
        expect(&mut socket, &self.queued).await?;
        socket.settle().await
    }

    async fn json(
        &self,
        method: Method,
        path: &str,
        authorization: Option<&str>,
        body: &Value,
    ) -> Result<Value, String> {
        let answer = self.client.ask(method, path, authorization, Some(body)).await?;
        let said: Option<Value> = serde_json::from_slice(&answer.body).ok();
        if answer.status == 200 {
            return said.ok_or_else(|| STRANGE.to_owned());
        }
        let code = said
            .as_ref()
            .and_then(|said| said["code"].as_str())
            .unwrap_or("no code");
        if code == "registration_closed" {
            return Err("the server takes no registrations, and the canaries need two accounts".to_owned());
        }
        if code == "number" {
            return Err("the server sends codes, and the canaries have nobody who gets them".to_owned());
        }
        Err(format!("the server refused a canary: {} {code}", answer.status))
    }
}

impl Person {
    fn authorization(&self) -> String {
        basic(&self.aci.to_string(), &self.password)
    }
}

/// The next envelope has that content.
async fn expect(socket: &mut Socket, content: &[u8]) -> Result<(), String> {
    match socket.envelope().await? {
        Some(envelope) if envelope.content.as_deref() == Some(content) => Ok(()),
        Some(_) => Err("another message came than was sent".to_owned()),
        None => Err("a message did not come".to_owned()),
    }
}

fn registration(person: &Person, session: &str) -> Value {
    let [aci, pni] = [(); 2].map(|()| PrivateKey::from_bytes(&random()));
    let public = |key: &PrivateKey| BASE64.encode(key.public_key().serialized());
    let signed = |identity: &PrivateKey, id: u32, key: &[u8]| {
        let signature = xeddsa::sign(identity, key, &random());
        json!({ "keyId": id, "publicKey": BASE64.encode(key), "signature": BASE64.encode(signature.as_bytes()) })
    };
    let ec = |identity: &PrivateKey, id| {
        let key = PrivateKey::from_bytes(&random()).public_key();
        signed(identity, id, key.serialized())
    };
    // Only its owner could tell it from random bytes.
    let kyber = |identity: &PrivateKey, id| {
        let mut key = random::<1569>();
        key[0] = 8;
        signed(identity, id, &key)
    };
    json!({
        "sessionId": session,
        "skipDeviceTransfer": true,
        "accountAttributes": {
            "fetchesMessages": true,
            "registrationId": person.registration_id,
            "pniRegistrationId": person.registration_id,
            "capabilities": { "spqr": true },
            "unidentifiedAccessKey": BASE64.encode(person.access_key),
        },
        "aciIdentityKey": public(&aci),
        "pniIdentityKey": public(&pni),
        "aciSignedPreKey": ec(&aci, 1),
        "pniSignedPreKey": ec(&pni, 2),
        "aciPqLastResortPreKey": kyber(&aci, 3),
        "pniPqLastResortPreKey": kyber(&pni, 4),
    })
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", BASE64.encode(format!("{user}:{password}")))
}

const CORE: usize = 48;
const STRANGE: &str = "the server answered something else than its interface says";

#[cfg(test)]
mod tests {
    use keys_schema::framing;
    use keys_schema::proto::envelope::Type;

    use super::*;

    #[test]
    fn a_canary_is_framed_as_a_message_and_has_its_core() {
        let mut canary = Canary {
            client: Client::new("http://127.0.0.1:1", None).ok().unwrap(),
            people: Vec::new(),
            queued: Vec::new(),
            cores: Vec::new(),
        };
        let content = canary.content("a message");
        assert!(framing::check(Type::Ciphertext, &content).is_ok());
        assert_eq!(canary.secrets().find(&content), Some("a message"));
    }
}
