//! Every metric there is: the only file that spells a metric's name. Label values come from closed sets; there is no
//! label that grows with accounts, devices or addresses.

use std::sync::OnceLock;
use std::time::Duration;

use metrics::{Counter, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

/// Tells the recorder what each metric means.
pub fn describe() {
    describe_counter!(COMMITS, "Transactions of the envelope queue");
    describe_histogram!(
        COMMIT_ROWS,
        "Envelopes and acknowledgements carried by one transaction of the queue"
    );
    describe_histogram!(
        COMMIT_SECONDS,
        "Seconds from the first statement of a queue transaction to its end"
    );
    describe_counter!(COMMIT_FAILURES, "Transactions of the envelope queue that failed");
    describe_counter!(SENDS, "Sends to the devices of one account, by outcome");
    describe_counter!(ENVELOPES, "Envelopes made durable");
    describe_counter!(ACKNOWLEDGED, "Envelopes acknowledged by their device");
    describe_counter!(PUSHED, "Envelopes handed to a connection, by where they came from");
    describe_counter!(
        DIRECT,
        "Envelopes that a connection was offered before they were written, by whether they had to be"
    );
    describe_counter!(UNOPENED, "Queued envelopes that could not be opened for their device");
    describe_gauge!(SOCKETS, "WebSockets open now, by kind");
    describe_counter!(SOCKETS_CLOSED, "WebSockets closed, by reason");
    describe_counter!(REQUESTS, "Requests by route, transport and status");
    describe_counter!(CONNECTIONS_REFUSED, "Connections refused before a request, by reason");
    describe_counter!(KYBER_KEYS, "Kyber keys handed out, by source");
    describe_counter!(
        LAST_RESORT_BUNDLES,
        "Bundles of prekeys that lacked a one-time key, by reason"
    );
    describe_counter!(NOTICES, "Notices for devices that may be connected, by what they say");
    describe_counter!(
        SPENT_KEYS_UPLOADED,
        "One-time keys in uploads under an id that was handed out, by whether it was the same key"
    );
    describe_gauge!(RESTORE_EPOCH, "How often this database was put back");
    describe_counter!(HINTS_DROPPED, "Hints to other nodes that were dropped");
    describe_counter!(
        HINTS_REFUSED,
        "Messages on the bus that were not sealed by a node of this database"
    );
    describe_gauge!(BUS_LISTENING, "1 while hints of other nodes get through");
    describe_counter!(REDIS_LOST, "Times that listening to other nodes failed or ended");
    describe_counter!(WAKEUPS, "Times a session learned that it has envelopes, by path");
    describe_counter!(SPAM_REPORTS, "Messages that a client called spam");
    describe_counter!(ATTACHMENT_PARTS, "Requests that wrote to an attachment, by outcome");
    describe_counter!(
        ATTACHMENT_BYTES,
        "Bytes of attachments that came and went, by direction"
    );
    describe_counter!(LIMIT_REFUSED, "Requests refused by a rate limit, by limit");
    describe_counter!(CODES, "Verification codes handed to a carrier, by outcome");
    describe_counter!(TOKENS, "Sessions with tokens, by what became of them");
    describe_counter!(EXPIRED, "Rows dropped because their time had come, by kind");
}

/// A transaction of the queue was committed.
pub fn committed(envelopes: usize, acknowledgements: usize, took: Duration) {
    counter!(COMMITS).increment(1);
    histogram!(COMMIT_ROWS).record(as_f64(envelopes + acknowledgements));
    histogram!(COMMIT_SECONDS).record(took.as_secs_f64());
    counter!(ENVELOPES).increment(envelopes as u64);
    counter!(ACKNOWLEDGED).increment(acknowledgements as u64);
}

/// A transaction of the queue failed.
pub fn commit_failed() {
    counter!(COMMIT_FAILURES).increment(1);
}

/// A rate limit refused a request. `limit` is a name of `limits::DECLARED`.
pub fn limit_refused(limit: &'static str) {
    counter!(LIMIT_REFUSED, "limit" => limit).increment(1);
}

/// How a send ended.
pub fn send(outcome: &'static str) {
    static ACCEPTED: OnceLock<Counter> = OnceLock::new();
    if outcome == "accepted" {
        let accepted = ACCEPTED.get_or_init(|| counter!(SENDS, "outcome" => outcome));
        return accepted.increment(1);
    }
    counter!(SENDS, "outcome" => outcome).increment(1);
}

/// An envelope was handed to a connection: `memory`, `storage` or `online`.
pub fn pushed(from: &'static str) {
    static MEMORY: OnceLock<Counter> = OnceLock::new();
    if from == "memory" {
        return MEMORY.get_or_init(|| counter!(PUSHED, "from" => from)).increment(1);
    }
    counter!(PUSHED, "from" => from).increment(1);
}

/// An envelope that a connection was offered before it was written had to be written after all, or not: `written` or
/// `acknowledged`.
pub fn offered(end: &'static str) {
    counter!(DIRECT, "end" => end).increment(1);
}

/// So many envelopes that connections were offered were acknowledged, and never written.
pub fn offered_and_acknowledged(count: usize) {
    if count > 0 {
        counter!(DIRECT, "end" => "acknowledged").increment(count as u64);
    }
}

/// Queued envelopes could not be opened for their device.
pub fn unopened(count: usize) {
    counter!(UNOPENED).increment(count as u64);
}

/// A WebSocket was opened.
pub fn socket_opened(kind: &'static str) {
    gauge!(SOCKETS, "kind" => kind).increment(1.0);
}

/// A WebSocket has ended.
pub fn socket_closed(kind: &'static str, reason: &'static str) {
    gauge!(SOCKETS, "kind" => kind).decrement(1.0);
    counter!(SOCKETS_CLOSED, "reason" => reason).increment(1);
}

/// A request was answered. `route` is the pattern of the route list, never a path.
pub fn request(route: &str, tunnelled: bool, status: u16) {
    requests(route, tunnelled, status).increment(1);
}

fn requests(route: &str, tunnelled: bool, status: u16) -> Counter {
    let transport = if tunnelled { "websocket" } else { "http" };
    counter!(REQUESTS, "route" => route.to_owned(), "transport" => transport, "status" => status.to_string())
}

/// What [`request`] counts of one route, with the counters of success at hand.
pub struct RouteCounters {
    route: &'static str,
    succeeded: [OnceLock<Counter>; 2],
}

impl RouteCounters {
    /// Of the route with this pattern.
    pub const fn new(route: &'static str) -> Self {
        Self {
            route,
            succeeded: [OnceLock::new(), OnceLock::new()],
        }
    }

    /// A request was answered.
    pub fn request(&self, tunnelled: bool, status: u16) {
        if status == 200 {
            self.succeeded[usize::from(tunnelled)]
                .get_or_init(|| requests(self.route, tunnelled, status))
                .increment(1);
        } else {
            request(self.route, tunnelled, status);
        }
    }
}

/// A connection was refused: `network` has too many, or a `proxy` did not begin it as it must.
pub fn connection_refused(reason: &'static str) {
    counter!(CONNECTIONS_REFUSED, "reason" => reason).increment(1);
}

/// A Kyber key was handed out: `one_time` or `last_resort`.
pub fn kyber_key_taken(source: &'static str) {
    counter!(KYBER_KEYS, "source" => source).increment(1);
}

/// A bundle lacked a one-time key: `stock`, `reserve`, `requester`, `target`, `blocked` or `uncounted`.
pub fn last_resort_bundle(why: &'static str) {
    counter!(LAST_RESORT_BUNDLES, "why" => why).increment(1);
}

/// A device was to be told something, if it is connected: `prekeys_low` or `session_revoked`.
pub fn notice(code: &'static str) {
    counter!(NOTICES, "code" => code).increment(1);
}

/// An upload named ids of one-time keys that were handed out: with the `same` keys, or with `other` ones.
pub fn spent_keys_uploaded(key: &'static str, count: u32) {
    counter!(SPENT_KEYS_UPLOADED, "key" => key).increment(u64::from(count));
}

/// How often the database was put back, as it says itself.
pub fn restore_epoch(epoch: u64) {
    gauge!(RESTORE_EPOCH).set(f64::from(u32::try_from(epoch).unwrap_or(u32::MAX)));
}

/// Hints could not be sent.
pub fn hints_dropped(count: usize) {
    counter!(HINTS_DROPPED).increment(count as u64);
}

/// A message on the bus was not sealed by a node of ours.
pub fn hint_refused() {
    counter!(HINTS_REFUSED).increment(1);
}

/// Whether hints of other nodes get through at present.
pub fn bus_listening(listening: bool) {
    gauge!(BUS_LISTENING).set(f64::from(u8::from(listening)));
}

/// Listening to other nodes failed or ended.
pub fn redis_lost() {
    counter!(REDIS_LOST).increment(1);
}

/// A session learned that it has envelopes: `local`, `hint` or `tick`.
pub fn woken(path: &'static str) {
    counter!(WAKEUPS, "path" => path).increment(1);
}

/// A client called a message spam.
pub fn spam_reported() {
    counter!(SPAM_REPORTS).increment(1);
}

/// A request that wrote to an attachment ended: `complete`, `stored`, `interrupted`, `refused` or `unavailable`.
pub fn attachment_part(outcome: &'static str) {
    counter!(ATTACHMENT_PARTS, "outcome" => outcome).increment(1);
}

/// Bytes of an attachment came (`in`) or went (`out`).
pub fn attachment_bytes(direction: &'static str, count: usize) {
    counter!(ATTACHMENT_BYTES, "direction" => direction).increment(count as u64);
}

/// A verification code was handed to its carrier, or not: `sent`, `rejected`, `unavailable` or `busy`.
pub fn code_sent(carrier: &'static str, outcome: &'static str) {
    counter!(CODES, "carrier" => carrier, "outcome" => outcome).increment(1);
}

/// A session with tokens was opened (`issued`), `refreshed`, `revoked` by its owner, or ended because a used refresh token
/// was shown (`reused`).
pub fn token(event: &'static str) {
    counter!(TOKENS, "event" => event).increment(1);
}

/// Rows were dropped because their time had come.
pub fn expired(kind: &'static str, count: u64) {
    counter!(EXPIRED, "kind" => kind).increment(count);
}

#[expect(clippy::cast_precision_loss, reason = "a batch has far fewer than 2^52 rows")]
fn as_f64(count: usize) -> f64 {
    count as f64
}

/// The boundaries of [`COMMIT_ROWS`].
pub const COMMIT_ROWS_BUCKETS: [f64; 11] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0];
/// The boundaries of [`COMMIT_SECONDS`].
pub const COMMIT_SECONDS_BUCKETS: [f64; 10] = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.0];

