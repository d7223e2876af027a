//! Sends the clients of a node elsewhere while it goes on working: a load balancer is told that the node is not ready, new
//! sockets are refused, and those that are open are closed one after the other, so that the other nodes do not get all of
//! them at once. What is asked by plain HTTP is answered as ever.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::error::ApiError;
use super::health::Readiness;

/// The open WebSockets of a node, and whether they are to go.
pub struct Drain {
    sockets: Mutex<Sockets>,
    readiness: Readiness,
    /// How long the closing takes.
    window: Duration,
    /// Cancelled when the server stops, and with it every socket.
    stop: CancellationToken,
}

#[derive(Default)]
struct Sockets {
    open: HashMap<u64, CancellationToken>,
    next: u64,
    /// Ends the closing.
    closing: Option<CancellationToken>,
}

/// A WebSocket that counts as open for as long as this is kept.
pub struct OpenSocket {
    drain: Arc<Drain>,
    number: u64,
    /// Cancelled when it is to close.
    pub close: CancellationToken,
}

impl Drop for OpenSocket {
    fn drop(&mut self) {
        self.drain.sockets().open.remove(&self.number);
    }
}

impl Drain {
    /// Of a node that tells load balancers by `readiness` whether it takes work, and whose sockets close with `stop`.
    pub fn new(readiness: Readiness, window: Duration, stop: CancellationToken) -> Self {
        Self {
            sockets: Mutex::default(),
            readiness,
            window,
            stop,
        }
    }

    /// Counts a socket in, or refuses it.
    pub(super) fn enter(self: &Arc<Self>) -> Result<OpenSocket, ApiError> {
        let mut sockets = self.sockets();
        if sockets.closing.is_some() {
            return Err(ApiError::draining(RETRY_AFTER_SECS));
        }
        let (number, close) = (sockets.next, self.stop.child_token());
        sockets.next += 1;
        sockets.open.insert(number, close.clone());
        Ok(OpenSocket {
            drain: Arc::clone(self),
            number,
            close,
        })
    }

    /// Begins to send clients elsewhere. Asked again it goes on as it is.
    pub fn begin(self: &Arc<Self>) {
        let mut sockets = self.sockets();
        if sockets.closing.is_some() {
            return;
        }
        let closing = self.stop.child_token();
        sockets.closing = Some(closing.clone());
        self.readiness.pause(true);
        let open: Vec<_> = sockets.open.values().cloned().collect();
        tokio::spawn(close_all(open, self.window, closing));
    }

    /// Lets clients in again. Sockets that have not been closed yet stay.
    pub fn undo(&self) {
        if let Some(closing) = self.sockets().closing.take() {
            closing.cancel();
            self.readiness.pause(false);
        }
    }

    /// How many sockets are open, and whether clients are being sent elsewhere.
    pub fn stand(&self) -> (usize, bool) {
        let sockets = self.sockets();
        (sockets.open.len(), sockets.closing.is_some())
    }

    fn sockets(&self) -> MutexGuard<'_, Sockets> {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Closes sockets evenly over the window, unless `closing` ends that.
async fn close_all(open: Vec<CancellationToken>, window: Duration, closing: CancellationToken) {
    let most_steps = usize::try_from(window.as_millis() / STEP.as_millis()).unwrap_or(usize::MAX);
    let at_once = open.len().div_ceil(most_steps.max(1)).max(1);
    let steps = u32::try_from(open.len().div_ceil(at_once)).unwrap_or(u32::MAX);
    let mut ticks = tokio::time::interval((window / steps.max(1)).max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for some in open.chunks(at_once) {
        if closing.run_until_cancelled(ticks.tick()).await.is_none() {
            return;
        }
        for socket in some {
            socket.cancel();
        }
    }
}

/// The shortest pause between two closings.
const STEP: Duration = Duration::from_millis(50);
/// By then a load balancer has turned to other nodes.
const RETRY_AFTER_SECS: u64 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(window_secs: u64) -> (Arc<Drain>, Readiness) {
        let readiness = Readiness::new(Arc::new(|| Box::pin(async { true })));
        let window = Duration::from_secs(window_secs);
        let drain = Arc::new(Drain::new(readiness.clone(), window, CancellationToken::new()));
        (drain, readiness)
    }

    fn closed(sockets: &[OpenSocket]) -> usize {
        sockets.iter().filter(|socket| socket.close.is_cancelled()).count()
    }

    #[tokio::test(start_paused = true)]
    async fn sockets_are_closed_one_after_the_other_within_the_window() {
        for count in [1, 10, 5_000] {
            let (drain, readiness) = drain(20);
            let sockets: Vec<_> = (0..count).map(|_| drain.enter().unwrap()).collect();
            drain.begin();
            assert!(!readiness.is_ready().await);
            assert!(drain.enter().is_err());
            assert_eq!(drain.stand(), (count, true));
            tokio::time::sleep(Duration::from_secs(10)).await;
            let half = closed(&sockets);
            assert!(
                half >= count / 2 && half <= count / 2 + count / 10 + 1,
                "{half} of {count}"
            );
            tokio::time::sleep(Duration::from_secs(10)).await;
            assert_eq!(closed(&sockets), count);
            drop(sockets);
            assert_eq!(drain.stand(), (0, true));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_open_yet_stays_when_clients_are_let_in_again() {
        let (drain, readiness) = drain(20);
        let sockets: Vec<_> = (0..100).map(|_| drain.enter().unwrap()).collect();
        drain.begin();
        drain.begin();
        // Between two closings.
        tokio::time::sleep(Duration::from_millis(5_100)).await;
        drain.undo();
        drain.undo();
        let gone = closed(&sockets);
        assert!((1..100).contains(&gone), "{gone}");
        assert!(readiness.is_ready().await);
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(closed(&sockets), gone);
        let newcomer = drain.enter().unwrap();
        drain.begin();
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(newcomer.close.is_cancelled(), "a second time it takes all of them");
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_closes_all_at_once_and_is_not_undone() {
        let (drain, readiness) = drain(20);
        let sockets: Vec<_> = (0..10).map(|_| drain.enter().unwrap()).collect();
        drain.begin();
        readiness.drain();
        drain.stop.cancel();
        assert_eq!(closed(&sockets), 10);
        drain.undo();
        assert!(!readiness.is_ready().await);
    }
}
