//! What a process costs, from `/proc`.

use std::collections::HashMap;

use anyhow::Context;

/// Seconds of CPU that a process has used.
pub(crate) fn cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    let stat = Stat::of(pid)?;
    Ok(stat.own / ticks_per_second())
}

/// Seconds of CPU of a process, of those below it, and of those that have ended below it.
pub(crate) fn tree_cpu_seconds(root: u32) -> anyhow::Result<f64> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    let mut stats = HashMap::new();
    for entry in std::fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // A process may end while we look; what it used is then in its parent's account.
        let Ok(stat) = Stat::of(pid) else { continue };
        children.entry(stat.parent).or_default().push(pid);
        stats.insert(pid, stat);
    }
    anyhow::ensure!(stats.contains_key(&root), "process {root} has ended");
    let (mut ticks, mut open) = (0.0, vec![root]);
    while let Some(pid) = open.pop() {
        if let Some(stat) = stats.get(&pid) {
            ticks += stat.own + stat.reaped;
        }
        open.extend(children.remove(&pid).unwrap_or_default());
    }
    Ok(ticks / ticks_per_second())
}

/// Resident memory, in KiB.
pub(crate) fn resident_kib(pid: u32) -> anyhow::Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .context("a process has memory")?;
    Ok(line.trim().trim_end_matches(" kB").trim().parse()?)
}

/// The process that started a process, if both are called so.
pub(crate) fn parent_called(pid: u32, name: &str) -> Option<u32> {
    let is_called =
        |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == name);
    let parent = Stat::of(pid).ok()?.parent;
    (is_called(pid) && is_called(parent)).then_some(parent)
}

struct Stat {
    parent: u32,
    /// Ticks of its own.
    own: f64,
    /// Ticks of its children that have ended.
    reaped: f64,
}

impl Stat {
    fn of(pid: u32) -> anyhow::Result<Self> {
        Self::parse(&std::fs::read_to_string(format!("/proc/{pid}/stat"))?).context("a stat line has its fields")
    }

    /// The name, in parentheses, may hold spaces and parentheses; the fields behind it do not.
    fn parse(line: &str) -> Option<Self> {
        let (_, fields) = line.rsplit_once(')')?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let ticks = |at: usize| fields.get(at)?.parse::<f64>().ok();
        Some(Self {
            parent: fields.get(1)?.parse().ok()?,
            own: ticks(11)? + ticks(12)?,
            reaped: ticks(13)? + ticks(14)?,
        })
    }
}

fn ticks_per_second() -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a hundred ticks a second")]
    let ticks = rustix::param::clock_ticks_per_second() as f64;
    ticks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_is_read_behind_a_name_with_parentheses() {
        let line = "12 (a) b (c) S 7 12 12 0 -1 4194304 100 200 0 0 31 4 50 6 20 0 1 0 100 1000 10";
        let stat = Stat::parse(line).unwrap();
        assert_eq!((stat.parent, stat.own, stat.reaped), (7, 35.0, 56.0));
        assert!(Stat::parse("12 (a) S 7").is_none());
    }

    #[test]
    fn a_tree_has_at_least_what_its_root_has() {
        let pid = std::process::id();
        let own = cpu_seconds(pid).unwrap();
        assert!(tree_cpu_seconds(pid).unwrap() >= own);
        assert!(resident_kib(pid).unwrap() > 0.0);
        assert!(parent_called(pid, "no such name").is_none());
    }
}
