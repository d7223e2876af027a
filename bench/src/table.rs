//! The report as text: tables that line up, and are Markdown when they are pasted.

use crate::report::{Beside, Goal, Report, Row};

/// Everything that was found on one backend.
pub(crate) fn of(report: &Report) -> String {
    let mut text = format!("{}\n\n{}", report.backend, figures(report));
    let goals = goals(&report.rows);
    if !goals.is_empty() {
        text.push('\n');
        text.push_str(&goals);
    }
    text
}

fn figures(report: &Report) -> String {
    let head = [
        "row",
        "what",
        "per second",
        "p50 ms",
        "p99 ms",
        "CPU server",
        "CPU database",
        "no disk",
        "more",
        "limit in this run",
        "ratio",
    ];
    let mut lines = vec![head.map(str::to_owned).to_vec()];
    for row in report.limits.iter().chain(&report.rows) {
        let mut beside = row.beside.iter();
        lines.push([figures_of(row), beside_of(beside.next()).to_vec()].concat());
        lines.extend(
            beside.map(|beside| [vec![String::new(); head.len() - 2], beside_of(Some(beside)).to_vec()].concat()),
        );
    }
    aligned(&lines, 2)
}

fn figures_of(row: &Row) -> Vec<String> {
    let more: Vec<String> = row
        .more
        .iter()
        .map(|(name, value, unit)| format!("{name} {} {unit}", short(*value)))
        .collect();
    // A load generator that has no more to give measures itself.
    let busy = row.generator.is_some_and(|busy| busy > BUSY);
    let rate = row
        .per_second
        .map(|rate| format!("{}{}", whole(rate), if busy { "*" } else { "" }));
    let figure = |value: Option<f64>| value.map(short).unwrap_or_default();
    vec![
        row.name.clone(),
        row.what.clone(),
        rate.unwrap_or_default(),
        figure(row.spread.map(|spread| spread.p50)),
        figure(row.spread.map(|spread| spread.p99)),
        figure(row.server_cpu),
        figure(row.database_cpu),
        figure(row.direct),
        more.join(", "),
    ]
}

fn beside_of(beside: Option<&Beside>) -> [String; 2] {
    beside.map_or_else(Default::default, |beside| {
        let value = if beside.unit == "per second" {
            whole(beside.value)
        } else {
            short(beside.value)
        };
        [format!("{} {value} {}", beside.limit, beside.unit), short(beside.ratio)]
    })
}

fn goals(rows: &[Row]) -> String {
    let head = ["row", "goal", "measured", "at least", "aim", "reached"];
    let mut lines = vec![head.map(str::to_owned).to_vec()];
    for row in rows {
        lines.extend(row.goals.iter().map(|goal| goal_of(row, goal)));
    }
    if lines.len() == 1 {
        String::new()
    } else {
        aligned(&lines, 2)
    }
}

fn goal_of(row: &Row, goal: &Goal) -> Vec<String> {
    let sign = if goal.less_is_better() { "≤" } else { "≥" };
    vec![
        row.name.clone(),
        format!("{}, {}", goal.what, goal.unit),
        short(goal.measured),
        format!("{sign} {}", short(goal.must)),
        format!("{sign} {}", short(goal.aim)),
        goal.reached().to_owned(),
    ]
}

/// Columns padded to their widest cell; the first so many are words, and what ends in a digit is put to the right.
fn aligned(lines: &[Vec<String>], words: usize) -> String {
    let columns = lines.first().map_or(0, Vec::len);
    let width = |column: usize| {
        let cells = lines.iter().filter_map(|line| line.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let is_number = |cell: &str| cell.starts_with(|first: char| first.is_ascii_digit());
    let mut text = String::new();
    for (at, line) in lines.iter().enumerate() {
        for (column, (cell, width)) in line.iter().zip(&widths).enumerate() {
            let pad = " ".repeat(width - cell.chars().count());
            let (before, after) = if column >= words && is_number(cell) {
                (&*pad, "")
            } else {
                ("", &*pad)
            };
            text.push_str(&format!("| {before}{cell}{after} "));
        }
        text.push_str("|\n");
        if at == 0 {
            for width in &widths {
                text.push_str(&format!("| {} ", "-".repeat((*width).max(3))));
            }
            text.push_str("|\n");
        }
    }
    text
}

/// Three digits that say something.
pub(crate) fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 1000.0 => whole(value),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// Thousands set apart.
fn whole(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        let left = digits.len() - at;
        if at > 0 && left.is_multiple_of(3) && !text.ends_with('-') {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// What the columns mean.
pub(crate) const LEGEND: &str = "
CPU: seconds per 10,000 of the server, and of its database where that is another program. p50, p99: online from the send to the
arrival, otherwise from the request to its answer. no disk: part of the envelopes that were never written. ratio: what part of the
limit is reached; 1 is as good. *: the load generator had no more to give. What each row is: docs/performance.md.";
/// Of 1.
const BUSY: f64 = 0.93;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::goals;

    #[test]
    fn numbers_are_short_and_thousands_are_set_apart() {
        let shown: Vec<String> = [1_234_567.0, 999.4, 12.34, 1.234, 0.1234, 0.0].map(short).to_vec();
        assert_eq!(shown, ["1,234,567", "999", "12.3", "1.23", "0.123", "0.000"]);
        assert_eq!(whole(-1234.0), "-1,234");
    }

    #[test]
    fn every_line_has_the_same_width_and_every_limit_a_line() {
        let mut row = Row::new("online-1", "online relay, window 1");
        (row.per_second, row.server_cpu, row.generator) = (Some(20_000.0), Some(0.3), Some(0.99));
        let ratio = row.beside_cpu("bare relay", 0.1);
        row.beside_rate("inserts", 10_000.0);
        row.goal(goals::online_ratio, ratio);
        row.goal(goals::online_direct, row.direct);
        let report = Report {
            backend: "SQLite".to_owned(),
            limits: vec![Row::new("bare-relay-1", "bare relay")],
            rows: vec![row],
        };
        let text = of(&report);
        for table in text.split("\n\n").skip(1) {
            let mut widths = table.lines().map(|line| line.chars().count());
            let first = widths.next();
            assert!(widths.all(|width| Some(width) == first), "{text}");
        }
        assert!(text.contains("20,000*"), "{text}");
        assert!(text.contains("inserts 10,000 per second"), "{text}");
        let reached = text.lines().find(|line| line.contains("beside the bare")).unwrap();
        assert!(
            reached.contains("≥ 0.350") && reached.trim_end().ends_with("NO      |"),
            "{reached}"
        );
        assert!(!text.contains("never touched"), "what was not measured has no goal");
    }
}
