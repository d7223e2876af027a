//! What the rows should reach, at least and at best, on one core for the server and its database.

use crate::report::Goal;

macro_rules! goals {
    ($($(#[$doc:meta])* $name:ident: $what:literal, $unit:literal, $must:literal, $aim:literal;)*) => {
        $($(#[$doc])* pub(crate) fn $name(measured: f64) -> Goal {
            Goal { what: $what, unit: $unit, measured, must: $must, aim: $aim }
        })*
    };
}

goals! {
    /// One message of each sender under way.
    online_cpu_1: "CPU of server and database", "s per 10,000", 0.41, 0.20;
    /// Sixteen of each.
    online_cpu_16: "CPU of server and database", "s per 10,000", 0.29, 0.08;
    /// The bare relay costs so much of what the server does.
    online_ratio: "cost beside the bare relay's", "of 1", 0.35, 0.6;
    /// From the send to the arrival.
    online_p99: "99 in 100 arrive within", "ms", 4.0, 1.0;
    /// Acknowledged before the write was due.
    online_direct: "never touched the disk", "of 1", 0.95, 0.99;
    /// Transactions of one row, `synchronous=FULL`.
    offline_sqlite: "rate beside single-row inserts", "times", 3.0, 8.0;
    /// Over as many connections as there are senders.
    offline_postgres: "rate beside single-row inserts", "times", 0.8, 1.5;
    /// Of both programs.
    offline_cpu: "CPU of server and database", "s per 10,000", 0.60, 0.25;
    /// 10,000 envelopes.
    drain_one: "until the queue is empty", "s", 0.20, 0.08;
    /// Ten each.
    drain_many: "until all queues are empty", "s", 0.6, 0.15;
    /// At 20,000.
    idle_socket: "resident memory of a socket", "KiB", 12.0, 7.0;
    /// Before anyone came.
    rest: "resident memory at rest", "MiB", 32.0, 16.0;
    /// Upgrade, credentials, queue-empty.
    login_cpu: "CPU of a login", "ms", 0.2, 0.08;
    /// Durable.
    bundles: "bundles", "per second", 11_000.0, 25_000.0;
}
