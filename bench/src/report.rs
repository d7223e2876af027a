//! What a run found: rows with their figures, the limits beside them, and what they should reach.

use serde_json::{Value, json};

use crate::load::Measured;
use crate::percentiles::Spread;

/// A row of the table.
#[derive(Clone, Default)]
pub(crate) struct Row {
    /// As `--rows` names it.
    pub(crate) name: String,
    /// In words.
    pub(crate) what: String,
    pub(crate) per_second: Option<f64>,
    pub(crate) spread: Option<Spread>,
    /// CPU seconds of the server per 10,000.
    pub(crate) server_cpu: Option<f64>,
    /// CPU seconds of the database per 10,000, where it is another program.
    pub(crate) database_cpu: Option<f64>,
    /// How much of its cores the load generator used, of 1.
    pub(crate) generator: Option<f64>,
    /// Part of the envelopes that never touched the disk.
    pub(crate) direct: Option<f64>,
    /// What has no column: name, value, unit.
    pub(crate) more: Vec<(&'static str, f64, &'static str)>,
    /// Figures of this row as parts of limits.
    pub(crate) beside: Vec<Beside>,
    pub(crate) goals: Vec<Goal>,
}

impl Row {
    /// A row without figures yet.
    pub(crate) fn new(name: impl Into<String>, what: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            what: what.into(),
            ..Self::default()
        }
    }

    /// With what a load came to.
    pub(crate) fn with(mut self, measured: &Measured) -> Self {
        self.per_second = Some(measured.per_second);
        self.spread = measured.spread;
        self.server_cpu = Some(measured.cpu);
        self.database_cpu = measured.database_cpu;
        self.generator = Some(measured.generator);
        self
    }

    /// CPU seconds per 10,000 of the server and its database.
    pub(crate) fn cpu(&self) -> Option<f64> {
        Some(self.server_cpu? + self.database_cpu.unwrap_or(0.0))
    }

    /// Sets a cost in CPU beside a limit's: 1 is as cheap as the limit, 0.5 costs twice as much.
    pub(crate) fn beside_cpu(&mut self, limit: &'static str, limit_cpu: f64) -> Option<f64> {
        let ratio = limit_cpu / self.cpu()?;
        self.beside.push(Beside {
            limit,
            value: limit_cpu,
            unit: "CPU-s per 10,000",
            ratio,
        });
        Some(ratio)
    }

    /// Sets a rate beside a limit's.
    pub(crate) fn beside_rate(&mut self, limit: &'static str, limit_rate: f64) -> Option<f64> {
        let ratio = self.per_second? / limit_rate;
        self.beside.push(Beside {
            limit,
            value: limit_rate,
            unit: "per second",
            ratio,
        });
        Some(ratio)
    }

    /// Adds what should be reached, if it was measured.
    pub(crate) fn goal(&mut self, goal: fn(f64) -> Goal, measured: Option<f64>) {
        self.goals.extend(measured.map(goal));
    }

    fn json(&self) -> Value {
        let more: serde_json::Map<String, Value> = self
            .more
            .iter()
            .map(|(name, value, unit)| (format!("{name} ({unit})"), json!(value)))
            .collect();
        json!({
            "row": self.name,
            "what": self.what,
            "per_second": self.per_second,
            "p50_ms": self.spread.map(|spread| spread.p50),
            "p99_ms": self.spread.map(|spread| spread.p99),
            "server_cpu_seconds_per_10000": self.server_cpu,
            "database_cpu_seconds_per_10000": self.database_cpu,
            "load_generator_busy": self.generator,
            "never_touched_the_disk": self.direct,
            "more": more,
            "beside": self.beside.iter().map(Beside::json).collect::<Vec<_>>(),
            "goals": self.goals.iter().map(Goal::json).collect::<Vec<_>>(),
        })
    }
}

/// A limit, and what part of it a row reaches.
#[derive(Clone)]
pub(crate) struct Beside {
    pub(crate) limit: &'static str,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
    /// 1 is as good as the limit, less is worse.
    pub(crate) ratio: f64,
}

