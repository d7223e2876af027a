//! Accounts for a measurement, registered over the wire.

use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};

use crate::client::Socket;
use crate::server::Server;

/// Keys to register with. Every account may have the same: the server cannot tell, and signatures are checked each time.
pub(crate) struct Template {
    identity: Value,
    signed: Value,
    last_resort: Value,
}

impl Template {
    /// From the official library's vectors.
    pub(crate) fn load() -> anyhow::Result<Self> {
        let vectors: Value = serde_json::from_str(include_str!("../../keys-schema/vectors/libsignal-vectors.json"))?;
        let person = &vectors["identities"][0];
        Ok(Self {
            identity: base64_of(&person["publicKey"])?,
            signed: signed_key(&person["signedPreKeys"][0])?,
            last_resort: signed_key(&person["kyberPreKeys"][0])?,
        })
    }
}

impl Template {
    /// The Kyber key under another id.
    pub(crate) fn kyber_as(&self, id: u32) -> Value {
        let mut key = self.last_resort.clone();
        key["keyId"] = id.into();
        key
    }
}

fn signed_key(key: &Value) -> anyhow::Result<Value> {
    let id = key.get("keyId").or_else(|| key.get("id")).context("a key has an id")?;
    Ok(json!({
        "keyId": id,
        "publicKey": base64_of(&key["publicKey"])?,
        "signature": base64_of(&key["signature"])?,
    }))
}

fn base64_of(hex: &Value) -> anyhow::Result<Value> {
    let hex = hex.as_str().context("vectors are hex")?;
    let bytes = (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16));
    Ok(Value::String(STANDARD.encode(bytes.collect::<Result<Vec<u8>, _>>()?)))
}

/// A registered account with one device.
#[derive(Clone)]
pub(crate) struct Person {
    /// Account id.
    pub(crate) aci: String,
    /// For the upgrade.
    pub(crate) authorization: String,
}

/// Registers so many accounts, with numbers from `first` on.
pub(crate) async fn register(
    server: &Server,
    template: &Template,
    first: usize,
    count: usize,
) -> anyhow::Result<Vec<Person>> {
    register_at(&server.address, template, first, count).await
}

/// As [`register`], where a server listens.
pub(crate) async fn register_at(
    address: &str,
    template: &Template,
    first: usize,
    count: usize,
) -> anyhow::Result<Vec<Person>> {
    let lanes = LANES.min(count.max(1));
    let people = stream::iter(0..lanes).map(|lane| async move {
        let mut socket = Socket::open(address, None).await?;
        let mut people = Vec::new();
        for index in (lane..count).step_by(lanes) {
            people.push(register_one(&mut socket, template, first + index).await?);
        }
        anyhow::Ok(people)
    });
    Ok(people.buffer_unordered(LANES).try_collect::<Vec<_>>().await?.concat())
}

async fn register_one(socket: &mut Socket, template: &Template, number: usize) -> anyhow::Result<Person> {
    let number = format!("+1{number:010}");
    let password = format!("bench-password-{number}");
    let session = socket
        .json("POST", "/v1/verification/session", &json!({ "number": number }), None)
        .await?;
    let id = session["id"].as_str().context("a session has an id")?;
    let path = format!("/v1/verification/session/{id}/code");
    socket.json("PUT", &path, &json!({ "code": "000000" }), None).await?;
    let basic = basic(&number, &password);
    let registered = socket
        .json("POST", "/v1/registration", &registration(template, id), Some(&basic))
        .await?;
    let aci = registered["uuid"].as_str().context("an account has an id")?.to_owned();
    Ok(Person {
        authorization: self::basic(&format!("{aci}.1"), &password),
        aci,
    })
}

fn registration(template: &Template, session: &str) -> Value {
    json!({
        "sessionId": session,
        "skipDeviceTransfer": true,
        "accountAttributes": {
            "fetchesMessages": true,
            "registrationId": REGISTRATION_ID,
            "pniRegistrationId": REGISTRATION_ID,
            "capabilities": { "spqr": true },
            "unidentifiedAccessKey": STANDARD.encode(ACCESS_KEY),
        },
        "aciIdentityKey": template.identity,
        "pniIdentityKey": template.identity,
        "aciSignedPreKey": template.signed,
        "pniSignedPreKey": template.signed,
        "aciPqLastResortPreKey": template.last_resort,
        "pniPqLastResortPreKey": template.last_resort,
    })
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// Of every account here.
pub(crate) const ACCESS_KEY: [u8; 16] = [7; 16];
/// Of every device here.
pub(crate) const REGISTRATION_ID: u16 = 4711;
const LANES: usize = 16;
