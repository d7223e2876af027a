//! The messages inside a WebSocket: requests and responses in protobuf.
//!
//! What is read stays where it lies in the frame, and what is written is written once, into a buffer of the right size:
//! with the messages as `keys_schema::proto` has them, each text would be a string of its own, and each envelope would be
//! copied from one buffer into the next. The tests hold what is written here against them.

use std::{fmt, str};

use axum::http::header::{CONTENT_LENGTH, HeaderMap};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, Uri};
use bytes::{Bytes, BytesMut};
use keys_schema::proto::web_socket_message::Type;
use prost::Message;
use uuid::Uuid;

use crate::http::envelope::Named;
use crate::http::protobuf::{begin_bytes, bytes, bytes_len, number, number_len, total};

/// What a client sent in one frame.
pub enum Frame {
    /// A request for the routes.
    Request(Box<InnerRequest>),
    /// The answer to a request of ours.
    Answer {
        /// The id of our request.
        id: u64,
        /// HTTP status.
        status: u32,
    },
}

/// A request inside a WebSocket.
pub struct InnerRequest {
    /// Echoed in the answer. Without it there is no answer.
    pub id: Option<u64>,
    /// Method, target and headers, if they are well formed.
    pub head: Option<(Method, Uri, HeaderMap)>,
    /// Body.
    pub body: Bytes,
}

/// The bytes are no message of the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a WebSocket message of the wire")]
pub struct BadFrame;

/// A `WebSocketMessage`, with its texts as views of the frame that nobody has looked at.
#[derive(Clone, PartialEq, Eq, Message)]
#[prost(skip_debug)]
struct Outer {
    #[prost(int32, optional, tag = "1")]
    kind: Option<i32>,
    #[prost(message, optional, tag = "2")]
    request: Option<Request>,
    #[prost(message, optional, tag = "3")]
    response: Option<Response>,
}

#[derive(Clone, PartialEq, Eq, Message)]
#[prost(skip_debug)]
struct Request {
    #[prost(bytes = "bytes", optional, tag = "1")]
    verb: Option<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "2")]
    path: Option<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "3")]
    body: Option<Bytes>,
    #[prost(uint64, optional, tag = "4")]
    id: Option<u64>,
    #[prost(bytes = "bytes", repeated, tag = "5")]
    headers: Vec<Bytes>,
}

#[derive(Clone, PartialEq, Eq, Message)]
#[prost(skip_debug)]
struct Response {
    #[prost(uint64, optional, tag = "1")]
    id: Option<u64>,
    #[prost(uint32, optional, tag = "2")]
    status: Option<u32>,
    #[prost(bytes = "bytes", optional, tag = "3")]
    message: Option<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "4")]
    body: Option<Bytes>,
    #[prost(bytes = "bytes", repeated, tag = "5")]
    headers: Vec<Bytes>,
}

/// Has these print their name and nothing else.
macro_rules! opaque_debug {
    ($($name:ident),*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(stringify!($name))
            }
        }
    )*};
}

opaque_debug!(Outer, Request, Response);

/// Parses the content of one binary frame.
pub fn parse_frame(bytes: Bytes) -> Result<Frame, BadFrame> {
    let outer = Outer::decode(bytes).map_err(|_| BadFrame)?;
    let kind = Type::try_from(outer.kind.unwrap_or_default()).unwrap_or(Type::Unknown);
    match (kind, outer.request, outer.response) {
        (Type::Request, Some(request), None) => Ok(Frame::Request(Box::new(InnerRequest {
            id: request.id,
            head: head(&request)?,
            body: request.body.unwrap_or_default(),
        }))),
        (Type::Response, None, Some(response)) => {
            let message = response.message.iter();
            message
                .chain(&response.headers)
                .try_for_each(|bytes| text(bytes).map(|_| ()))?;
            Ok(Frame::Answer {
                id: response.id.ok_or(BadFrame)?,
                status: response.status.ok_or(BadFrame)?,
            })
        }
        _ => Err(BadFrame),
    }
}

/// Texts of protobuf are UTF-8, or the message is none.
fn text(bytes: &Bytes) -> Result<&str, BadFrame> {
    str::from_utf8(bytes).map_err(|_| BadFrame)
}