impl Beside {
    fn json(&self) -> Value {
        json!({ "limit": self.limit, "value": self.value, "unit": self.unit, "ratio": self.ratio })
    }
}

/// What a row should reach.
#[derive(Clone, Debug)]
pub(crate) struct Goal {
    pub(crate) what: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) measured: f64,
    pub(crate) must: f64,
    pub(crate) aim: f64,
}

impl Goal {
    /// Whether less is better, as the two bounds show.
    pub(crate) fn less_is_better(&self) -> bool {
        self.aim < self.must
    }

    /// How far it came.
    pub(crate) fn reached(&self) -> &'static str {
        let reaches = |bound: f64| {
            if self.less_is_better() {
                self.measured <= bound
            } else {
                self.measured >= bound
            }
        };
        match (reaches(self.must), reaches(self.aim)) {
            (_, true) => "aim",
            (true, false) => "yes",
            (false, false) => "NO",
        }
    }

    fn json(&self) -> Value {
        json!({
            "what": self.what,
            "unit": self.unit,
            "measured": self.measured,
            "must": self.must,
            "aim": self.aim,
            "less_is_better": self.less_is_better(),
            "reached": self.reached() != "NO",
            "aim_reached": self.reached() == "aim",
        })
    }
}

/// What a run found on one backend.
pub(crate) struct Report {
    /// The database and its version.
    pub(crate) backend: String,
    /// What the least programs do; no goals.
    pub(crate) limits: Vec<Row>,
    pub(crate) rows: Vec<Row>,
}

impl Report {
    /// For programs.
    pub(crate) fn json(&self) -> Value {
        json!({
            "backend": self.backend,
            "limits": self.limits.iter().map(Row::json).collect::<Vec<_>>(),
            "rows": self.rows.iter().map(Row::json).collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn goal(measured: f64, must: f64, aim: f64) -> Goal {
        Goal {
            what: "figure",
            unit: "",
            measured,
            must,
            aim,
        }
    }

    #[test]
    fn a_goal_is_reached_from_the_side_of_its_aim() {
        assert_eq!(goal(0.5, 0.4, 0.2).reached(), "NO");
        assert_eq!(goal(0.4, 0.4, 0.2).reached(), "yes");
        assert_eq!(goal(0.1, 0.4, 0.2).reached(), "aim");
        assert_eq!(goal(2.9, 3.0, 8.0).reached(), "NO");
        assert_eq!(goal(3.5, 3.0, 8.0).reached(), "yes");
        assert_eq!(goal(9.0, 3.0, 8.0).reached(), "aim");
        assert_eq!(goal(f64::NAN, 3.0, 8.0).reached(), "NO");
        assert_eq!(goal(f64::NAN, 0.4, 0.2).reached(), "NO");
    }

    #[test]
    fn a_cost_counts_the_database_and_a_limit_that_costs_half_is_half() {
        let mut row = Row {
            server_cpu: Some(0.3),
            database_cpu: Some(0.1),
            ..Row::new("online-1", "online")
        };
        let ratio = row.beside_cpu("bare relay", 0.2).unwrap();
        assert!((ratio - 0.5).abs() < 1e-9);
        assert_eq!(row.beside_rate("inserts", 10.0), None, "there is no rate");
    }

    #[test]
    fn json_has_null_for_what_was_not_measured_and_says_what_was_reached() {
        let mut row = Row::new("login-cold", "logins");
        row.per_second = Some(1800.0);
        row.goals.push(goal(0.5, 0.4, 0.2));
        let report = Report {
            backend: "SQLite 3".to_owned(),
            limits: Vec::new(),
            rows: vec![row],
        };
        let json = &report.json()["rows"][0];
        assert_eq!(json["per_second"], 1800.0);
        assert!(json["p99_ms"].is_null());
        assert_eq!(json["goals"][0]["reached"], false);
    }
}
