//! 10.1: from a number to an account, as three client stacks do it.

use serde_json::Value;

use super::client::{Client, Stack, refused};
use super::fields::{REGISTRATION, SESSION, WHOAMI, check, json};
use crate::support::keys::base64;
use crate::support::person::basic;
use crate::support::{Backend, Person, Server};

/// One socket without credentials, then one that has only a number's.
pub(super) async fn a_number_is_verified_and_registered_on_a_socket_with_its_credentials(backend: Backend) {
    let server = Server::spawn(backend).await;
    let mut person = Person::new();

    let mut anonymous = Client::open(&server, Stack::Service, None).await;
    let body = format!(
        r#"{{"number":"{}","pushToken":null,"mcc":null,"mnc":null,"pushTokenType":null}}"#,
        person.number
    );
    let session = anonymous.ask_json("POST", "/v1/verification/session", &body).await;
    let session = json(&session, 200, SESSION);
    assert_eq!(session["allowedToRequestCode"], true);
    // Only asked for with a captcha among the requested information, but understood.
    let path = format!("/v1/verification/session/{}", session["id"].as_str().unwrap());
    let body = r#"{"captcha":"signal-hcaptcha.x","pushToken":null,"mcc":null,"mnc":null,"pushTokenType":null,"pushChallenge":null}"#;
    json(&anonymous.ask_json("PATCH", &path, body).await, 200, SESSION);
    let code = format!("{path}/code");
    let body = r#"{"transport":"sms","client":"trace-client"}"#;
    let answer = anonymous.ask_json("POST", &code, body).await;
    assert_eq!(json(&answer, 200, SESSION)["allowedToRequestCode"], true);

    // 101, although there is no such account yet.
    let authorization = basic(&person.number, &person.password);
    let mut registering = Client::open(&server, Stack::Service, Some(&authorization)).await;
    let answer = registering.ask_json("PUT", &code, r#"{"code":"123456"}"#).await;
    assert_eq!(json(&answer, 200, SESSION)["verified"], true);
    // No credentials inside: those of the upgrade are meant.
    let body = registration(&person, session["id"].as_str().unwrap(), Shape::Service);
    let answer = registering.ask_json("POST", "/v1/registration", &body).await;
    take_account(&mut person, &json(&answer, 200, REGISTRATION));

    let authorization = basic(&person.aci, &person.password);
    let mut device = Client::open(&server, Stack::Service, Some(&authorization)).await;
    whoami(&mut device, &person).await;
}

/// All of it on one anonymous socket, with the credentials on the registration itself.
pub(super) async fn a_newer_client_registers_on_one_anonymous_socket(backend: Backend) {
    let server = Server::spawn(backend).await;
    // The case of the header's name is the client's choice.
    for header in ["authorization", "Authorization"] {
        let mut person = Person::new();
        let mut client = Client::open(&server, Stack::Service, None).await;
        let body = format!(
            r#"{{"number":"{}","pushToken":null,"mcc":null,"mnc":null,"pushTokenType":null}}"#,
            person.number
        );
        let session = verified(&mut client, &body, r#"{"transport":"sms","client":"trace-client"}"#).await;
        let body = registration(&person, &session, Shape::NewerService);
        let credentials = basic(&person.number, &person.password);
        let headers = [(header, credentials.as_str())];
        let answer = client.ask_with("POST", "/v1/registration", &headers, &body).await;
        take_account(&mut person, &json(&answer, 200, REGISTRATION));
    }
}

/// The same with the official library's shapes, and both forms of its user name afterwards.
pub(super) async fn the_official_library_registers_on_one_anonymous_socket(backend: Backend) {
    let server = Server::spawn(backend).await;
    let mut person = Person::new();
    let mut client = Client::open(&server, Stack::Official, None).await;
    let body = format!(r#"{{"number":"{}"}}"#, person.number);
    let session = verified(&mut client, &body, r#"{"transport":"sms","client":"ios"}"#).await;
    let body = registration(&person, &session, Shape::Official);
    assert!((5_000..7_000).contains(&body.len()), "{}", body.len());
    let credentials = basic(&person.number, &person.password);
    let headers = [("authorization", credentials.as_str())];
    let answer = client.ask_with("POST", "/v1/registration", &headers, &body).await;
    take_account(&mut person, &json(&answer, 200, REGISTRATION));
    for user in [person.aci.clone(), format!("{}.1", person.aci)] {
        let authorization = basic(&user, &person.password);
        let mut device = Client::open(&server, Stack::Official, Some(&authorization)).await;
        whoami(&mut device, &person).await;
    }
    // Dead credentials are told apart from a server in trouble by 403, and by nothing else.
    for user in [person.aci.clone(), format!("{}.2", person.aci), Person::new().pni] {
        let line = refused(&server, Stack::Official, &basic(&user, "not the password")).await;
        assert!(line.starts_with("HTTP/1.1 403 "), "{line}");
    }
}

/// The id of a session that has been given its code.
async fn verified(client: &mut Client, session: &str, transport: &str) -> String {
    let answer = client.ask_json("POST", "/v1/verification/session", session).await;
    let id = json(&answer, 200, SESSION)["id"].as_str().unwrap().to_owned();
    assert!(
        id.bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_=-".contains(&byte)),
        "an id goes into paths as it is: {id}"
    );
    let code = format!("/v1/verification/session/{id}/code");
    json(&client.ask_json("POST", &code, transport).await, 200, SESSION);
    let answer = client.ask_json("PUT", &code, r#"{"code":"123456"}"#).await;
    assert_eq!(json(&answer, 200, SESSION)["verified"], true);
    id
}

async fn whoami(device: &mut Client, person: &Person) {
    let account = json(&device.ask("GET", "/v1/accounts/whoami").await, 200, WHOAMI);
    assert_eq!(account["uuid"], person.aci);
    assert_eq!(account["pni"], person.pni);
    assert_eq!(account["number"], person.number);
}

fn take_account(person: &mut Person, account: &Value) {
    check(account, REGISTRATION);
    assert_eq!(account["number"], person.number);
    account["uuid"].as_str().unwrap().clone_into(&mut person.aci);
    account["pni"].as_str().unwrap().clone_into(&mut person.pni);
}

/// Whose body of a registration.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Service,
    NewerService,
    Official,
}

fn registration(person: &Person, session: &str, shape: Shape) -> String {
    let key = match shape {
        Shape::Official => serde_json::to_string(&person.access_key).unwrap(),
        Shape::Service | Shape::NewerService => format!(r#""{}""#, base64(&person.access_key)),
    };
    let (id, pni_id) = (person.registration_id, person.pni_registration_id);
    let attributes = match shape {
        Shape::Service => format!(
            r#"{{"signalingKey":null,"registrationId":{id},"pniRegistrationId":{pni_id},"voice":false,"video":false,"fetchesMessages":true,"pin":null,"registrationLock":null,"unidentifiedAccessKey":{key},"unrestrictedUnidentifiedAccess":false,"discoverableByPhoneNumber":true,"capabilities":{{"storage":false,"transfer":false,"attachmentBackfill":false,"spqr":true}},"name":null}}"#
        ),
        Shape::NewerService => format!(
            r#"{{"fetchesMessages":true,"registrationId":{id},"pniRegistrationId":{pni_id},"voice":true,"video":true,"name":null,"pin":null,"registrationLock":null,"recoveryPassword":null,"unidentifiedAccessKey":{key},"unrestrictedUnidentifiedAccess":false,"discoverableByPhoneNumber":false}}"#
        ),
        Shape::Official => format!(
            r#"{{"recoveryPassword":"{}","registrationId":{id},"pniRegistrationId":{pni_id},"registrationLock":null,"unidentifiedAccessKey":{key},"unrestrictedUnidentifiedAccess":false,"capabilities":{{"spqr":true,"storage":false}},"discoverableByPhoneNumber":true,"fetchesMessages":true}}"#,
            base64(&[7; 32])
        ),
    };
    let more = match shape {
        Shape::Service => r#","recoveryPassword":null,"everySignedKeyValid":true"#,
        Shape::NewerService => r#","recoveryPassword":null,"gcmToken":null,"requireAtomic":true"#,
        Shape::Official => "",
    };
    let (aci_identity, pni_identity) = (person.aci_identity.base64(), person.pni_identity.base64());
    format!(
        r#"{{"sessionId":"{session}","accountAttributes":{attributes},"skipDeviceTransfer":true,"aciIdentityKey":"{aci_identity}","pniIdentityKey":"{pni_identity}","aciSignedPreKey":{},"pniSignedPreKey":{},"aciPqLastResortPreKey":{},"pniPqLastResortPreKey":{}{more}}}"#,
        person.aci_signed, person.pni_signed, person.aci_last_resort, person.pni_last_resort
    )
}