fn head(request: &Request) -> Result<Option<(Method, Uri, HeaderMap)>, BadFrame> {
    let verb = request.verb.as_ref().map(text).transpose()?;
    let path = request.path.as_ref().map(text).transpose()?;
    let mut headers = HeaderMap::with_capacity(request.headers.len().min(MAX_HEADERS));
    // All of them are looked at: whether the frame is a message is not told by its first lines.
    for line in &request.headers {
        // A line that is no header is as good as none: of what a client adds for itself nothing needs to be understood.
        if let Some((name, value)) = text(line)?.split_once(':')
            && headers.len() < MAX_HEADERS
            && let (Ok(name), Ok(value)) = (
                HeaderName::from_bytes(name.trim().as_bytes()),
                HeaderValue::from_str(value.trim()),
            )
        {
            headers.insert(name, value);
        }
    }
    let sane = path.is_some_and(|path| path.starts_with('/')) && request.headers.len() <= MAX_HEADERS;
    let (Some(verb), Some(path), true) = (verb, request.path.clone(), sane) else {
        return Ok(None);
    };
    let method = Method::from_bytes(verb.as_bytes()).ok();
    Ok(method
        .zip(Uri::from_maybe_shared(path).ok())
        .map(|(method, uri)| (method, uri, headers)))
}

/// An answer to a client's request.
pub(super) fn answer(id: u64, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Bytes {
    let lines = || {
        headers
            .iter()
            .filter(|(name, _)| *name != CONTENT_LENGTH)
            .filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)))
    };
    let length = Number::of(body.len() as u64);
    let code = u64::from(status.as_u16());
    let reason = status.canonical_reason().unwrap_or("");
    let body_len = if body.is_empty() { 0 } else { bytes_len(body.len()) };
    let lines_len: usize = lines()
        .map(|(name, value)| bytes_len(name.len() + 1 + value.len()))
        .sum();
    let inner = number_len(id)
        + number_len(code)
        + bytes_len(reason.len())
        + body_len
        + lines_len
        + bytes_len(CONTENT_LENGTH.as_str().len() + 1 + length.len());
    let mut out = begin(RESPONSE, 3, inner);
    number(&mut out, 1, id);
    number(&mut out, 2, code);
    bytes(&mut out, 3, &[reason.as_bytes()]);
    if !body.is_empty() {
        bytes(&mut out, 4, &[body]);
    }
    for (name, value) in lines() {
        bytes(&mut out, 5, &[name.as_bytes(), b":", value.as_bytes()]);
    }
    bytes(
        &mut out,
        5,
        &[CONTENT_LENGTH.as_str().as_bytes(), b":", length.digits()],
    );
    out.freeze()
}

/// A request of ours to a client.
pub(super) fn push(id: u64, path: &str, now_millis: i64, body: Option<Bytes>) -> Bytes {
    match body {
        Some(body) => put(id, path, now_millis, None, Some(&[&body])),
        None => put(id, path, now_millis, None, None),
    }
}

/// A request of ours that carries a queued envelope under its name.
pub(super) fn push_envelope(id: u64, path: &str, now_millis: i64, queued: &[u8], guid: Uuid) -> Bytes {
    put(id, path, now_millis, None, Some(&[queued, Named::new(guid).as_bytes()]))
}

/// A request of ours with JSON.
pub(super) fn push_json(id: u64, path: &str, now_millis: i64, json: String) -> Bytes {
    put(
        id,
        path,
        now_millis,
        Some("Content-Type:application/json"),
        Some(&[json.as_bytes()]),
    )
}

/// The body is what its parts are together.
fn put(id: u64, path: &str, now_millis: i64, header: Option<&str>, body: Option<&[&[u8]]>) -> Bytes {
    let millis = Number::of(u64::try_from(now_millis).unwrap_or(0));
    let inner = bytes_len(VERB.len())
        + bytes_len(path.len())
        + body.map_or(0, |body| bytes_len(total(body)))
        + number_len(id)
        + bytes_len(TIMESTAMP.len() + millis.len())
        + header.map_or(0, |header| bytes_len(header.len()));
    let mut out = begin(REQUEST, 2, inner);
    bytes(&mut out, 1, &[VERB]);
    bytes(&mut out, 2, &[path.as_bytes()]);
    if let Some(body) = body {
        bytes(&mut out, 3, body);
    }
    number(&mut out, 4, id);
    bytes(&mut out, 5, &[TIMESTAMP, millis.digits()]);
    if let Some(header) = header {
        bytes(&mut out, 5, &[header.as_bytes()]);
    }
    out.freeze()
}

/// The beginning of a message with one message of that length in that field.
fn begin(kind: u64, field: u8, inner: usize) -> BytesMut {
    let mut out = BytesMut::with_capacity(number_len(kind) + bytes_len(inner));
    number(&mut out, 1, kind);
    begin_bytes(&mut out, field, inner);
    out
}

