//! Strings that mean something to a database, a terminal, a log or a careless reader of UTF-8, in every field, header, path
//! and query of every route (T63): refused, or kept as bytes that mean nothing. They are in no line of the log.

use blind_relay::http::routes::{Access, ROUTES, Route};
use futures_util::{StreamExt, stream};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::cases::{Body, Case, case};
use crate::support::dump::Dump;
use crate::support::person::basic;
use crate::support::{Backend, Person, Server, Socket, on_each_backend, send, within};

on_each_backend! {
    t63_strings_that_mean_something_elsewhere_mean_nothing_here
}

/// In every one of them.
const MARK: &str = "zq7planted";

/// What is planted, as bytes: some of it is no UTF-8.
const PLANTED: &[&[u8]] = &[
    b"zq7planted'; DROP TABLE accounts; --",
    b"zq7planted\" OR \"\"=\"",
    b"x', (SELECT 'zq7planted'))--\\",
    b"zq7planted\r\nERROR forged=\"zq7planted\"\r\n\r\nGET /zq7planted HTTP/1.1\r\n",
    b"zq7planted\n{\"level\":\"ERROR\",\"zq7planted\":1}\n",
    b"\x1b[2J\x1b]0;zq7planted\x07\x1b[31mzq7planted\x1b[0m",
    b"zq7planted\0zq7planted",
    b"\xc0\xafzq7planted\xe0\x80\xaf\xed\xa0\x80\xf8\x88\x80\x80\x80",
    "\u{202e}zq7planted\u{2066}\u{200f}\u{feff}\u{202c}".as_bytes(),
    b"%00%0d%0azq7planted%27%c0%af..%2f..%2f",
    b"${zq7planted}{{zq7planted}}%s%n$(zq7planted)`zq7planted`",
    b"../../../../zq7planted",
];

/// Headers that some route looks at, and some that a log might be tempted to write.
const HEADERS: &[&str] = &[
    "accept-language",
    "content-range",
    "content-type",
    "cookie",
    "forwarded",
    "group-send-token",
    "if-none-match",
    "origin",
    "range",
    "referer",
    "tus-resumable",
    "upload-checksum",
    "upload-length",
    "upload-metadata",
    "upload-offset",
    "user-agent",
    "x-forwarded-for",
    "x-signal-agent",
    "x-signal-receive-stories",
    "zq7planted",
];

/// Parameters that some route reads.
const QUERY: &[&str] = &[
    "deviceId",
    "identity",
    "includeE164",
    "key",
    "limit",
    "since",
    "story",
    "timeout",
    "ts",
    "uploadLength",
    "version",
];

async fn t63_strings_that_mean_something_elsewhere_mean_nothing_here(backend: Backend) {
    let server = Server::spawn_with(backend, &[("LOG", "json"), ("LOG_LEVEL", "trace")]).await;
    let witness = Person::register(&server).await;
    let before = Dump::of(&server).await;
    let planting = stream::iter(ROUTES).map(|route| Box::pin(plant_all(&server, route)));
    let taken: Vec<usize> = planting.buffer_unordered(AT_ONCE).collect().await;
    // Most headers mean nothing to most routes, and so the planted ones are in requests that are answered as any others.
    assert!(taken.iter().sum::<usize>() > 2 * ROUTES.len(), "{taken:?}");
    plant_in_sockets(&server).await;

    let after = Dump::of(&server).await;
    assert!(after.0.keys().eq(before.0.keys()), "the tables are there");
    let gone = before.without(&after);
    assert!(
        !gone.contains_key("accounts") && !gone.contains_key("devices"),
        "{gone:?}"
    );
    for (table, rows) in &after.0 {
        for row in rows {
            // Bytes are dumped as digits; whatever can be read here is a text to the database.
            assert!(row.values().all(|value| !value.contains(MARK)), "{table}: {row:?}");
        }
    }
    for line in server.log().lines() {
        let event: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("no event of its own: {line}"));
        assert!(event.is_object() && !line.contains(MARK), "{line}");
        assert_ne!(event["level"], "ERROR", "{line}");
    }
    assert!(!server.metrics().await.contains(MARK));
    let friend = Person::register(&server).await;
    send(&server, &friend, &witness, b"still here").await.expect(200);
    assert_eq!(witness.connect(&server).await.drain().await, [&b"still here"[..]]);
}

/// Routes that are tried side by side.
const AT_ONCE: usize = 6;

