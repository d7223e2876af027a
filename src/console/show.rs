//! Answers in words and tables.

use std::fmt::Write as _;

use crate::admin::wire::{AccountOut, DrainOut, InviteMade, InvitesOut, LogOut, StatsOut};
use crate::domain::date;

/// `admin stats`
pub(super) fn stats(stats: &StatsOut) -> String {
    let mut rows = vec![
        ("accounts", stats.accounts.to_string()),
        ("  suspended", stats.suspended.to_string()),
        ("devices", stats.devices.to_string()),
        ("invites", stats.invites.to_string()),
        ("one-time EC keys", stats.one_time_ec_keys.to_string()),
        ("one-time Kyber keys", stats.one_time_kyber_keys.to_string()),
        ("database", size(stats.database_bytes)),
        (
            "this node",
            format!("{}, up {}", stats.version, duration(stats.uptime_secs)),
        ),
        ("  connected devices", stats.connected_devices.to_string()),
        ("  sockets", stats.sockets.to_string()),
    ];
    if stats.draining {
        rows.push(("  draining", "yes".to_owned()));
    }
    let mut text = table(&rows);
    let waiting: u64 = stats.queued.iter().map(|sum| sum.envelopes).sum();
    let bytes = stats.queued.iter().map(|sum| sum.bytes).sum();
    let _ = writeln!(text, "\nwaiting envelopes      {waiting} ({})", size(bytes));
    for sum in &stats.queued {
        let bucket = format!("  of {} KiB", sum.bucket_kib);
        let _ = writeln!(text, "{bucket:<23}{} ({})", sum.envelopes, size(sum.bytes));
    }
    if !stats.refused.is_empty() {
        text.push_str("\nrefused by limits, on this node since it was started\n");
        for refused in &stats.refused {
            let _ = writeln!(text, "  {:<34} {}", refused.limit, refused.times);
        }
    }
    text
}

/// `admin account show`
pub(super) fn account(account: &AccountOut) -> String {
    let yes = if account.suspended { "yes" } else { "no" };
    table(&[
        ("suspended", yes.to_owned()),
        ("devices", account.devices.to_string()),
        ("last seen", date(account.last_seen_day.into())),
    ])
}

/// `admin invite create`
pub(super) fn invite_made(made: &InviteMade) -> String {
    let mut rows = vec![
        ("code", made.code.clone()),
        ("id", made.invite.id.clone()),
        ("uses", made.invite.uses_left.to_string()),
        ("until the end of", date(made.invite.expires_day.into())),
    ];
    if made.invite.recovers {
        rows.push(("recovers", "accounts of any number".to_owned()));
    }
    format!(
        "{}The code is shown this once; give it to whom you invite.\n",
        table(&rows)
    )
}

/// `admin invite list`
pub(super) fn invites(list: &InvitesOut) -> String {
    if list.invites.is_empty() {
        return "no invites\n".to_owned();
    }
    let mut text = format!("{:<38}{:>6}  {:<12}{:<12}\n", "id", "uses", "made on", "until");
    for invite in &list.invites {
        let recovers = if invite.recovers { "recovers accounts" } else { "" };
        let line = format!(
            "{:<38}{:>6}  {:<12}{:<12}{recovers}",
            invite.id,
            invite.uses_left,
            date(invite.created_day.into()),
            date(invite.expires_day.into())
        );
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

/// `admin drain`
pub(super) fn drain(stand: DrainOut) -> String {
    let sockets = stand.sockets;
    if stand.draining {
        format!("draining: {sockets} sockets are open\n")
    } else {
        format!("taking clients: {sockets} sockets are open\n")
    }
}

/// `admin log`
pub(super) fn log(log: &LogOut) -> String {
    let mut text = format!(
        "{:>8}  {:<17} {:>6}  {:<16} {:<10} {}\n",
        "entry", "when (UTC)", "user", "what", "result", "about"
    );
    for entry in &log.entries {
        // Enough to tell entries about the same from others; all of it is in the JSON.
        let about = entry
            .target
            .as_deref()
            .and_then(|target| target.get(..16))
            .unwrap_or("");
        let line = format!(
            "{:>8}  {:<17} {:>6}  {:<16} {:<10} {about}",
            entry.seq,
            minute(entry.minute),
            entry.uid,
            entry.what,
            entry.result
        );
        let _ = writeln!(text, "{}", line.trim_end());
    }
    if log.entries.is_empty() {
        text.push_str("no entries\n");
    }
    text
}

fn table(rows: &[(&str, String)]) -> String {
    let mut text = String::new();
    for (name, value) in rows {
        let _ = writeln!(text, "{name:<23}{value}");
    }
    text
}

fn size(bytes: u64) -> String {
    let mut whole = bytes;
    for unit in ["bytes", "KiB", "MiB", "GiB"] {
        if whole < 10_240 {
            return format!("{whole} {unit}");
        }
        whole /= 1024;
    }
    format!("{whole} TiB")
}

fn duration(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

/// A minute since 1970 as UTC.
pub(super) fn minute(minute: i64) -> String {
    let of_day = minute.rem_euclid(24 * 60);
    format!(
        "{} {:02}:{:02}",
        date(minute.div_euclid(24 * 60)),
        of_day / 60,
        of_day % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::wire::{QueuedOut, RefusedOut};

    #[test]
    fn minutes_are_of_their_day() {
        assert_eq!(minute(20_454 * 1440 + 61), "2026-01-01 01:01");
        assert_eq!(minute(-1), "1969-12-31 23:59");
    }

    #[test]
    fn sizes_and_times_are_short() {
        assert_eq!(size(10_239), "10239 bytes");
        assert_eq!(size(10_240), "10 KiB");
        assert_eq!(size(u64::MAX), "16777215 TiB");
        assert_eq!(
            [59, 60, 3_700, 90_000].map(duration),
            ["59 s", "1 min", "1 h 1 min", "1 d 1 h"]
        );
    }

    #[test]
    fn sums_fit_on_a_screen() {
        let shown = stats(&StatsOut {
            version: "0.1.0".to_owned(),
            uptime_secs: 61,
            accounts: 3,
            suspended: 1,
            devices: 5,
            queued: vec![QueuedOut {
                bucket_kib: 2,
                envelopes: 4,
                bytes: 8192,
            }],
            one_time_ec_keys: 100,
            one_time_kyber_keys: 50,
            invites: 2,
            database_bytes: 1 << 20,
            connected_devices: 1,
            sockets: 2,
            draining: true,
            refused: vec![RefusedOut {
                limit: "lookups".to_owned(),
                times: 7,
            }],
        });
        assert!(shown.lines().all(|line| line.len() < 80), "{shown}");
        for part in [
            "  suspended            1\n",
            "  of 2 KiB             4 (8192 bytes)\n",
            "up 1 min",
            "draining",
        ] {
            assert!(shown.contains(part), "{part} in {shown}");
        }
    }
}