/// A number in decimal.
struct Number {
    digits: [u8; 20],
    begin: usize,
}

impl Number {
    fn of(mut number: u64) -> Self {
        let mut digits = [b'0'; 20];
        let mut begin = digits.len();
        loop {
            begin -= 1;
            digits[begin] = b'0' + (number % 10).to_le_bytes()[0];
            number /= 10;
            if number == 0 {
                return Self { digits, begin };
            }
        }
    }

    fn digits(&self) -> &[u8] {
        &self.digits[self.begin..]
    }

    fn len(&self) -> usize {
        self.digits.len() - self.begin
    }
}

const MAX_HEADERS: usize = 64;
const VERB: &[u8] = b"PUT";
const TIMESTAMP: &[u8] = b"X-Signal-Timestamp:";
/// The types of messages, as they are written.
const REQUEST: u64 = 1;
const RESPONSE: u64 = 2;

#[cfg(test)]
mod tests {
    use keys_schema::proto::{WebSocketMessage, WebSocketRequestMessage, WebSocketResponseMessage};

    use super::*;

    fn encode(message: &WebSocketMessage) -> Bytes {
        message.encode_to_vec().into()
    }

    fn request(verb: &str, path: &str, headers: &[&str]) -> Bytes {
        let request = WebSocketRequestMessage {
            verb: Some(verb.into()),
            path: Some(path.into()),
            body: Some(Bytes::from_static(b"body")),
            headers: headers.iter().map(|header| (*header).to_owned()).collect(),
            id: Some(0),
        };
        encode(&WebSocketMessage {
            r#type: Some(Type::Request.into()),
            request: Some(request),
            ..WebSocketMessage::default()
        })
    }

    fn parsed(bytes: Bytes) -> InnerRequest {
        match parse_frame(bytes) {
            Ok(Frame::Request(request)) => *request,
            _ => panic!("a request"),
        }
    }

    #[test]
    fn a_request_has_id_zero_and_headers_with_or_without_a_space() {
        let request = parsed(request("PUT", "/v1/messages/PNI:x?story=true", &["A:1", "b: 2"]));
        let (method, uri, headers) = request.head.unwrap();
        assert_eq!(request.id, Some(0));
        assert_eq!(
            (method, uri.path(), uri.query()),
            (Method::PUT, "/v1/messages/PNI:x", Some("story=true"))
        );
        assert_eq!(
            (headers["a"].as_bytes(), headers["b"].as_bytes()),
            (&b"1"[..], &b"2"[..])
        );
    }

    #[test]
    fn a_request_without_a_sane_head_can_still_be_answered() {
        for bytes in [
            request("PUT", "no-slash", &[]),
            request("PUT", "http://elsewhere/v1", &[]),
            request("P T", "/v1", &[]),
            request("GET", "/v1", &["a:1"; MAX_HEADERS + 1]),
        ] {
            let request = parsed(bytes);
            assert!(request.head.is_none());
            assert_eq!(request.id, Some(0));
        }
    }

    #[test]
    fn a_line_that_is_no_header_is_left_out() {
        let lines = ["no colon", "bad name: x", "a:line\nbreak", "b:2"];
        let (_, _, headers) = parsed(request("GET", "/v1", &lines)).head.unwrap();
        assert_eq!((headers.len(), headers["b"].as_bytes()), (1, &b"2"[..]));
    }

    #[test]
    fn the_type_must_match_what_is_there() {
        let mut message = WebSocketMessage::decode(request("GET", "/", &[])).unwrap();
        message.r#type = Some(Type::Response.into());
        assert!(parse_frame(encode(&message)).is_err());
        message.r#type = None;
        assert!(parse_frame(encode(&message)).is_err());
        assert!(parse_frame(Bytes::from_static(b"")).is_err());
        assert!(parse_frame(Bytes::from_static(b"\xff\xff\xff")).is_err());
    }

    #[test]
    fn an_empty_body_is_left_out_of_an_answer() {
        let bytes = answer(u64::MAX, StatusCode::NO_CONTENT, &HeaderMap::new(), b"");
        let response = WebSocketMessage::decode(bytes).unwrap().response.unwrap();
        assert_eq!(
            (response.id, response.status, response.body),
            (Some(u64::MAX), Some(204), None)
        );
        assert_eq!(response.headers, ["content-length:0"]);
    }

