//! What a socket costs that only waits.

use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};

use crate::client::Socket;
use crate::people::{Template, register};
use crate::server::Server;

/// Memory of the server.
pub(crate) struct Idle {
    /// Before, in KiB.
    pub(crate) before_kib: f64,
    /// With the sockets, in KiB.
    pub(crate) after_kib: f64,
    /// The difference by socket, in KiB.
    pub(crate) per_socket_kib: f64,
}

/// Connects so many devices, lets them have their empty queues, and looks at the server's memory.
pub(crate) async fn measure(server: &Server, template: &Template, count: usize) -> anyhow::Result<Idle> {
    let people = register(server, template, 3_000_000, count).await?;
    let before_kib = settled(server).await?;
    let sockets: Vec<Socket> = stream::iter(&people)
        .map(|person| async {
            let mut socket = Socket::open(&server.address, Some(&person.authorization)).await?;
            socket.drain().await?;
            anyhow::Ok(socket)
        })
        .buffer_unordered(64)
        .try_collect()
        .await?;
    let after_kib = settled(server).await?;
    #[expect(clippy::cast_precision_loss, reason = "some thousands of sockets")]
    let per_socket_kib = (after_kib - before_kib) / sockets.len() as f64;
    Ok(Idle {
        before_kib,
        after_kib,
        per_socket_kib,
    })
}

/// The memory once it stays the same for a while.
async fn settled(server: &Server) -> anyhow::Result<f64> {
    let mut last = server.resident_kib()?;
    loop {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let now = server.resident_kib()?;
        if (now - last).abs() < last / 100.0 {
            return Ok(now);
        }
        last = now;
    }
}
