//! What was spent, what was refused, what people felt, and whether the promises held.

use std::collections::BTreeMap;
use std::time::Duration;

use super::crowd::User;
use super::{
    ACCOUNTS, LOOKED_UP, LOOKERS, LOUD_NAMES, PINGED, PINGERS, POOR_KEYS, SECONDS, SHARE, TARGET_KEYS, WRITTEN,
};
use crate::say;

/// What the people felt.
pub(super) struct Felt {
    pub(super) took: BTreeMap<&'static str, Vec<Duration>>,
    pub(super) refused: u64,
}

impl Felt {
    pub(super) fn of(users: &[User]) -> Self {
        let mut took: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for user in users {
            for (what, times) in &user.took {
                took.entry(*what).or_default().extend_from_slice(times);
            }
        }
        took.values_mut().for_each(|times| times.sort_unstable());
        Self {
            took,
            refused: users.iter().map(|user| user.refused).sum(),
        }
    }

    pub(super) fn percentile(&self, what: &str, percent: usize) -> f64 {
        let times = self.took.get(what).map_or(&[][..], Vec::as_slice);
        let at = times.len().saturating_sub(1) * percent / 100;
        times.get(at).map_or(f64::NAN, Duration::as_secs_f64)
    }
}

/// What the flood was answered.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) answers: BTreeMap<&'static str, BTreeMap<u32, u64>>,
    pub(super) one_time: u64,
    pub(super) one_time_of_poor: u64,
}

impl Tally {
    pub(super) fn count(&mut self, kind: &'static str, status: u32) {
        *self.answers.entry(kind).or_default().entry(status).or_default() += 1;
    }

    pub(super) fn add(&mut self, other: Self) {
        for (kind, answers) in other.answers {
            for (status, count) in answers {
                *self.answers.entry(kind).or_default().entry(status).or_default() += count;
            }
        }
        self.one_time += other.one_time;
        self.one_time_of_poor += other.one_time_of_poor;
    }

    pub(super) fn answered(&self, kind: &str, status: u32) -> u64 {
        self.answers
            .get(kind)
            .and_then(|answers| answers.get(&status))
            .copied()
            .unwrap_or_default()
    }
}

/// What came of ten minutes.
pub(super) struct Played {
    pub(super) felt: Felt,
    pub(super) flooded: Tally,
    pub(super) refused: BTreeMap<String, u64>,
    pub(super) rows: u64,
    pub(super) bytes: u64,
    /// When the flood was over.
    pub(super) keys_left: u64,
    pub(super) poor_keys_left: u64,
    /// Whether those with the access keys were given one after that.
    pub(super) friends: [bool; 2],
    pub(super) arrived: u64,
}

impl Played {
    /// What the threat model promises, and whether it was so.
    pub(super) fn promises(&self) -> Vec<(String, bool)> {
        let spent = u64::from(TARGET_KEYS) - self.keys_left;
        let accepted = |kind: &str| self.flooded.answered(kind, 200);
        let loudest = LOUD_NAMES.iter().map(|kind| accepted(kind)).max().unwrap_or_default();
        let by_flood = LOUD_NAMES
            .iter()
            .chain([&WRITTEN])
            .map(|kind| accepted(kind))
            .sum::<u64>();
        let by_people = self.felt.took.get("messages to the target").map_or(0, Vec::len) as u64 - self.felt.refused;
        let pings = accepted(PINGED);
        let looks = self.flooded.answered(LOOKED_UP, 404);
        vec![
            (
                format!("one-time keys of the target spent: {spent}, at most 30 in an hour"),
                spent <= 30,
            ),
            (
                format!(
                    "one-time keys left to a target with {POOR_KEYS}: {}, 20 of them for those who show its access key",
                    self.poor_keys_left
                ),
                self.poor_keys_left >= 20,
            ),
            (
                "whoever shows the access key still gets one-time keys".to_owned(),
                self.friends == [true; 2],
            ),
            (
                format!("envelopes of one sender in the target's queue: {loudest}, at most {SHARE}"),
                loudest <= SHARE,
            ),
            (
                format!("online-only messages of {PINGERS} accounts taken: {pings}, at most 60 and 10 a minute each"),
                pings <= PINGERS as u64 * (60 + 10 * (SECONDS as u64 / 60) + 1),
            ),
            (
                format!("names that {LOOKERS} networks could look up: {looks}, at most 120 and 4 a minute each"),
                looks <= LOOKERS as u64 * (120 + 4 * (SECONDS as u64 / 60) + 1),
            ),
            (
                format!(
                    "envelopes that were accepted and arrived: {} of {}",
                    self.arrived,
                    by_flood + by_people
                ),
                self.arrived == by_flood + by_people && self.rows == self.arrived,
            ),
            (
                format!("ordinary requests refused: {}", self.felt.refused),
                self.felt.refused == 0,
            ),
        ]
    }
}

pub(super) fn report(quiet: &Played, flooded: &Played) {
    say(&format!(
        "{ACCOUNTS} accounts in 100 networks against one target, {} simulated minutes",
        SECONDS / 60
    ));
    say("\nwhat was spent");
    say(&format!(
        "  one-time keys of the target taken by the flood   {:>8}",
        flooded.flooded.one_time
    ));
    say(&format!(
        "  of a target with few                             {:>8}",
        flooded.flooded.one_time_of_poor
    ));
    say(&format!(
        "  rows in the target's queue                       {:>8}",
        flooded.rows
    ));
    say(&format!(
        "  bytes in it                                      {:>8}",
        flooded.bytes
    ));
    say("\nwhat the flood was answered");
    for (kind, answers) in &flooded.flooded.answers {
        let answers: Vec<_> = answers
            .iter()
            .map(|(status, count)| format!("{count} x {status}"))
            .collect();
        say(&format!("  {kind:<48} {}", answers.join(", ")));
    }
    say("\nwhat was refused, by limit");
    for (limit, count) in &flooded.refused {
        say(&format!("  {limit:<48} {count:>8}"));
    }
    say(
        "\nwhat ordinary people felt               asked   median   ratio      99 %   ratio (to the same without the flood)",
    );
    for (what, times) in &flooded.felt.took {
        let [(half, ratio), (most, ratio_of_most)] = [50, 99].map(|percent| {
            let took = flooded.felt.percentile(what, percent);
            (took * 1e3, took / quiet.felt.percentile(what, percent))
        });
        say(&format!(
            "  {what:<34} {:>8} {half:>5.1} ms {ratio:>7.2} {most:>6.1} ms {ratio_of_most:>7.2}",
            times.len()
        ));
    }
    say("\npromises");
    for (promise, kept) in flooded.promises() {
        say(&format!("  {}  {promise}", if kept { "kept  " } else { "BROKEN" }));
    }
}
