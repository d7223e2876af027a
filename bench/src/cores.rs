//! Which cores run what is measured, and which the load.
//!
//! What is measured has one core to itself, so that its rates are those of a core and its CPU time is not mixed with the load's.
//! The load generator keeps to the others. A child has the cores of the thread that starts it, from its first instruction on, so
//! that it also counts its own cores right.

use std::io;
use std::sync::OnceLock;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use tokio::process::{Child, Command};

/// Where a child runs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// With what is measured.
    Server,
    /// With the load generator.
    Load,
}

/// Gives each side its cores and moves the calling thread, and those that it starts, to the load's. For the whole run.
pub(crate) fn part() -> io::Result<()> {
    let all = sched_getaffinity(None)?;
    let numbers: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|core| all.is_set(*core)).collect();
    let [first, others @ ..] = &numbers[..] else {
        return Ok(());
    };
    if others.is_empty() {
        return Ok(());
    }
    // Two threads of one core take time from each other.
    let apart: Vec<usize> = others
        .iter()
        .copied()
        .filter(|core| !siblings(*first).contains(core))
        .collect();
    let others = if apart.is_empty() { others } else { &apart[..] };
    let (server, load) = (set(&[*first]), set(others));
    sched_setaffinity(None, &load)?;
    let _ = PARTS.set(Parts {
        all,
        server,
        load,
        first: *first,
        others: others.len(),
    });
    Ok(())
}

/// Starts a child on the cores of its side.
pub(crate) fn spawn(command: &mut Command, side: Side) -> io::Result<Child> {
    on(side, || command.spawn())
}

/// Runs something that starts children on the cores of a side, and comes back.
pub(crate) fn on<T>(side: Side, run: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let Some(parts) = PARTS.get() else { return run() };
    if side == Side::Load {
        return run();
    }
    sched_setaffinity(None, &parts.server)?;
    let result = run();
    sched_setaffinity(None, &parts.load)?;
    result
}

/// Runs something that measures nothing, on all cores.
pub(crate) fn on_all<T>(run: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let Some(parts) = PARTS.get() else { return run() };
    sched_setaffinity(None, &parts.all)?;
    let result = run();
    sched_setaffinity(None, &parts.load)?;
    result
}

/// In words, for whoever reads the figures.
pub(crate) fn described() -> String {
    match PARTS.get() {
        None => "the server, its database and the load generator share all cores".to_owned(),
        Some(parts) => format!(
            "the server and its database have core {}, the load generator the other {}",
            parts.first, parts.others
        ),
    }
}

/// How many cores the load generator has.
pub(crate) fn of_load() -> usize {
    let all = || std::thread::available_parallelism().map_or(1, usize::from);
    PARTS.get().map_or_else(all, |parts| parts.others)
}

/// The numbers under which the threads of the same core go, as far as the system tells.
fn siblings(core: usize) -> Vec<usize> {
    let path = format!("/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list");
    listed(&std::fs::read_to_string(path).unwrap_or_default())
}

/// Numbers and ranges with commas: `0,4-6`.
fn listed(list: &str) -> Vec<usize> {
    let ranges = list.trim().split(',').filter_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(first.parse().ok()?..=last.parse().ok()?)
    });
    ranges.flatten().collect()
}

fn set(cores: &[usize]) -> CpuSet {
    let mut set = CpuSet::new();
    cores.iter().for_each(|core| set.set(*core));
    set
}

struct Parts {
    all: CpuSet,
    server: CpuSet,
    load: CpuSet,
    first: usize,
    others: usize,
}

static PARTS: OnceLock<Parts> = OnceLock::new();

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cores_have_numbers_and_ranges() {
        assert_eq!(listed("0,4-6\n"), [0, 4, 5, 6]);
        assert_eq!(listed("3"), [3]);
        assert!(listed("").is_empty() && listed("x-2").is_empty());
    }
}
