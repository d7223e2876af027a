//! The messages inside a WebSocket: requests and responses in protobuf.

use axum::http::header::{CONTENT_LENGTH, HeaderMap};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, Uri};
use bytes::Bytes;
use keys_schema::proto::{
    WebSocketMessage, WebSocketRequestMessage, WebSocketResponseMessage, web_socket_message::Type,
};
use prost::Message;

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

/// Parses the content of one binary frame.
pub fn parse_frame(bytes: Bytes) -> Result<Frame, BadFrame> {
    let message = WebSocketMessage::decode(bytes).map_err(|_| BadFrame)?;
    match (message.r#type(), message.request, message.response) {
        (Type::Request, Some(request), None) => Ok(Frame::Request(Box::new(InnerRequest {
            id: request.id,
            head: head(&request),
            body: request.body.unwrap_or_default(),
        }))),
        (Type::Response, None, Some(response)) => Ok(Frame::Answer {
            id: response.id.ok_or(BadFrame)?,
            status: response.status.ok_or(BadFrame)?,
        }),
        _ => Err(BadFrame),
    }
}

fn head(request: &WebSocketRequestMessage) -> Option<(Method, Uri, HeaderMap)> {
    let method = Method::from_bytes(request.verb.as_deref()?.as_bytes()).ok()?;
    let path = request.path.as_deref()?;
    if !path.starts_with('/') || request.headers.len() > MAX_HEADERS {
        return None;
    }
    let uri = path.parse().ok()?;
    let mut headers = HeaderMap::with_capacity(request.headers.len());
    // A line that is no header is as good as none: of what a client adds for itself nothing needs to be understood.
    let lines = request.headers.iter().filter_map(|line| line.split_once(':'));
    for (name, value) in lines {
        if let (Ok(name), Ok(value)) = (
            HeaderName::from_bytes(name.trim().as_bytes()),
            HeaderValue::from_str(value.trim()),
        ) {
            headers.insert(name, value);
        }
    }
    Some((method, uri, headers))
}

/// An answer to a client's request.
pub(super) fn answer(id: u64, status: StatusCode, headers: &HeaderMap, body: Bytes) -> Bytes {
    let mut lines: Vec<String> = headers
        .iter()
        .filter(|(name, _)| *name != CONTENT_LENGTH)
        .filter_map(|(name, value)| Some(format!("{name}:{}", value.to_str().ok()?)))
        .collect();
    lines.push(format!("{CONTENT_LENGTH}:{}", body.len()));
    let response = WebSocketResponseMessage {
        id: Some(id),
        status: Some(u32::from(status.as_u16())),
        message: Some(status.canonical_reason().unwrap_or("").to_owned()),
        headers: lines,
        body: (!body.is_empty()).then_some(body),
    };
    encode(&WebSocketMessage {
        r#type: Some(Type::Response.into()),
        response: Some(response),
        ..WebSocketMessage::default()
    })
}

/// A request of ours to a client.
pub(super) fn push(id: u64, path: &str, now_millis: i64, body: Option<Bytes>) -> Bytes {
    put(id, path, vec![format!("X-Signal-Timestamp:{now_millis}")], body)
}

/// The same, with JSON.
pub(super) fn push_json(id: u64, path: &str, now_millis: i64, json: String) -> Bytes {
    let headers = vec![
        format!("X-Signal-Timestamp:{now_millis}"),
        "Content-Type:application/json".to_owned(),
    ];
    put(id, path, headers, Some(json.into()))
}

fn put(id: u64, path: &str, headers: Vec<String>, body: Option<Bytes>) -> Bytes {
    let request = WebSocketRequestMessage {
        verb: Some("PUT".to_owned()),
        path: Some(path.to_owned()),
        body,
        headers,
        id: Some(id),
    };
    encode(&WebSocketMessage {
        r#type: Some(Type::Request.into()),
        request: Some(request),
        ..WebSocketMessage::default()
    })
}

fn encode(message: &WebSocketMessage) -> Bytes {
    message.encode_to_vec().into()
}

const MAX_HEADERS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

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
        let bytes = answer(u64::MAX, StatusCode::NO_CONTENT, &HeaderMap::new(), Bytes::new());
        let response = WebSocketMessage::decode(bytes).unwrap().response.unwrap();
        assert_eq!(
            (response.id, response.status, response.body),
            (Some(u64::MAX), Some(204), None)
        );
        assert_eq!(response.headers, ["content-length:0"]);
    }
}
