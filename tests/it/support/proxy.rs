//! A way to the server that can stop carrying anything without either end being told.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// A TCP proxy for one server.
pub(crate) struct Proxy {
    address: String,
    silent: Arc<watch::Sender<bool>>,
}

impl Proxy {
    pub(crate) async fn to(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let silent = Arc::new(watch::Sender::new(false));
        let (target, watched) = (target.to_owned(), silent.subscribe());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&target).await.unwrap();
                let ((client_read, client_write), (server_read, server_write)) =
                    (client.into_split(), server.into_split());
                tokio::spawn(carry(client_read, server_write, watched.clone()));
                tokio::spawn(carry(server_read, client_write, watched.clone()));
            }
        });
        Self { address, silent }
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Drops everything from now on, the ends of connections included.
    pub(crate) fn fall_silent(&self) {
        self.silent.send_replace(true);
    }
}

async fn carry(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut silent: watch::Receiver<bool>,
) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let read = tokio::select! {
            biased;
            _ = silent.wait_for(|silent| *silent) => break,
            read = from.read(&mut buffer) => read,
        };
        match read {
            Ok(length) if length > 0 => {
                if to.write_all(&buffer[..length]).await.is_err() {
                    return;
                }
            }
            _ => return,
        }
    }
    // Both halves stay open, so that no end is told.
    std::future::pending::<()>().await;
}