/// Somebody who may use a route, and how.
struct Rightful {
    case: Case,
    /// The headers that open it.
    proof: Vec<(&'static str, String)>,
}

impl Rightful {
    async fn new(server: &Server, route: &Route) -> Self {
        let (alice, bob) = (Person::register(server).await, Person::register(server).await);
        let case = case(route, server, &alice, &bob).await;
        let proof = match route.access {
            Access::Anyone | Access::Anonymous => vec![],
            Access::Number => vec![("authorization", basic(&alice.number, &alice.password))],
            Access::AccessKeys => vec![("unidentified-access-key", bob.access_key_header())],
            Access::UploadForm => vec![("authorization", case.capability.clone().unwrap())],
            _ => vec![("authorization", alice.authorization())],
        };
        Self { case, proof }
    }

    /// Whether a request that is taken leaves nothing with which to ask again.
    fn used_up_by(&self, route: &Route) -> bool {
        self.case.once
            || matches!(route.access, Access::Number | Access::LinkToken)
            || ["/v1/accounts/me", "/v1/devices/password"].contains(&route.path)
    }

    /// The request as it should be.
    fn request(&self) -> Request {
        let (content_type, body) = match &self.case.body {
            None => (None, Vec::new()),
            Some(Body::Json(json)) => (Some("application/json"), serde_json::to_vec(json).unwrap()),
            Some(Body::Bytes(content_type, bytes)) => (Some(*content_type), bytes.clone()),
        };
        let headers = self.case.headers.iter().chain(&self.proof);
        let mut headers: Vec<_> = headers
            .map(|(name, value)| ((*name).to_owned(), value.clone().into_bytes()))
            .collect();
        headers.extend(content_type.map(|value| ("content-type".to_owned(), value.into())));
        Request {
            path: self.case.path.clone().into_bytes(),
            headers,
            body,
        }
    }
}

/// One request, with whatever bytes anywhere.
struct Request {
    path: Vec<u8>,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
}

/// Plants everything everywhere; how often the route took it.
async fn plant_all(server: &Server, route: &Route) -> usize {
    let mut taken = 0;
    let mut rightful = Rightful::new(server, route).await;
    for planted in PLANTED {
        for request in requests(route, &rightful, planted) {
            let status = expect_sober(server, route, &request).await;
            if (200..300).contains(&status) {
                taken += 1;
                if rightful.used_up_by(route) {
                    rightful = Rightful::new(server, route).await;
                }
            }
        }
    }
    taken
}

/// The request with this in each place in turn.
fn requests(route: &Route, rightful: &Rightful, planted: &[u8]) -> Vec<Request> {
    let mut all = Vec::new();
    // In all headers that there are, beside those that open the route; then in those.
    let mut request = rightful.request();
    for name in HEADERS {
        request.headers.retain(|(known, _)| known != name);
        request.headers.push(((*name).to_owned(), planted.into()));
    }
    all.push(request);
    for name in ["authorization", "unidentified-access-key"] {
        for value in [planted.to_vec(), [b"Basic ", planted].concat(), credentials(planted)] {
            let mut request = rightful.request();
            request.headers.retain(|(known, _)| known != name);
            request.headers.push((name.to_owned(), value));
            all.push(request);
        }
    }
    // In each part of the path that is the client's, and in the query.
    for (at, part) in route.path.split('/').enumerate() {
        if part.starts_with('{') {
            let mut request = rightful.request();
            let path = rightful.case.path.clone();
            let mut parts: Vec<_> = path.split('/').map(|part| part.as_bytes().to_vec()).collect();
            parts[at] = encoded(planted);
            request.path = parts.join(&b'/');
            all.push(request);
        }
    }
    let mut request = rightful.request();
    for (number, name) in QUERY.iter().enumerate() {
        let sign = if number == 0 && !request.path.contains(&b'?') {
            b"?"
        } else {
            b"&"
        };
        request
            .path
            .extend([sign, name.as_bytes(), b"=", &encoded(planted)].concat());
    }
    all.push(request);
    // In each value of the body and as a name in it, as JSON writes it and as it is.
    match &rightful.case.body {
        None => {}
        Some(Body::Bytes(..)) => {
            let mut request = rightful.request();
            request.body = planted.to_vec();
            all.push(request);
        }
        Some(Body::Json(json)) => {
            let mut forms = vec![planted.to_vec()];
            if let Ok(text) = str::from_utf8(planted) {
                let written = serde_json::to_string(text).unwrap();
                forms.push(written[1..written.len() - 1].into());
            }
            for body in bodies(json) {
                for form in &forms {
                    let mut request = rightful.request();
                    request.body = replaced(&body, form);
                    all.push(request);
                }
            }
        }
    }
    all
}

/// The body with [`PLACE`] for each of its values in turn, and once as a name.
fn bodies(json: &Value) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for pointer in pointers(json) {
        let mut body = json.clone();
        *body.pointer_mut(&pointer).unwrap() = PLACE.into();
        all.push(serde_json::to_vec(&body).unwrap());
    }
    if let Value::Object(fields) = json {
        let mut fields = fields.clone();
        fields.insert(PLACE.to_owned(), PLACE.into());
        all.push(serde_json::to_vec(&fields).unwrap());
    }
    all
}

