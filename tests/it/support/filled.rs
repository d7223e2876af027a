//! Accounts that have something of everything that a server keeps.

use serde_json::json;

use super::attachments::Form;
use super::keys::base64;
use super::person::{message, open_session};
use super::tokens::Tokens;
use super::usernames::{Name, url_safe};
use super::{Person, Server, ask, hex, random, single};

/// An account with a row in every table that can have one.
pub(crate) struct Filled {
    pub(crate) phone: Person,
    pub(crate) laptop: Person,
    /// The form under which its picture was uploaded.
    pub(crate) picture: Form,
}

impl Filled {
    /// Makes one, with messages from `sender` in its queues.
    pub(crate) async fn new(server: &Server, sender: &Person) -> Self {
        let phone = Person::register(server).await;
        let laptop = phone.link(server).await;
        phone.link_code(server).await;
        open_session(server, &phone.number).await;
        for device in [&phone, &laptop] {
            Tokens::open(server, device).await;
            device.upload_keys(server, 100, 3).await;
        }
        claim(server, sender, &phone, "*").await;
        let mut attributes = phone.attributes();
        attributes["recoveryPassword"] = base64(&random::<32>()).into();
        attributes["registrationLock"] = hex(&random::<32>()).into();
        ask(phone
            .request(server, "PUT", "/v1/accounts/attributes")
            .json(&attributes))
        .await
        .expect(204);
        for _ in 0..2 {
            let blocked = format!("/v1/blocks/{}", uuid::Uuid::from_bytes(random()));
            ask(phone.request(server, "PUT", &blocked)).await.expect(204);
        }
        // One name is its own, one given up, one reserved.
        for _ in 0..2 {
            Name::of(server, &phone).await;
        }
        Name::new().reserve(server, &phone).await.expect(200);
        let picture = publish(server, &phone).await;
        keep(server, &phone).await;
        // Bytes that are announced are taken from the budget of the day.
        Form::ask(server, &phone, "?uploadLength=1000").await;
        write_to(server, sender, &phone, &[&phone, &laptop]).await;
        Self { phone, laptop, picture }
    }
}

/// Takes a key of each kind from these devices of an account.
pub(crate) async fn claim(server: &Server, from: &Person, to: &Person, devices: &str) {
    let path = format!("/v2/keys/{}/{devices}", to.aci);
    ask(from.request(server, "GET", &path)).await.expect(200);
}

/// Sends a message to these devices of an account.
pub(crate) async fn write_to(server: &Server, from: &Person, to: &Person, devices: &[&Person]) {
    let mut body = single(to, 1, b"x");
    let messages = devices.iter().map(|device| message(device, 1, &random::<40>()));
    body["messages"] = messages.collect();
    ask(from.request(server, "PUT", &to.inbox()).json(&body))
        .await
        .expect(200);
}

/// Two versions of a profile, the newer one with a picture.
async fn publish(server: &Server, person: &Person) -> Form {
    let mut form = None;
    for avatar in [false, true] {
        let profile = json!({
            "version": hex(&random::<32>()),
            "commitment": base64(&random::<97>()),
            "name": base64(&random::<81>()),
            "about": base64(&random::<156>()),
            "aboutEmoji": base64(&random::<60>()),
            "paymentAddress": base64(&random::<582>()),
            "phoneNumberSharing": base64(&random::<29>()),
            "avatar": avatar,
        });
        let answer = ask(person.request(server, "PUT", "/v1/profile").json(&profile))
            .await
            .expect(200);
        form = avatar.then(|| Form::read(server, &answer));
    }
    let form = form.unwrap();
    form.upload(server, &random::<1000>()).await;
    form
}

/// Two entries of account data, one of which was deleted.
async fn keep(server: &Server, person: &Person) {
    for deleted in [false, true] {
        let path = format!("/v1/data/{}", url_safe(&random::<32>()));
        let body = json!({ "version": 0, "value": base64(&random::<64>()) });
        let put = ask(person.request(server, "PUT", &path).json(&body)).await.expect(200);
        if deleted {
            let version = put.json()["version"].clone();
            let delete = person.request(server, "DELETE", &format!("{path}?version={version}"));
            ask(delete).await.expect(200);
        }
    }
}
