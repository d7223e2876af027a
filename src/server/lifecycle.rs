//! The end of a server, in order and within a time.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// One part in so many of the drain time is kept for the writer.
const FLUSH_SHARE: u32 = 5;

type Flush = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Tokens that tell parts of the server to end, and trackers that tell when they have.
pub struct Lifecycle {
    /// Listeners and what belongs to them.
    pub stop_accepting: CancellationToken,
    /// WebSocket sessions, which then close with 1012.
    pub close_sessions: CancellationToken,
    /// Parts that run until the writer has flushed: retention, wake-ups, the writer itself.
    pub stop_background: CancellationToken,
    /// Cancelled by a part that has found out that the server must not go on.
    pub give_up: CancellationToken,
    /// HTTP connections.
    pub connections: TaskTracker,
    /// WebSocket sessions: whoever takes over an upgraded connection spawns it here.
    pub sessions: TaskTracker,
    /// Parts that run until the writer has flushed.
    pub background: TaskTracker,
    flush: Mutex<Option<Flush>>,
    drain: Duration,
}

/// What was not finished when the drain time was over.
#[derive(Debug, PartialEq, Eq)]
pub struct Unfinished {
    /// HTTP connections still open.
    pub connections: usize,
    /// Sessions still open.
    pub sessions: usize,
    /// Whether the writer had flushed.
    pub flushed: bool,
}

impl fmt::Display for Unfinished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let writer = if self.flushed { "flushed" } else { "not flushed" };
        write!(
            f,
            "cut with {} connections and {} sessions open, writer {writer}",
            self.connections, self.sessions
        )
    }
}

impl Lifecycle {
    /// A server that has `drain` for its end.
    pub fn new(drain: Duration) -> Self {
        Self {
            stop_accepting: CancellationToken::new(),
            close_sessions: CancellationToken::new(),
            stop_background: CancellationToken::new(),
            give_up: CancellationToken::new(),
            connections: TaskTracker::new(),
            sessions: TaskTracker::new(),
            background: TaskTracker::new(),
            flush: Mutex::new(None),
            drain,
        }
    }

    /// What is awaited when no request and no session can write any more.
    pub fn flush_with(&self, flush: impl Future<Output = ()> + Send + 'static) {
        *self.flush.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::pin(flush));
    }

    /// Stops in order. `accepting` are the listeners' tasks; `cut` ends the waiting early.
    pub async fn stop(self, accepting: Vec<JoinHandle<()>>, cut: CancellationToken) -> Result<(), Unfinished> {
        let flush = self.flush.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut flushed = false;
        let in_order = async {
            self.stop_accepting.cancel();
            for listener in accepting {
                let _ = listener.await;
            }
            // Only now: a connection that was just being accepted could still have become a session.
            self.close_sessions.cancel();
            self.connections.close();
            self.sessions.close();
            let both_end = async {
                self.connections.wait().await;
                self.sessions.wait().await;
            };
            // Whoever does not end must not keep what others were promised from being flushed.
            let patience = self.drain - self.drain / FLUSH_SHARE;
            let ended = tokio::time::timeout(patience, both_end).await.is_ok();
            if let Some(flush) = flush {
                flush.await;
            }
            flushed = true;
            if !ended {
                // Named below, when the drain time is over.
                self.connections.wait().await;
                self.sessions.wait().await;
            }
            self.stop_background.cancel();
        };
        let in_time = tokio::select! {
            () = in_order => true,
            () = tokio::time::sleep(self.drain) => false,
            () = cut.cancelled() => false,
        };
        if in_time {
            return Ok(());
        }
        Err(Unfinished {
            connections: self.connections.len(),
            sessions: self.sessions.len(),
            flushed,
        })
    }
}

impl Drop for Lifecycle {
    /// A server that is dropped, served or not, leaves nothing running.
    fn drop(&mut self) {
        self.stop_accepting.cancel();
        self.close_sessions.cancel();
        self.stop_background.cancel();
    }
}

/// Cancels the first token on SIGTERM or SIGINT, and the second on a second one.
pub fn signals() -> io::Result<(CancellationToken, CancellationToken)> {
    // Once asked for, a hangup does not end the process any more: a reload is harmless also where there is no TLS.
    drop(signal(SignalKind::hangup())?);
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let (shutdown, cut) = (CancellationToken::new(), CancellationToken::new());
    let tokens = [shutdown.clone(), cut.clone()];
    tokio::spawn(async move {
        for token in tokens {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            token.cancel();
        }
    });
    Ok((shutdown, cut))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn sessions_end_before_the_writer_flushes_and_background_last() {
        let lifecycle = Lifecycle::new(Duration::from_secs(25));
        let order = Arc::new(Mutex::new(Vec::new()));
        let note = |what: &'static str| {
            let order = Arc::clone(&order);
            move || order.lock().unwrap().push(what)
        };
        for (token, tracker, noted) in [
            (&lifecycle.stop_accepting, &lifecycle.connections, note("connection")),
            (&lifecycle.close_sessions, &lifecycle.sessions, note("session")),
        ] {
            let token = token.clone();
            tracker.spawn(async move {
                token.cancelled().await;
                noted();
            });
        }
        let (noted, background) = (note("flush"), lifecycle.stop_background.clone());
        lifecycle.flush_with(async move {
            assert!(!background.is_cancelled());
            noted();
        });
        let background = lifecycle.stop_background.clone();
        assert_eq!(lifecycle.stop(Vec::new(), CancellationToken::new()).await, Ok(()));
        assert!(background.is_cancelled());
        assert_eq!(*order.lock().unwrap(), ["connection", "session", "flush"]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_left_after_the_drain_time_is_named_and_the_writer_has_flushed() {
        let lifecycle = Lifecycle::new(Duration::from_secs(25));
        lifecycle.sessions.spawn(std::future::pending::<()>());
        let begin = tokio::time::Instant::now();
        let unfinished = lifecycle.stop(Vec::new(), CancellationToken::new()).await.unwrap_err();
        assert_eq!(begin.elapsed().as_secs(), 25);
        assert_eq!(
            unfinished,
            Unfinished {
                connections: 0,
                sessions: 1,
                flushed: true
            }
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_signal_cuts_the_waiting() {
        let lifecycle = Lifecycle::new(Duration::from_secs(25));
        lifecycle.flush_with(std::future::pending());
        let cut = CancellationToken::new();
        cut.cancel();
        let unfinished = lifecycle.stop(Vec::new(), cut).await.unwrap_err();
        assert_eq!(
            unfinished,
            Unfinished {
                connections: 0,
                sessions: 0,
                flushed: false
            }
        );
    }
}
