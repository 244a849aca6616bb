//! A row per goal: what, ours, the peer's, their ratio, the goal, held or missed.

use std::error::Error;
use std::fmt;

use serde_json::json;

pub(crate) struct Goal {
    what: String,
    ours: f64,
    peer_name: String,
    peer: f64,
    limit: f64,
}

#[derive(Default)]
pub(crate) struct Report {
    goals: Vec<Goal>,
}

impl Goal {
    /// Takes the medians. The goal is held where ours is at most `limit` times the peer's.
    pub(crate) fn new(what: &str, ours: Vec<f64>, peer_name: &str, peer: Vec<f64>, limit: f64) -> Self {
        Self { what: what.into(), ours: median(ours), peer_name: peer_name.into(), peer: median(peer), limit }
    }

    fn ratio(&self) -> f64 {
        self.ours / self.peer
    }

    fn held(&self) -> bool {
        self.ratio() <= self.limit
    }
}

impl Report {
    pub(crate) fn add(&mut self, goal: Goal) {
        self.goals.push(goal);
    }

    pub(crate) fn held(&self) -> bool {
        self.goals.iter().all(Goal::held)
    }

    pub(crate) fn write_json(&self, path: &str) -> Result<(), Box<dyn Error>> {
        let rows: Vec<_> = self
            .goals
            .iter()
            .map(|goal| {
                json!({ "what": goal.what, "ours_seconds": goal.ours, "peer": goal.peer_name, "peer_seconds": goal.peer,
                        "ratio": goal.ratio(), "goal": goal.limit, "held": goal.held() })
            })
            .collect();
        Ok(std::fs::write(path, serde_json::to_vec_pretty(&rows)?)?)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| what | ours (s) | peer (s) | ratio | goal | |\n|---|---|---|---|---|---|")?;
        for goal in &self.goals {
            let verdict = if goal.held() { "held" } else { "missed" };
            let Goal { what, ours, peer_name, peer, limit } = goal;
            writeln!(f, "| {what} | {ours:.2} | {peer_name} {peer:.2} | {:.2} | {limit} | {verdict} |", goal.ratio())?;
        }
        Ok(())
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
