//! The body of an upload, as long as it gets on.

use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::extract::Request;
use axum::http::{Extensions, HeaderMap};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use http_body::Body as _;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::attachments::BodyEnd;
use crate::http::listener::ConnectionSlot;
use crate::http::state::Node;

/// A request in its parts.
pub(super) struct Parts {
    pub(super) headers: HeaderMap,
    /// How many bytes the body will have, if the request says so.
    pub(super) announced: Option<u64>,
    pub(super) body: BoxStream<'static, Result<Bytes, BodyEnd>>,
}

/// Takes a request apart.
pub(super) fn parts(node: &Node, request: Request) -> Parts {
    let (parts, body) = request.into_parts();
    Parts {
        announced: body.size_hint().exact(),
        body: paced(node, &parts.extensions, body),
        headers: parts.headers,
    }
}

/// The body while it brings at least [`PACE`] bytes in each idle time. The time in which nobody asks for more does not
/// count: then it is the server that is slow. However well it gets on, it ends after [`WHOLE`]: a client goes on with the
/// next request.
fn paced(node: &Node, extensions: &Extensions, body: Body) -> BoxStream<'static, Result<Bytes, BodyEnd>> {
    let pacing = Pacing {
        body: body.into_data_stream(),
        slot: extensions.get::<ConnectionSlot>().cloned(),
        stop: node.stop.clone(),
        idle: node.attachment_idle,
        end: Instant::now() + WHOLE,
        waited: Duration::ZERO,
        brought: 0,
    };
    stream::unfold(Some(pacing), async |pacing| {
        let mut pacing = pacing?;
        match pacing.next().await {
            Some(Ok(bytes)) => Some((Ok(bytes), Some(pacing))),
            Some(Err(end)) => Some((Err(end), None)),
            None => None,
        }
    })
    .fuse()
    .boxed()
}

struct Pacing {
    body: BodyDataStream,
    slot: Option<ConnectionSlot>,
    stop: CancellationToken,
    idle: Duration,
    end: Instant,
    waited: Duration,
    brought: usize,
}

impl Pacing {
    async fn next(&mut self) -> Option<Result<Bytes, BodyEnd>> {
        let begin = Instant::now();
        let left = self.end.saturating_duration_since(begin);
        let read = timeout(left.min(self.idle.saturating_sub(self.waited)), self.body.next());
        let read = tokio::select! {
            read = read => read,
            () = self.stop.cancelled() => return Some(Err(BodyEnd::Stopping)),
        };
        let bytes = match read {
            Err(_) => return Some(Err(BodyEnd::Stalled)),
            Ok(None) => return None,
            Ok(Some(Err(_))) => return Some(Err(BodyEnd::Cut)),
            Ok(Some(Ok(bytes))) => bytes,
        };
        self.waited += begin.elapsed();
        self.brought += bytes.len();
        if self.brought >= PACE {
            (self.waited, self.brought) = (Duration::ZERO, 0);
            if let Some(slot) = &self.slot {
                slot.got_on();
            }
        }
        Some(Ok(bytes))
    }
}

/// What has to come, or be taken, in each idle time: half a KiB a second by default.
pub(super) const PACE: usize = 16 * 1024;
/// In which 100 MiB come at 30 KiB a second.
const WHOLE: Duration = Duration::from_secs(60 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    fn pacing(piece: usize, every: Duration) -> Pacing {
        let pieces = stream::repeat_with(move || Bytes::from(vec![0; piece])).then(move |bytes| async move {
            tokio::time::sleep(every).await;
            Ok::<_, std::io::Error>(bytes)
        });
        Pacing {
            body: Body::from_stream(pieces).into_data_stream(),
            slot: None,
            stop: CancellationToken::new(),
            idle: Duration::from_secs(30),
            end: Instant::now() + WHOLE,
            waited: Duration::ZERO,
            brought: 0,
        }
    }

    async fn pieces(mut pacing: Pacing) -> (usize, Option<BodyEnd>) {
        let mut count = 0;
        loop {
            match pacing.next().await {
                Some(Ok(_)) => count += 1,
                other => return (count, other.and_then(Result::err)),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_ends_that_brings_too_little_and_one_that_never_ends() {
        let trickle = pieces(pacing(1, Duration::from_secs(7))).await;
        assert_eq!(trickle, (4, Some(BodyEnd::Stalled)));
        let endless = pieces(pacing(PACE, Duration::from_secs(7))).await;
        assert_eq!(endless, (3600 / 7, Some(BodyEnd::Stalled)));
    }
}
