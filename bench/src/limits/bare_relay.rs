//! The least relay over WebSockets: a frame comes, goes to the other socket of its pair, and is answered; nothing is read,
//! checked, kept or counted.
//!
//! Two frames in and two out for each message, as long as the server's: the send and its answer, the push and its
//! acknowledgement. All frames that are ready are written before the flush, because a flush is most of what a frame costs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::{FutureExt, SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use crate::say;

type Socket = WebSocketStream<TcpStream>;
/// Receivers by their pair.
type Receivers = Arc<Mutex<HashMap<String, mpsc::Sender<Bytes>>>>;

/// Listens, says where, and serves.
pub(crate) async fn serve(read_buffer: usize) -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    say(&listener.local_addr()?.to_string());
    let receivers = Receivers::default();
    loop {
        let (stream, _) = listener.accept().await?;
        let receivers = Arc::clone(&receivers);
        // A connection that breaks is the load generator's to notice.
        tokio::spawn(async move { connection(stream, read_buffer, receivers).await.ok() });
    }
}

async fn connection(stream: TcpStream, read_buffer: usize, receivers: Receivers) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let mut path = String::new();
    let config = WebSocketConfig::default().read_buffer_size(read_buffer);
    #[expect(clippy::result_large_err, reason = "the crate's own type")]
    let note = |request: &Request, response: Response| -> Result<Response, ErrorResponse> {
        request.uri().path().clone_into(&mut path);
        Ok(response)
    };
    let socket = tokio_tungstenite::accept_hdr_async_with_config(stream, note, Some(config)).await?;
    let locked = || receivers.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(pair) = path.strip_prefix("/receive/") {
        let (sender, queue) = mpsc::channel(QUEUE);
        locked().insert(pair.to_owned(), sender);
        return receiving(socket, queue).await;
    }
    let to = path.strip_prefix("/send/").and_then(|pair| locked().get(pair).cloned());
    match to {
        Some(to) => sending(socket, to).await,
        None => idle(socket).await,
    }
}

async fn sending(mut socket: Socket, to: mpsc::Sender<Bytes>) -> anyhow::Result<()> {
    while let Some(frame) = socket.next().await {
        let mut frame = Some(frame);
        while let Some(now) = frame {
            if let Message::Binary(bytes) = now? {
                to.send(bytes.slice(..PUSH.min(bytes.len()))).await?;
                socket.feed(Message::Binary(bytes.slice(..ANSWER))).await?;
            }
            frame = socket.next().now_or_never().flatten();
        }
        socket.flush().await?;
    }
    Ok(())
}

async fn receiving(mut socket: Socket, mut queue: mpsc::Receiver<Bytes>) -> anyhow::Result<()> {
    loop {
        tokio::select! {
            push = queue.recv() => {
                let mut push = push;
                while let Some(now) = push {
                    socket.feed(Message::Binary(now)).await?;
                    push = queue.try_recv().ok();
                }
                socket.flush().await?;
            }
            acknowledgement = socket.next() => {
                if acknowledgement.transpose()?.is_none() {
                    return Ok(());
                }
            }
        }
    }
}

async fn idle(mut socket: Socket) -> anyhow::Result<()> {
    while let Some(frame) = socket.next().await {
        frame?;
    }
    Ok(())
}

/// As many bytes as the server's push of a message of 1 KiB.
const PUSH: usize = 1287;
/// And its answer to the sender.
const ANSWER: usize = 125;
const QUEUE: usize = 1024;
