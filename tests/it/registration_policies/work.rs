//! Work that a client does before it may ask for a code.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::support::{Answer, Backend, Person, Server, ask, on_each_backend};

use super::{ask_for_code, open, register, try_code};

on_each_backend! {
    a_session_is_open_after_its_work
}

/// Whether a nonce is an answer, as docs/protocol.md has it.
fn answers(work: &Value, nonce: &str) -> bool {
    let bits: usize = work["bits"].as_u64().unwrap().try_into().unwrap();
    let challenge = work["challenge"].as_str().unwrap();
    let hash = Sha256::digest(format!("blind-relay registration work v1:{challenge}:{nonce}"));
    let zeros = hash
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1));
    zeros.take_while(|bit| *bit == 0).count() >= bits
}

fn nonce(wanted: impl Fn(&str) -> bool) -> String {
    (0..).map(|n: u64| format!("n{n}")).find(|nonce| wanted(nonce)).unwrap()
}

async fn a_session_is_open_after_its_work(backend: Backend) {
    let settings = [("REGISTRATION_WORK_BITS", "10")];
    let server = Server::spawn_with(backend, &settings).await;
    let person = Person::new();
    let opened = open(&server, &json!({ "number": person.number })).await;
    let id = opened["id"].as_str().unwrap();
    let work = &opened["proofOfWork"];
    assert_eq!(work, &json!({ "algorithm": "sha256", "bits": 10, "challenge": id }));
    assert_eq!(
        (&opened["allowedToRequestCode"], &opened["requestedInformation"]),
        (&json!(false), &json!(["captcha"]))
    );
    let answer = async |captcha: Value| -> Answer {
        let request = server.request("PATCH", &format!("/v1/verification/session/{id}"));
        ask(request.json(&json!({ "captcha": captcha }))).await
    };
    // Without it nothing else goes on.
    assert_eq!(ask_for_code(&server, id, "sms").await.expect(409).json(), opened);
    assert_eq!(try_code(&server, id, "123456").await.expect(409).json(), opened);
    register(&server, &person, id).await.expect(401);
    let long = "1".repeat(65);
    for wrong in [&nonce(|nonce| !answers(work, nonce)), "", "a b", &long] {
        assert_eq!(answer(json!(wrong)).await.expect(403).json(), opened);
    }
    answer(json!(7)).await.expect(422);
    assert_eq!(
        answer(Value::Null).await.expect(200).json(),
        opened,
        "nothing was answered"
    );
    let other = open(&server, &json!({ "number": person.number })).await;
    // Once in a thousand one is an answer to both.
    let others = nonce(|nonce| answers(&other["proofOfWork"], nonce) && !answers(work, nonce));
    assert_eq!(
        answer(json!(others)).await.expect(403).json(),
        opened,
        "it was done for another session"
    );

    let done = answer(json!(nonce(|nonce| answers(work, nonce))))
        .await
        .expect(200)
        .json();
    assert_eq!(
        (&done["allowedToRequestCode"], &done["requestedInformation"]),
        (&json!(true), &json!([]))
    );
    assert!(done.get("proofOfWork").is_none());
    ask_for_code(&server, id, "sms").await.expect(200);
    try_code(&server, id, "123456").await.expect(200);
    register(&server, &person, id).await.expect(200);
}