fn pointers(json: &Value) -> Vec<String> {
    let children: Vec<(String, &Value)> = match json {
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), value)).collect(),
        // What one of them is, all are.
        Value::Array(items) => items.iter().take(1).map(|value| ("0".to_owned(), value)).collect(),
        _ => return vec![String::new()],
    };
    let below = children
        .into_iter()
        .flat_map(|(name, value)| pointers(value).into_iter().map(move |rest| format!("/{name}{rest}")));
    below.collect()
}

fn replaced(body: &[u8], by: &[u8]) -> Vec<u8> {
    let mut rest = body;
    let mut whole = Vec::new();
    while let Some(at) = rest.windows(PLACE.len()).position(|part| part == PLACE.as_bytes()) {
        whole.extend([&rest[..at], by].concat());
        rest = &rest[at + PLACE.len()..];
    }
    whole.extend(rest);
    whole
}

fn credentials(planted: &[u8]) -> Vec<u8> {
    use base64::Engine;
    let text = [planted, b":", planted].concat();
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(text)).into_bytes()
}

/// Each byte as a percent sign and two digits.
fn encoded(bytes: &[u8]) -> Vec<u8> {
    bytes
        .iter()
        .flat_map(|byte| format!("%{byte:02X}").into_bytes())
        .collect()
}

/// Sends it, and fails if the answer is a failure of ours or gives anything of it back.
async fn expect_sober(server: &Server, route: &Route, request: &Request) -> u16 {
    let mut bytes = [
        route.method.to_uppercase().as_bytes(),
        b" ",
        &request.path,
        b" HTTP/1.1\r\n",
    ]
    .concat();
    for (name, value) in &request.headers {
        bytes.extend([name.as_bytes(), b": ", value, b"\r\n"].concat());
    }
    let length = format!(
        "host: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        request.body.len()
    );
    bytes.extend([length.as_bytes(), &request.body].concat());
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    // The server may stop reading before the end.
    let _ = stream.write_all(&bytes).await;
    let mut answer = Vec::new();
    let _ = within("an answer", stream.read_to_end(&mut answer)).await;
    let answer = String::from_utf8_lossy(&answer);
    let asked = || bytes[..bytes.len().min(2_000)].escape_ascii().to_string();
    let status = answer.get(9..12).and_then(|status| status.parse().ok());
    let status: u16 = status.unwrap_or_else(|| panic!("no answer to {}", asked()));
    assert!(status < 500, "{status} to {}", asked());
    assert!(!answer.contains(MARK), "{answer} to {}", asked());
    status
}

/// In the parts of a request inside a WebSocket. Its texts are UTF-8, as the frames demand.
async fn plant_in_sockets(server: &Server) {
    let alice = Person::register(server).await;
    let mut sockets = [
        Socket::open(server, None, &[]).await.unwrap(),
        Socket::open(server, Some(&alice.authorization()), &[]).await.unwrap(),
    ];
    for socket in &mut sockets {
        let mut id = 1_000;
        for text in PLANTED.iter().filter_map(|planted| str::from_utf8(planted).ok()) {
            let value = format!("x-planted: {text}");
            let credentials = format!("authorization: Basic {text}");
            let name = format!("{text}: x");
            for (verb, path, headers) in [
                (
                    "GET",
                    "/v1/accounts/whoami",
                    &[value.as_str(), &credentials, &name, text][..],
                ),
                ("GET", text, &[]),
                ("GET", &format!("/v1/profile/{text}"), &[]),
                (text, "/v1/accounts/whoami", &[]),
            ] {
                id += 1;
                socket
                    .ask_as(Some(id), verb, path, headers, Some(text.as_bytes().to_vec().into()))
                    .await;
                let answer = socket.answer_to(id).await;
                assert!(answer.status < 500, "{answer:?} to {verb} {path} {headers:?}");
                let told = format!("{:?} {}", answer.headers, String::from_utf8_lossy(&answer.body));
                assert!(!told.contains(MARK), "{told}");
            }
        }
        socket.keepalive().await;
    }
}

const PLACE: &str = "the place of what is planted";