    #[test]
    fn an_answer_is_the_message_that_the_schema_says() {
        let mut headers = HeaderMap::new();
        headers.insert("x-signal-timestamp", HeaderValue::from_static("1"));
        headers.insert("x-odd", HeaderValue::from_bytes(b"\xff").unwrap());
        headers.insert(CONTENT_LENGTH, HeaderValue::from_static("99"));
        headers.append("x-twice", HeaderValue::from_static(""));
        headers.append("x-twice", HeaderValue::from_static("b"));
        for (id, status, body) in [
            (0, 200, vec![]),
            (127, 404, vec![1; 5]),
            (u64::MAX, 999, vec![2; 70_000]),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            let lines = ["x-signal-timestamp:1", "x-twice:", "x-twice:b"].map(str::to_owned);
            let schema = WebSocketMessage {
                r#type: Some(Type::Response.into()),
                response: Some(WebSocketResponseMessage {
                    id: Some(id),
                    status: Some(status.as_u16().into()),
                    message: Some(status.canonical_reason().unwrap_or("").to_owned()),
                    headers: lines
                        .into_iter()
                        .chain([format!("content-length:{}", body.len())])
                        .collect(),
                    body: (!body.is_empty()).then(|| body.clone().into()),
                }),
                ..WebSocketMessage::default()
            };
            let written = answer(id, status, &headers, &body);
            assert_eq!(written, encode(&schema));
            assert_eq!(written.len(), schema.encoded_len());
        }
    }

    #[test]
    fn a_request_of_ours_is_the_message_that_the_schema_says() {
        let schema = |id, body: Option<Bytes>, header: Option<&str>| {
            let timestamp = "X-Signal-Timestamp:1700000000000".to_owned();
            encode(&WebSocketMessage {
                r#type: Some(Type::Request.into()),
                request: Some(WebSocketRequestMessage {
                    verb: Some("PUT".into()),
                    path: Some("/api/v1/message".into()),
                    body,
                    headers: [timestamp].into_iter().chain(header.map(str::to_owned)).collect(),
                    id: Some(id),
                }),
                ..WebSocketMessage::default()
            })
        };
        let (path, now) = ("/api/v1/message", 1_700_000_000_000);
        for id in [0, 300, u64::MAX] {
            assert_eq!(push(id, path, now, None), schema(id, None, None));
            let body = Bytes::from(vec![7; 200]);
            assert_eq!(push(id, path, now, Some(body.clone())), schema(id, Some(body), None));
            let json = schema(id, Some("{}".into()), Some("Content-Type:application/json"));
            assert_eq!(push_json(id, path, now, "{}".to_owned()), json);
            for queued in [vec![], vec![9; 16_384]] {
                let guid = Uuid::from_u128(u128::from(id));
                let envelope = [&queued, Named::new(guid).as_bytes()].concat().into();
                assert_eq!(
                    push_envelope(id, path, now, &queued, guid),
                    schema(id, Some(envelope), None)
                );
            }
        }
    }

    #[test]
    fn what_is_read_is_what_the_schema_reads() {
        let no_text = |field: u8| [&[8, 1, 18, 4, field << 3 | 2, 2, 0xff, 0xfe][..]].concat();
        let answer_with = |field: u8| [&[8, 2, 26, 8, 8, 1, 16, 2, field << 3 | 2, 2, 0xff, 0xfe][..]].concat();
        let messages = [
            request("PUT", "/a", &["a:b"]).to_vec(),
            no_text(1),
            no_text(2),
            no_text(3),
            no_text(5),
            answer_with(3),
            answer_with(4),
            answer_with(5),
            // The number as bytes, a field that is not known, and a message in two pieces.
            vec![8, 1, 18, 3, 34, 1, 0],
            vec![8, 1, 18, 2, 48, 1],
            vec![8, 1, 18, 2, 32, 1, 18, 4, 18, 2, b'/', b'a'],
        ];
        for bytes in messages {
            let schema = WebSocketMessage::decode(&bytes[..]).ok();
            let read = parse_frame(bytes.clone().into()).ok();
            assert_eq!(read.is_some(), schema.is_some(), "{bytes:?}");
            if let (Some(Frame::Request(read)), Some(schema)) = (read, schema) {
                let schema = schema.request.unwrap();
                assert_eq!((read.id, &read.body), (schema.id, &schema.body.unwrap_or_default()));
                let path = read.head.map(|(_, uri, _)| uri.to_string());
                assert_eq!(path, schema.verb.and(schema.path));
            }
        }
    }
}
