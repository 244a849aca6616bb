//! The table of a benchmark's results: our value, the peer's value, their ratio, and whether it meets the goal.

use std::error::Error;
use std::fmt;

use serde_json::json;

/// A result and its goal.
pub(crate) struct Goal {
    what: String,
    unit: &'static str,
    ours: f64,
    /// The name and the value of the peer. `None` if the limit is absolute.
    peer: Option<(String, f64)>,
    /// The maximum ratio of our value to the peer's. Without a peer, the maximum of our value. `None` if there is no goal.
    limit: Option<f64>,
}

#[derive(Default)]
pub(crate) struct Report {
    goals: Vec<Goal>,
}

impl Goal {
    /// Requires that the median of `ours` is at most `limit`.
    pub(crate) fn new(what: impl Into<String>, unit: &'static str, ours: Vec<f64>, limit: f64) -> Self {
        Self { what: what.into(), unit, ours: median(ours), peer: None, limit: Some(limit) }
    }

    /// Reports a value without a goal.
    #[allow(dead_code, reason = "not every benchmark has such values")]
    pub(crate) fn value(what: impl Into<String>, unit: &'static str, ours: f64) -> Self {
        Self { what: what.into(), unit, ours, peer: None, limit: None }
    }

    /// Requires that the median of `ours` is at most `limit` times the median of `peers`.
    pub(crate) fn relative_to(self, peer: impl Into<String>, peers: Vec<f64>) -> Self {
        Self { peer: Some((peer.into(), median(peers))), ..self }
    }

    fn ratio(&self) -> Option<f64> {
        self.peer.as_ref().map(|(_, peer)| self.ours / peer)
    }

    fn is_met(&self) -> bool {
        self.limit.is_none_or(|limit| self.ratio().unwrap_or(self.ours) <= limit)
    }
}

impl Report {
    pub(crate) fn add(&mut self, goal: Goal) {
        self.goals.push(goal);
    }

    /// Returns true if every goal is met.
    pub(crate) fn is_met(&self) -> bool {
        self.goals.iter().all(Goal::is_met)
    }

    pub(crate) fn write_json(&self, path: &str) -> Result<(), Box<dyn Error>> {
        let rows: Vec<_> = self
            .goals
            .iter()
            .map(|goal| {
                let (name, value) = goal.peer.as_ref().map(|(name, value)| (name, value)).unzip();
                json!({ "what": goal.what, "unit": goal.unit, "ours": goal.ours, "peer": name, "peers": value,
                        "ratio": goal.ratio(), "goal": goal.limit, "met": goal.is_met() })
            })
            .collect();
        Ok(std::fs::write(path, serde_json::to_vec_pretty(&rows)?)?)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| what | ours | peer | ratio | goal | |\n|---|---|---|---|---|---|")?;
        for goal in &self.goals {
            let Goal { what, unit, ours, peer, limit } = goal;
            let peer = peer.as_ref().map_or("none".into(), |(name, value)| format!("{name} {value:.2} {unit}"));
            let ratio = goal.ratio().map_or(String::new(), |ratio| format!("{ratio:.2}"));
            let unit_of_limit = if goal.peer.is_none() { format!(" {unit}") } else { String::new() };
            let (limit, result) = match limit {
                Some(limit) => (format!("{limit}{unit_of_limit}"), if goal.is_met() { "met" } else { "missed" }),
                None => ("none".into(), ""),
            };
            writeln!(f, "| {what} | {ours:.2} {unit} | {peer} | {ratio} | {limit} | {result} |")?;
        }
        Ok(())
    }
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
