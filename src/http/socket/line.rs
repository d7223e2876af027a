//! A WebSocket's line to its client: frames of a connection, with buffers only while something moves.
//!
//! tungstenite keeps the buffers that a connection has ever needed, and most sockets wait most of the time. So its state is
//! made when something comes or goes, and let go when the line is at rest: when every byte that came was part of a message
//! that was handed out, every byte that goes was taken by the connection, and nobody has said goodbye. From there a new
//! state goes on as the old one would have. What waits is a connection and a few numbers.
//!
//! That every byte belonged to a message is known by counting: of each message the shortest frame that carries it. A client
//! that sends longer ones, in fragments say, keeps its buffers until it leaves.

use std::io::{self, Read, Write};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::http::transport::Transport;

/// The server's end of a WebSocket.
pub(super) struct Line<T = Transport> {
    connection: T,
    /// Of a message that is read, in bytes.
    max_message: usize,
    /// While something moves, or one side has said goodbye.
    moving: Option<Box<Moving>>,
    /// Nothing more comes.
    ended: bool,
}

struct Moving {
    context: WebSocketContext,
    /// Bytes that came.
    came: u64,
    /// Bytes of messages that were handed out, at least.
    told: u64,
    /// Bytes that wait to be written, about.
    unwritten: usize,
    /// Something is to be flushed.
    unflushed: bool,
    /// Somebody has said goodbye.
    closing: bool,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Line<T> {
    /// Of a connection of which `read` has been read already, for messages up to `max_message` bytes.
    pub(super) fn new(connection: T, read: &Bytes, max_message: usize) -> Self {
        Self {
            connection,
            max_message,
            moving: (!read.is_empty()).then(|| Moving::begin(max_message, read)),
            ended: false,
        }
    }

    /// Lets the buffers go if nothing is in them.
    pub(super) fn rest(&mut self) {
        if self.moving.as_ref().is_some_and(|moving| moving.is_at_rest()) {
            self.moving = None;
        }
    }

    #[cfg(test)]
    fn has_buffers(&self) -> bool {
        self.moving.is_some()
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Message, Error>> {
        let moving = match &mut self.moving {
            Some(moving) => moving,
            at_rest => {
                let mut room = [MaybeUninit::uninit(); READ_BUFFER];
                let mut read = ReadBuf::uninit(&mut room);
                ready!(Pin::new(&mut self.connection).poll_read(cx, &mut read))?;
                // Also of nothing, which is the end: tungstenite knows what that means.
                at_rest.insert(Moving::begin(self.max_message, read.filled()))
            }
        };
        let mut polled = Polled {
            connection: &mut self.connection,
            cx,
            came: 0,
        };
        let message = moving.context.read(&mut polled);
        moving.came += polled.came;
        let message = match message {
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
            message => message?,
        };
        moving.told += shortest_frame(message.len());
        match &message {
            // The answer is in the buffers.
            Message::Ping(_) => moving.unflushed = true,
            Message::Close(_) => moving.closing = true,
            _ => {}
        }
        Poll::Ready(Ok(message))
    }

    fn poll_write_out(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let Some(moving) = self.moving.as_mut() else {
            return Poll::Ready(Ok(()));
        };
        let mut polled = Polled {
            connection: &mut self.connection,
            cx,
            came: 0,
        };
        match moving.context.flush(&mut polled) {
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
            // Both sides have said goodbye, and what was to be written is.
            Err(Error::ConnectionClosed) | Ok(()) => {}
            Err(error) => return Poll::Ready(Err(error)),
        }
        moving.unwritten = 0;
        moving.unflushed = false;
        Poll::Ready(Ok(()))
    }
}

impl Moving {
    fn begin(max_message: usize, read: &[u8]) -> Box<Self> {
        let mut part = Vec::with_capacity(READ_BUFFER.max(read.len()));
        part.extend_from_slice(read);
        Box::new(Self {
            context: WebSocketContext::from_partially_read(part, Role::Server, Some(config(max_message))),
            came: read.len() as u64,
            told: 0,
            unwritten: 0,
            unflushed: false,
            closing: false,
        })
    }

    fn is_at_rest(&self) -> bool {
        self.came == self.told && !self.unflushed && !self.closing
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Stream for Line<T> {
    type Item = Result<Message, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let read = ready!(self.poll_read(cx));
        self.ended = read.is_err();
        Poll::Ready(match read {
            Err(Error::ConnectionClosed | Error::AlreadyClosed) => None,
            read => Some(read),
        })
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Sink<Message> for Line<T> {
    type Error = Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let full = self
            .moving
            .as_ref()
            .is_some_and(|moving| moving.unwritten >= WRITE_BUFFER);
        if full {
            self.poll_write_out(cx)
        } else {
            Poll::Ready(Ok(()))
        }
    }

    fn start_send(mut self: Pin<&mut Self>, message: Message) -> Result<(), Error> {
        let max_message = self.max_message;
        let moving = self.moving.get_or_insert_with(|| Moving::begin(max_message, &[]));
        moving.unwritten += message.len() + LONGEST_HEAD;
        moving.unflushed = true;
        moving.closing |= matches!(message, Message::Close(_));
        match moving.context.write(&mut Later, message) {
            // It is in the buffer, and tungstenite wanted to flush something as well.
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            written => written,
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.poll_write_out(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.poll_write_out(cx)
    }
}

/// A connection as tungstenite wants it, for the task that polls.
struct Polled<'a, 'b, T> {
    connection: &'a mut T,
    cx: &'a mut Context<'b>,
    came: u64,
}

impl<T: AsyncRead + Unpin> Read for Polled<'_, '_, T> {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let mut room = ReadBuf::new(room);
        at_once(Pin::new(&mut *self.connection).poll_read(self.cx, &mut room))?;
        let read = room.filled().len();
        self.came += read as u64;
        Ok(read)
    }
}

impl<T: AsyncWrite + Unpin> Write for Polled<'_, '_, T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        at_once(Pin::new(&mut *self.connection).poll_write(self.cx, bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        at_once(Pin::new(&mut *self.connection).poll_flush(self.cx))
    }
}

fn at_once<R>(polled: Poll<io::Result<R>>) -> io::Result<R> {
    match polled {
        Poll::Ready(done) => done,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}

/// Takes nothing now: what is written waits for a flush.
struct Later;

impl Read for Later {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }
}

impl Write for Later {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Err(io::ErrorKind::WouldBlock.into())
    }
}

/// Bytes of the shortest frame in which a client can send so many: length and mask come before them (RFC 6455, 5.2).
fn shortest_frame(bytes: usize) -> u64 {
    let head = match bytes {
        0..=125 => 6,
        126..=65_535 => 8,
        _ => LONGEST_HEAD,
    };
    (head + bytes) as u64
}

fn config(max_message: usize) -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        // It is this module that says when to write: at WRITE_BUFFER, and at each flush.
        .write_buffer_size(usize::MAX - 1)
        .max_write_buffer_size(usize::MAX)
        .max_message_size(Some(max_message))
        .max_frame_size(Some(max_message))
}

/// For one message of the usual size, or a few acknowledgements.
const READ_BUFFER: usize = 4 * 1024;
/// What may be gathered before it is written. With the largest message it bounds what waits.
const WRITE_BUFFER: usize = 64 * 1024;
const LONGEST_HEAD: usize = 14;

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, SinkExt, StreamExt};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio_tungstenite::WebSocketStream;
    use tokio_tungstenite::tungstenite::protocol::frame::Frame;
    use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

    use super::*;

    const MAX: usize = 200_000;

    fn line(room: usize) -> (Line<DuplexStream>, DuplexStream) {
        let (here, there) = duplex(room);
        (Line::new(here, &Bytes::new(), MAX), there)
    }

    async fn pair(room: usize) -> (Line<DuplexStream>, WebSocketStream<DuplexStream>) {
        let (line, there) = line(room);
        (line, WebSocketStream::from_raw_socket(there, Role::Client, None).await)
    }

    async fn received(line: &mut Line<DuplexStream>) -> Message {
        line.next().await.unwrap().unwrap()
    }

    fn waits(line: &mut Line<DuplexStream>) -> bool {
        line.next().now_or_never().is_none()
    }

    /// As a client sends it.
    fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0x80 | opcode];
        match u16::try_from(payload.len()).unwrap() {
            length @ 0..=125 => frame.push(0x80 | u8::try_from(length).unwrap()),
            length => {
                frame.push(0x80 | 126);
                frame.extend(length.to_be_bytes());
            }
        }
        frame.extend([0; 4]);
        frame.extend(payload);
        frame
    }

    #[tokio::test]
    async fn a_line_has_buffers_only_while_something_moves() {
        let (mut line, mut client) = pair(MAX).await;
        assert!(waits(&mut line) && !line.has_buffers(), "to wait takes none");
        for size in [0, 125, 126, 65_535, 65_536, MAX] {
            let message = Message::Binary(vec![7; size].into());
            client.feed(message.clone()).await.unwrap();
            let (sent, came) = tokio::join!(client.flush(), received(&mut line));
            sent.unwrap();
            assert!(came == message && waits(&mut line) && line.has_buffers());
            line.rest();
            assert!(!line.has_buffers(), "{size}");
            let (sent, came) = tokio::join!(line.send(message.clone()), client.next());
            sent.unwrap();
            assert!(came.unwrap().unwrap() == message);
            line.rest();
            assert!(!line.has_buffers(), "{size}");
        }
    }

    #[tokio::test]
    async fn buffers_with_something_in_them_stay() {
        let (mut line, mut client) = line(MAX);
        let frame = masked(2, b"half a message");
        for part in frame.chunks(1) {
            assert!(waits(&mut line));
            line.rest();
            client.write_all(part).await.unwrap();
        }
        assert_eq!(
            received(&mut line).await,
            Message::Binary(Bytes::from_static(b"half a message"))
        );
        line.rest();
        assert!(!line.has_buffers());
        // One whole and half another, in one piece.
        let (whole, half) = (masked(2, &[1; 300]), masked(2, &[2; 300]));
        client.write_all(&[&whole[..], &half[..100]].concat()).await.unwrap();
        assert_eq!(received(&mut line).await.len(), 300);
        line.rest();
        assert!(line.has_buffers() && waits(&mut line));
        line.rest();
        client.write_all(&half[100..]).await.unwrap();
        assert_eq!(received(&mut line).await.into_data(), vec![2; 300]);
        line.feed(Message::Binary(Bytes::from_static(b"unflushed")))
            .await
            .unwrap();
        line.rest();
        assert!(line.has_buffers());
        line.flush().await.unwrap();
        line.rest();
        assert!(!line.has_buffers());
        let mut read = [0; 11];
        client.read_exact(&mut read).await.unwrap();
        assert_eq!(&read[2..], b"unflushed");
    }

    #[tokio::test]
    async fn a_ping_is_answered_before_the_buffers_go() {
        let (mut line, mut client) = pair(MAX).await;
        client.send(Message::Ping(Bytes::from_static(b"1"))).await.unwrap();
        assert_eq!(received(&mut line).await, Message::Ping(Bytes::from_static(b"1")));
        line.rest();
        assert!(line.has_buffers(), "the answer is in them");
        line.flush().await.unwrap();
        line.rest();
        assert!(!line.has_buffers());
        assert_eq!(
            client.next().await.unwrap().unwrap(),
            Message::Pong(Bytes::from_static(b"1"))
        );
    }

    #[tokio::test]
    async fn fragments_are_joined_whatever_is_let_go_between_them() {
        let (mut line, mut client) = pair(MAX).await;
        for round in 0..2 {
            for (data, last) in [(Data::Binary, false), (Data::Continue, false), (Data::Continue, true)] {
                let frame = Frame::message(vec![round; 10], OpCode::Data(data), last);
                client.send(Message::Frame(frame)).await.unwrap();
                if !last {
                    assert!(waits(&mut line));
                    line.rest();
                    assert!(line.has_buffers());
                }
            }
            assert_eq!(received(&mut line).await.into_data(), vec![round; 30]);
            line.rest();
            assert!(
                line.has_buffers(),
                "more came than the shortest frame has: it cannot be told what the rest was"
            );
        }
    }

    #[tokio::test]
    async fn what_came_with_the_upgrade_is_read_first() {
        let (here, mut client) = duplex(1024);
        let first = masked(2, b"first");
        let mut line = Line::new(here, &first[..4].to_vec().into(), MAX);
        client.write_all(&first[4..]).await.unwrap();
        client.write_all(&masked(2, b"second")).await.unwrap();
        assert_eq!(received(&mut line).await.into_data(), "first");
        assert_eq!(received(&mut line).await.into_data(), "second");
        assert!(waits(&mut line));
        line.rest();
        assert!(!line.has_buffers());
    }

    #[tokio::test]
    async fn a_client_that_takes_nothing_is_given_no_more_than_a_buffer() {
        let (mut line, mut client) = pair(1024).await;
        let message = || Message::Binary(vec![1; 1000].into());
        let mut given = 0;
        while line.feed(message()).now_or_never().is_some() {
            given += 1;
            assert!(given <= WRITE_BUFFER / 1000 + 1);
        }
        assert!(given > WRITE_BUFFER / 1000 / 2);
        let taken = async {
            for _ in 0..given {
                assert_eq!(client.next().await.unwrap().unwrap(), message());
            }
        };
        let (flushed, ()) = tokio::join!(line.flush(), taken);
        flushed.unwrap();
        line.rest();
        assert!(!line.has_buffers());
    }

    #[tokio::test]
    async fn a_goodbye_is_answered_and_then_there_is_nothing() {
        let (mut line, mut client) = pair(1024).await;
        client.send(Message::Close(None)).await.unwrap();
        assert_eq!(received(&mut line).await, Message::Close(None));
        line.rest();
        assert!(line.has_buffers(), "what was said is not forgotten");
        line.flush().await.unwrap();
        assert!(line.next().await.is_none() && line.next().await.is_none());
        assert_eq!(client.next().await.unwrap().unwrap(), Message::Close(None));

        let (mut line, mut client) = pair(1024).await;
        line.send(Message::Close(None)).await.unwrap();
        line.rest();
        assert_eq!(client.next().await.unwrap().unwrap(), Message::Close(None));
        client.flush().await.ok();
        assert_eq!(received(&mut line).await, Message::Close(None));
        assert!(line.next().await.is_none());
    }

    #[tokio::test]
    async fn a_client_that_just_goes_is_an_error_once() {
        let (mut line, client) = line(1024);
        drop(client);
        assert!(matches!(line.next().await, Some(Err(Error::Protocol(_)))));
        assert!(line.next().await.is_none());
    }

    #[tokio::test]
    async fn what_no_client_may_send_is_refused() {
        let unmasked = vec![0x82, 1, 7];
        let mut too_large = vec![0x82, 0x80 | 127];
        too_large.extend((MAX as u64 + 1).to_be_bytes());
        too_large.extend([0; 4]);
        for bytes in [unmasked, too_large, vec![0xff, 0x80, 0, 0, 0, 0]] {
            let (mut line, mut client) = line(1024);
            client.write_all(&bytes).await.unwrap();
            assert!(line.next().await.unwrap().is_err(), "{bytes:?}");
            line.rest();
            assert!(line.next().await.is_none());
        }
    }
}
