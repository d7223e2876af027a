//! Who may register: by invite, by a code that is sent, after some work, or nobody.

mod carriers;
mod codes;
mod invites;
mod work;

use serde_json::{Value, json};

use crate::support::{Answer, Backend, Person, Server, ask};

/// Opens a verification session.
async fn open(server: &Server, body: &Value) -> Value {
    let request = server.request("POST", "/v1/verification/session").json(body);
    ask(request).await.expect(200).json()
}

/// A session for a number, by its id.
async fn session(server: &Server, number: &str) -> String {
    let session = open(server, &json!({ "number": number })).await;
    session["id"].as_str().unwrap().to_owned()
}

async fn ask_for_code(server: &Server, session: &str, transport: &str) -> Answer {
    let request = server.request("POST", &format!("/v1/verification/session/{session}/code"));
    ask(request.json(&json!({ "transport": transport, "client": "ios" }))).await
}

async fn try_code(server: &Server, session: &str, code: &str) -> Answer {
    let request = server.request("PUT", &format!("/v1/verification/session/{session}/code"));
    ask(request.json(&json!({ "code": code }))).await
}

async fn register(server: &Server, person: &Person, session: &str) -> Answer {
    ask(person.registering(server).json(&person.registration(session))).await
}

/// The seconds of `Retry-After`.
fn retry_after(answer: &Answer) -> u64 {
    answer.header("retry-after").unwrap().parse().unwrap()
}

#[tokio::test]
async fn off_loopback_nobody_comes_in_unless_somebody_says_so() {
    let server = Server::spawn_with(Backend::Sqlite, &[("LISTEN", "0.0.0.0:0")]).await;
    let request = server
        .request("POST", "/v1/verification/session")
        .json(&json!({ "number": Person::new().number }));
    assert_eq!(ask(request).await.expect(403).code(), "registration_closed");
    assert!(
        server
            .log()
            .contains("registration is closed, because nothing says who may register")
    );
    let doctor = server.run(&["doctor"]);
    let text = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert!(
        text.contains("warn  registration: closed, because nothing says who may register"),
        "{text}"
    );
}
