//! `docs/limits.md` is written from the declared limits and the list of routes.
//!
//! `BLESS=1 cargo test --test it rate_limits::page` writes it; otherwise it is compared.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use blind_relay::http::routes::ROUTES;
use blind_relay::limits::{DECLARED, Declared};

use crate::layering::sources_in;

#[test]
fn the_page_is_written_from_the_declared_limits() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/limits.md");
    let written = page();
    if std::env::var_os("BLESS").is_some_and(|value| value == "1") {
        std::fs::write(path, written).unwrap();
        return;
    }
    let current = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        current == written,
        "docs/limits.md is out of date; make it anew: BLESS=1 cargo test --test it rate_limits::page"
    );
}

#[test]
fn every_declared_limit_is_used() {
    let sources = sources_in("src");
    let unused: Vec<_> = DECLARED
        .iter()
        .filter(|declared| !is_of_a_route(declared))
        .filter(|declared| {
            let name = format!("Limit::{:?}", declared.limit);
            !sources
                .iter()
                .any(|source| !source.path.ends_with("limits/declared.rs") && source.code.contains(&name))
        })
        .map(|declared| declared.name)
        .collect();
    assert!(unused.is_empty(), "{unused:?}");
}

fn is_of_a_route(declared: &Declared) -> bool {
    ROUTES
        .iter()
        .any(|route| route.strangers == declared.limit || route.devices == declared.limit)
}

fn page() -> String {
    let mut page = BEGINNING.to_owned();
    for declared in DECLARED {
        let _ = writeln!(
            page,
            "| `{}` | {} | {} | {} | {} | {} |",
            declared.name,
            declared.what,
            declared.by.words(),
            declared.burst,
            time(declared.every),
            if declared.shared { "all nodes" } else { "each node" }
        );
    }
    page.push_str(ROUTES_BEGIN);
    for route in ROUTES {
        let _ = writeln!(
            page,
            "| {} | `{}` | `{}` | `{}` |",
            route.method.to_uppercase(),
            route.path,
            route.strangers.name(),
            route.devices.name()
        );
    }
    page.push_str(END);
    page
}

/// In the largest unit that gives a whole number.
fn time(every: Duration) -> String {
    let millis = every.as_millis();
    for (unit, length) in [("h", 3_600_000), ("min", 60_000), ("s", 1_000)] {
        if millis.is_multiple_of(length) {
            return format!("{} {unit}", millis / length);
        }
    }
    format!("{millis} ms")
}

const BEGINNING: &str = "\
# Rate limits

Written from [src/limits/declared.rs](../src/limits/declared.rs) and the list of routes, not by hand: `BLESS=1 cargo test --test it
rate_limits::page`. A server tells those that it has in force at `GET /v1/limits`.

A limit is a bucket for each of those that it counts by. It holds so many at first (*at once*), and gets *one more after* so long.
Whoever finds it empty is answered 429 `rate_limited` with a `Retry-After` in seconds, and nothing is done. Some limits that are about a
recipient answer as if there were nothing left, instead of refusing: see `one_time_keys` in [protocol.md](protocol.md).

A *network* is an IPv4 /24 or an IPv6 /64, and stands for whoever does not prove to be a device. Behind a proxy, say so
(`proxies.trusted`, [configuration.md](configuration.md)), or everyone comes from one network. Buckets are found by a keyed hash that
changes with the UTC day; nobody's address, number or account is in them. A bucket that takes a day to refill is a budget for that day.

Limits of *all nodes* are counted by Redis, where there is one. While it is away each node allows one part in `rate_limit_share` of
them. Buckets of *each node* are that node's alone. What a node counted is forgotten when it restarts.

`rate_limits = \"10\"` (or `--limits 10`) makes them ten times as wide, `off` switches them off, for load tests. The start-up log and
`blind-relay doctor` say so.

| limit | counts | by | at once | one more after | counted by |
| --- | --- | --- | --- | --- | --- |
";

const ROUTES_BEGIN: &str = "
Every request is first held against a limit of its route. Devices are told from strangers by their credentials; where a route asks
for none, everyone counts as a stranger. Through a device's own socket it counts as the device, and where a route takes no notice of who
asks and strangers have another limit than `requests`, as a stranger's as well. What is not a route counts as `requests`,
opening a socket as `upgrades` or `device_upgrades`, credentials that are not valid as `failed_logins` besides. `/health` is not limited, and neither is the life sign of a
device that waits to be linked, inside its socket.

| method | path | strangers | devices |
| --- | --- | --- | --- |
";

const END: &str = "
The limits that no route names here are looked at by handlers, once they know whom a request is about.
";
