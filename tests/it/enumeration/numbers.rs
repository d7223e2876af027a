//! Numbers: asked for one by one (T46), and hashed against a stolen database (T47).

use std::collections::HashSet;

use blind_relay::auth::{Number, ServerSecrets};
use blind_relay::http::routes::{ROUTES, Service};
use blind_relay::secret_file;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::json;
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha512};

use crate::support::dump::Dump;
use crate::support::person::{open_session, people};
use crate::support::{Answer, Backend, Person, Server, ask, on_each_backend};

on_each_backend! {
    t46_a_crawl_through_numbers_finds_no_account
    t47_a_stolen_database_and_all_candidate_numbers_match_nothing
}

/// No contact discovery exists. This holds every route against numbers, so that whoever brings it meets this test.
async fn t46_a_crawl_through_numbers_finds_no_account(backend: Backend) {
    // Registering and verifying take numbers, by purpose: T45 has them.
    const TAKE_NUMBERS: &[&str] = &["/v1/verification/session", "/v1/registration"];
    let server = Server::spawn(backend).await;
    let all = people(&server, 2).await;
    let (alice, bob) = (&all[0], &all[1]);
    let stranger = Person::new().number;
    let mut asked = 0;
    for route in ROUTES.iter().filter(|route| route.service != Service::Waits) {
        if TAKE_NUMBERS.contains(&route.path) || route.path == "/v1/accounts/me" {
            continue;
        }
        let method = route.method.to_uppercase();
        let body =
            |number: &str| json!({ "number": number, "numbers": [number], "contacts": [number], "e164s": [number] });
        for form in [
            |number: &str| number.replace('+', "%2B"),
            |number: &str| number[1..].to_owned(),
        ] {
            let crawl = async |number: &str, named: bool| {
                let path = fill(route.path, &form(number));
                let path = format!("{path}?number={0}&e164={0}&q={0}", form(number));
                let request = match named {
                    true => alice.request(&server, &method, &path),
                    false => server
                        .request(&method, &path)
                        .header("unidentified-access-key", alice.access_key_header()),
                };
                let request = if ["POST", "PUT", "PATCH"].contains(&method.as_str()) {
                    request.json(&body(number))
                } else {
                    request
                };
                ask(request).await
            };
            for named in [true, false] {
                let (known, unknown) = (crawl(&bob.number, named).await, crawl(&stranger, named).await);
                asked += 1;
                assert_eq!(shape(&known), shape(&unknown), "{method} {}", route.path);
                let text = String::from_utf8_lossy(&known.body);
                for secret in [&bob.aci, &bob.pni, &bob.number] {
                    assert!(!text.contains(secret.as_str()), "{method} {}: {text}", route.path);
                }
            }
        }
    }
    assert!(asked > 150, "the routes are asked");
}

/// The path with the value in the place of each parameter.
fn fill(path: &str, value: &str) -> String {
    let parts = path
        .split('/')
        .map(|part| if part.starts_with('{') { value } else { part });
    parts.collect::<Vec<_>>().join("/")
}

/// An answer without what is the time, or random, in every answer.
fn shape(answer: &Answer) -> (u16, Vec<String>, usize) {
    let (status, headers, body) = answer.looks();
    (status, headers.into_iter().map(|(name, _)| name).collect(), body.len())
}

/// Candidates for each number, of those who have accounts. Each is tried in [`forms`].
const CANDIDATES: u64 = 200_000;

async fn t47_a_stolen_database_and_all_candidate_numbers_match_nothing(backend: Backend) {
    let server = Server::spawn(backend).await;
    let everyone = people(&server, 5).await;
    everyone[0].link_code(&server).await;
    open_session(&server, &everyone[1].number).await;
    everyone[1].link(&server).await;
    let secrets = ServerSecrets::from_pepper(&pepper(&server));
    let stolen = windows(&stolen(&server).await);
    assert!(stolen.len() > 1000, "there is something to steal");

    // Whoever has the pepper as well finds every account: what is searched in is right, and so is the search.
    for person in &everyone {
        let number = Number::parse(&person.number).unwrap();
        assert!(
            stolen.contains(&first_eight(&secrets.hash_number(&number).0)),
            "the hash under the pepper"
        );
        assert!(
            !stolen.contains(&first_eight(person.number.as_bytes())),
            "a number as it is"
        );
    }

    // Around numbers that have accounts, so that the right ones are among the candidates.
    let mut tried = 0_u64;
    for person in &everyone {
        let digits: u64 = person.number[1..].parse().unwrap();
        let share = CANDIDATES / 5;
        for candidate in digits - share / 2..digits + share / 2 {
            for form in forms(candidate) {
                tried += 1;
                assert!(!stolen.contains(&form), "a number can be found by trying");
            }
        }
    }
    assert!(tried >= 1_000_000);
}

/// What a thief without a key would compute of a number.
fn forms(digits: u64) -> [[u8; 8]; 8] {
    let text = format!("+{digits}");
    let keyed = |key: &[u8]| {
        let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
        mac.update(text.as_bytes());
        first_eight(&mac.finalize().into_bytes())
    };
    [
        first_eight(text.as_bytes()),
        first_eight(&text.as_bytes()[1..]),
        first_eight(&Sha256::digest(&text)),
        first_eight(&Sha256::digest(&text[1..])),
        first_eight(&Sha1::digest(&text)),
        first_eight(&Sha512::digest(&text)),
        keyed(b""),
        keyed(&[0; 32]),
    ]
}

fn first_eight(bytes: &[u8]) -> [u8; 8] {
    bytes[..8].try_into().unwrap()
}

/// Every eight bytes in a row.
fn windows(bytes: &[u8]) -> HashSet<[u8; 8]> {
    bytes
        .windows(8)
        .map(first_eight)
        .filter(|window| *window != [0; 8])
        .collect()
}

/// Every value of every column, as text and as bytes.
async fn stolen(server: &Server) -> Vec<u8> {
    let mut bytes = Vec::new();
    let dump = Dump::of(server).await;
    for value in dump.0.values().flatten().flat_map(|row| row.values()) {
        bytes.extend_from_slice(value.as_bytes());
        let digit = |c: char| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let digits: Option<Vec<u8>> = value.chars().map(digit).collect();
        let digits = digits.unwrap_or_default();
        bytes.extend(digits.chunks_exact(2).map(|pair| (pair[0] << 4) | pair[1]));
    }
    bytes
}

/// The secret that a thief of the database does not have.
fn pepper(server: &Server) -> [u8; 32] {
    *secret_file::read_or_create(&server.place().path().join("pepper")).unwrap()
}
