//! The byte stream under a connection or a WebSocket: a TCP socket, with TLS or without, or a stream of HTTP/2.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto::upgrade::downcast;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// One accepted connection, or what was made of one: see [`Transport::upgraded`].
pub enum Transport {
    /// Without TLS.
    Plain(TcpStream),
    /// With TLS. Boxed: it is many times larger, and every connection would carry that.
    Tls(Box<TlsStream<TcpStream>>),
    /// One stream of an HTTP/2 connection. Boxed, so that sockets that have a connection for themselves stay small.
    Stream(Box<TokioIo<Upgraded>>),
}

impl Transport {
    /// Takes over an accepted socket, after the TLS handshake if there is an acceptor. Cancelling it closes the socket.
    pub async fn accept(socket: TcpStream, tls: Option<&TlsAcceptor>) -> io::Result<Self> {
        // Envelopes are small and answers are written whole: waiting for more to send only adds latency.
        socket.set_nodelay(true)?;
        Ok(match tls {
            None => Self::Plain(socket),
            Some(acceptor) => Self::Tls(Box::new(acceptor.accept(socket).await?)),
        })
    }

    /// What is under an upgrade, and what has been read of it already: on HTTP/1.1 the whole connection, which is taken
    /// out of everything that HTTP had around it; on HTTP/2 the stream of the request.
    pub fn upgraded(upgraded: Upgraded) -> (Self, Bytes) {
        match downcast::<TokioIo<Self>>(upgraded) {
            Ok(parts) => (parts.io.into_inner(), parts.read_buf),
            Err(upgraded) => (Self::Stream(Box::new(TokioIo::new(upgraded))), Bytes::new()),
        }
    }
}

impl AsyncRead for Transport {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Stream(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Stream(stream) => {
                // hyper keeps a copy of each of its last few writes whole until the peer has room for it.
                let part = bytes.len().min(STREAM_WRITE);
                Pin::new(stream).poll_write(cx, &bytes[..part])
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Self::Stream(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Stream(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Stream(_) => {
                let first = slices.iter().find(|slice| !slice.is_empty());
                self.poll_write(cx, first.map_or(&[], |slice| &**slice))
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
            Self::Stream(_) => false,
        }
    }
}

/// A frame of HTTP/2.
const STREAM_WRITE: usize = 16 * 1024;
