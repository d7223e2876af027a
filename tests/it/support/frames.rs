//! WebSocket frames by hand, for what no client sends and for what must be right to the byte.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Server, within};

/// Opens a socket by hand; gives the stream behind the answer's head.
pub(crate) async fn upgrade(server: &Server, path: &str, more: &str) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    let head = format!(
        "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{more}\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    within("the head of an answer", async {
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(stream.read_u8().await.unwrap());
        }
    })
    .await;
    (stream, String::from_utf8(answer).unwrap())
}

/// A masked frame, complete in itself. The mask is zero.
pub(crate) fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode];
    match payload.len() {
        short @ 0..126 => frame.push(0x80 | u8::try_from(short).unwrap()),
        long => {
            frame.push(0xff);
            frame.extend_from_slice(&u64::try_from(long).unwrap().to_be_bytes());
        }
    }
    if payload.len() == 126 {
        frame.truncate(1);
        frame.extend_from_slice(&[0xfe, 0, 126]);
    }
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(payload);
    frame
}

/// Opcode and payload of the next frame of the server; `None` at the end of the stream.
pub(crate) async fn read_frame(stream: &mut (impl AsyncReadExt + Unpin)) -> Option<(u8, Vec<u8>)> {
    within("a frame", async {
        let first = stream.read_u8().await.ok()?;
        let length = match stream.read_u8().await.ok()? {
            127 => usize::try_from(stream.read_u64().await.ok()?).unwrap(),
            126 => usize::from(stream.read_u16().await.ok()?),
            short => usize::from(short),
        };
        let mut payload = vec![0; length];
        stream.read_exact(&mut payload).await.ok()?;
        Some((first & 0x0f, payload))
    })
    .await
}

/// The code of the server's close frame.
pub(crate) async fn close_code(stream: &mut (impl AsyncReadExt + Unpin)) -> Option<u16> {
    while let Some((opcode, payload)) = read_frame(stream).await {
        if opcode == 0x8 {
            return Some(u16::from_be_bytes(payload[..2].try_into().unwrap()));
        }
    }
    None
}
