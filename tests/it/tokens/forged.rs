//! Tokens that were not made as ours are (T06).

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use blind_relay::sealing::SealingKey;
use hmac::{Hmac, KeyInit, Mac};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::support::dump::Dump;
use crate::support::tokens::Tokens;
use crate::support::{Backend, Person, Server, Socket, ask, on_each_backend};

on_each_backend! {
    t06_whatever_is_wrong_with_a_token_is_answered_alike_and_logged_nowhere
    t74_who_has_a_key_that_signs_still_needs_what_a_token_carries
}

/// The server's own key, as somebody has it who has stolen both the database and the pepper.
struct Stolen {
    kid: String,
    public: Vec<u8>,
    seed: Vec<u8>,
}

impl Stolen {
    async fn from(server: &Server) -> Self {
        let pepper = std::fs::read_to_string(server.place().path().join("pepper")).unwrap();
        let sealing = SealingKey::derive(&bytes(pepper.trim()), b"", "blind-relay token keys v1");
        let dump = Dump::of(server).await;
        let row = dump.rows("token_keys").first().unwrap();
        let public = bytes(&row["public"]);
        let seed = sealing.open(&public, &bytes(&row["sealed"])).unwrap().to_vec();
        let jwks = ask(server.request("GET", "/.well-known/jwks.json")).await.expect(200);
        assert_eq!(jwks.header("cache-control"), Some("public, max-age=30"));
        let key = jwks.json()["keys"][0].clone();
        assert_eq!(key["x"], URL_SAFE_NO_PAD.encode(&public));
        assert_eq!(
            (&key["kty"], &key["crv"], &key["alg"], &key["use"]),
            (&json!("OKP"), &json!("Ed25519"), &json!("EdDSA"), &json!("sig"))
        );
        Self {
            kid: key["kid"].as_str().unwrap().to_owned(),
            public,
            seed,
        }
    }

    fn sign(&self, kid: Option<&str>, claims: &Value) -> String {
        let mut pkcs8 = bytes("302e020100300506032b657004220420");
        pkcs8.extend(&self.seed);
        let header = Header {
            kid: kid.map(str::to_owned),
            ..Header::new(Algorithm::EdDSA)
        };
        encode(&header, claims, &EncodingKey::from_ed_der(&pkcs8)).unwrap()
    }
}