/// Rows of one queue transaction.
pub const COMMIT_ROWS: &str = "blind_relay_commit_rows";
/// Duration of one queue transaction.
pub const COMMIT_SECONDS: &str = "blind_relay_commit_seconds";
const COMMITS: &str = "blind_relay_commits_total";
const COMMIT_FAILURES: &str = "blind_relay_commit_failures_total";
const SENDS: &str = "blind_relay_sends_total";
const ENVELOPES: &str = "blind_relay_envelopes_total";
const ACKNOWLEDGED: &str = "blind_relay_acknowledged_total";
const PUSHED: &str = "blind_relay_pushed_total";
const DIRECT: &str = "blind_relay_envelopes_direct_total";
const UNOPENED: &str = "blind_relay_unopened_total";
const SOCKETS: &str = "blind_relay_sockets";
const SOCKETS_CLOSED: &str = "blind_relay_sockets_closed_total";
const REQUESTS: &str = "blind_relay_requests_total";
const CONNECTIONS_REFUSED: &str = "blind_relay_connections_refused_total";
const KYBER_KEYS: &str = "blind_relay_kyber_keys_total";
const LAST_RESORT_BUNDLES: &str = "blind_relay_last_resort_bundles_total";
const NOTICES: &str = "blind_relay_notices_total";
const SPENT_KEYS_UPLOADED: &str = "blind_relay_spent_keys_uploaded_total";
const RESTORE_EPOCH: &str = "blind_relay_restore_epoch";
const HINTS_DROPPED: &str = "blind_relay_hints_dropped_total";
const HINTS_REFUSED: &str = "blind_relay_hints_refused_total";
const BUS_LISTENING: &str = "blind_relay_bus_listening";
const REDIS_LOST: &str = "blind_relay_redis_lost_total";
const WAKEUPS: &str = "blind_relay_wakeups_total";
const SPAM_REPORTS: &str = "blind_relay_spam_reports_total";
const ATTACHMENT_PARTS: &str = "blind_relay_attachment_parts_total";
const ATTACHMENT_BYTES: &str = "blind_relay_attachment_bytes_total";
const LIMIT_REFUSED: &str = "blind_relay_limit_refused_total";
const CODES: &str = "blind_relay_codes_total";
const TOKENS: &str = "blind_relay_tokens_total";
const EXPIRED: &str = "blind_relay_expired_total";