async fn t06_whatever_is_wrong_with_a_token_is_answered_alike_and_logged_nowhere(backend: Backend) {
    let server = Server::spawn_with(backend, &[("LOG", "json"), ("LOG_LEVEL", "debug")]).await;
    let alice = Person::register(&server).await;
    let (tokens, stolen) = (Tokens::open(&server, &alice).await, Stolen::from(&server).await);
    let parts: Vec<&str> = tokens.access.split('.').collect();
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(parts[1]).unwrap()).unwrap();
    let with = |change: &dyn Fn(&mut Value)| {
        let mut claims = claims.clone();
        change(&mut claims);
        stolen.sign(Some(&stolen.kid), &claims)
    };
    // What the test can sign is taken, if it says what ours say: the rest is refused for what is wrong with it.
    let again = with(&|_| {});
    let asked = server.request("GET", "/v1/accounts/whoami").bearer_auth(&again);
    ask(asked).await.expect(200);
    // Within the leeway clocks may differ.
    let issued = claims["iat"].as_i64().unwrap();
    for late in [
        with(&|claims| claims["exp"] = (issued - 5).into()),
        with(&|claims| claims["nbf"] = (issued + 20).into()),
    ] {
        ask(server.request("GET", "/v1/accounts/whoami").bearer_auth(&late))
            .await
            .expect(200);
    }

    let with_header = |header: Value| format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), parts[1]);
    let hs256 = with_header(json!({ "alg": "HS256", "typ": "JWT", "kid": stolen.kid }));
    let mac = |key: &[u8]| {
        let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
        mac.update(hs256.as_bytes());
        format!("{hs256}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
    };
    let none = with_header(json!({ "alg": "none", "typ": "JWT", "kid": stolen.kid }));
    let other = alice.link(&server).await;
    let forged = [
        ("alg none", format!("{none}.")),
        ("alg none with a signature", format!("{none}.{}", parts[2])),
        ("HS256 under the public key", mac(&stolen.public)),
        (
            "HS256 under the public key as it is published",
            mac(URL_SAFE_NO_PAD.encode(&stolen.public).as_bytes()),
        ),
        (
            "another algorithm's name",
            with_header(json!({ "alg": "RS256", "kid": stolen.kid })) + "." + parts[2],
        ),
        ("an unknown key", stolen.sign(Some("another key"), &claims)),
        ("no key", stolen.sign(None, &claims)),
        ("another issuer", with(&|claims| claims["iss"] = "another".into())),
        ("another audience", with(&|claims| claims["aud"] = "another".into())),
        (
            "no audience",
            with(&|claims| drop(claims.as_object_mut().unwrap().remove("aud"))),
        ),
        (
            "no end",
            with(&|claims| drop(claims.as_object_mut().unwrap().remove("exp"))),
        ),
        (
            "over for longer than the leeway",
            with(&|claims| claims["exp"] = (issued - 60).into()),
        ),
        ("to come", with(&|claims| claims["nbf"] = (issued + 3_600).into())),
        ("a time that is none", with(&|claims| claims["exp"] = i64::MAX.into())),
        ("text for a time", with(&|claims| claims["exp"] = "tomorrow".into())),
        (
            "another device",
            with(&|claims| claims["sub"] = format!("{}.{}", alice.aci, other.device_id).into()),
        ),
        ("nobody", with(&|claims| claims["sub"] = "".into())),
        (
            "another session",
            with(&|claims| claims["sid"] = "AAAAAAAAAAAAAAAAAAAAAA".into()),
        ),
        ("other keys", with(&|claims| claims["key"] = "AAAA".into())),
        ("cut off", tokens.access[..tokens.access.len() - 10].to_owned()),
        ("without a signature", format!("{}.{}.", parts[0], parts[1])),
        ("two parts", format!("{}.{}", parts[0], parts[1])),
        ("five parts", format!("{}.x.y", tokens.access)),
        ("10 KiB", format!("{}{}", tokens.access, "A".repeat(10 * 1024))),
        ("dots", "..".to_owned()),
        ("a refresh token", tokens.refresh.clone()),
    ];
    let basic = ask(server
        .request("GET", "/v1/accounts/whoami")
        .basic_auth(&alice.aci, Some("not it, not it")))
    .await
    .expect(401)
    .looks();
    for (name, token) in &forged {
        let lines = server.log().lines().count();
        let refused = ask(server.request("GET", "/v1/accounts/whoami").bearer_auth(token)).await;
        assert_eq!(refused.looks(), basic, "{name}");
        let socket = Socket::open(&server, Some(&format!("Bearer {token}")), &[]).await;
        assert_eq!(socket.err(), Some(403), "{name}");
        // Spans of the database's calls aside, which say no more than their names.
        let log = server.log();
        let told = log.lines().skip(lines).filter(|line| !line.contains("\"DEBUG\""));
        assert!(told.count() <= 1, "{name}");
        for secret in [token.as_str(), token.rsplit('.').next().unwrap()] {
            assert!(secret.len() < 20 || !server.log().contains(secret), "{name}");
        }
    }
    assert_eq!(tokens.whoami(&server).await, 200);
}

async fn t74_who_has_a_key_that_signs_still_needs_what_a_token_carries(backend: Backend) {
    let server = Server::spawn(backend).await;
    let (alice, mallory) = (Person::register(&server).await, Person::register(&server).await);
    let stolen = Stolen::from(&server).await;
    let (hers, his) = (
        Tokens::open(&server, &alice).await,
        Tokens::open(&server, &mallory).await,
    );
    let claims = |tokens: &Tokens| -> Value {
        let part = tokens.access.split('.').nth(1).unwrap();
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
    };
    // Her name and her session, with the keys of his own token: they are bound to his device.
    let mut forged = claims(&hers);
    forged["key"] = claims(&his)["key"].clone();
    let forged = stolen.sign(Some(&stolen.kid), &forged);
    ask(server.request("GET", "/v1/accounts/whoami").bearer_auth(forged))
        .await
        .expect(401);
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex
        .bytes()
        .map(|digit| char::from(digit).to_digit(16).unwrap().try_into().unwrap())
        .collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}
