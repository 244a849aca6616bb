//! The formulas of the lists of sigmas.

use super::schedule::Schedule;

/// The amount by which UniPC's first sigma stays below 1, where its logarithm of the signal would be infinite.
const UNIPC_EPSILON: f64 = 1e-6;

/// The number of bisections, and of terms of a power series whose terms at least halve, that reaches the precision of f64.
const HALVINGS: u32 = 60;

/// The exponent of Karras et al.
const RHO: f64 = 7.0;

/// The parameters alpha and beta of the beta distribution.
const BETA: f64 = 0.6;

/// The shift and the range of the timesteps.
pub(super) struct Curve {
    /// The factor of the shift.
    pub(super) shift: f64,
    /// The number of training timesteps.
    pub(super) train: f64,
    /// The value of the last sigma above 0.
    pub(super) terminal: Option<f64>,
    /// Whether the smallest timestep is shifted twice, as diffusers does with a fixed shift.
    pub(super) double: bool,
}

impl Curve {
    /// Returns `steps` sigmas above 0. `Schedule::Sigmas` is not computed here.
    pub(super) fn values(&self, schedule: &Schedule, steps: u32) -> Vec<f64> {
        let smallest = 1.0 / self.train;
        let shifted_smallest = self.shifted(smallest);
        let times: Vec<f64> = match schedule {
            Schedule::SgmUniform => linspace(1.0, shifted_smallest, steps.saturating_add(1)),
            Schedule::Simple => {
                let stride = self.train / f64::from(steps);
                (0..steps).map(|i| (self.train - (f64::from(i) * stride).trunc()) / self.train).collect()
            }
            Schedule::DpmSolver => linspace(0.0, 1.0 - smallest, steps.saturating_add(1)).into_iter().rev().collect(),
            Schedule::UniPc => linspace(1.0, smallest, steps.saturating_add(1)),
            _ => linspace(1.0, if self.double { shifted_smallest } else { smallest }, steps),
        };
        let mut sigmas: Vec<f64> = times.into_iter().take(steps as usize).map(|time| self.shifted(time)).collect();
        self.stretch(&mut sigmas);
        let (first, last) = (sigmas.first().copied().unwrap_or(1.0), sigmas.last().copied().unwrap_or(1.0));
        match schedule {
            Schedule::Karras => {
                let (max, min) = (first.powf(1.0 / RHO), last.powf(1.0 / RHO));
                linspace(0.0, 1.0, steps).into_iter().map(|ramp| (max + ramp * (min - max)).powf(RHO)).collect()
            }
            Schedule::Exponential => linspace(first.ln(), last.ln(), steps).into_iter().map(f64::exp).collect(),
            Schedule::Beta => {
                let ramp = linspace(0.0, 1.0, steps).into_iter();
                ramp.map(|ramp| last + beta_quantile(1.0 - ramp) * (first - last)).collect()
            }
            Schedule::UniPc => sigmas.into_iter().map(|sigma| sigma.min(1.0 - UNIPC_EPSILON)).collect(),
            _ => sigmas,
        }
    }

    fn shifted(&self, time: f64) -> f64 {
        self.shift * time / (1.0 + (self.shift - 1.0) * time)
    }

    /// Stretches the distances from 1 so that the last sigma has the terminal value. The only sigma of one step is 1 and
    /// cannot be stretched.
    fn stretch(&self, sigmas: &mut [f64]) {
        if let (Some(terminal), [_, .., last]) = (self.terminal, &*sigmas) {
            let scale = (1.0 - last) / (1.0 - terminal);
            sigmas.iter_mut().for_each(|sigma| *sigma = 1.0 - (1.0 - *sigma) / scale);
        }
    }
}

/// Returns `count` evenly spaced values, or only `start` if `count` is 1.
fn linspace(start: f64, end: f64, count: u32) -> Vec<f64> {
    let last = f64::from(count.saturating_sub(1).max(1));
    (0..count).map(|i| start + (end - start) * f64::from(i) / last).collect()
}

/// Returns the quantile of the symmetric beta distribution, by bisection.
fn beta_quantile(probability: f64) -> f64 {
    if probability > 0.5 {
        return 1.0 - beta_quantile(1.0 - probability);
    }
    // Half of the distribution lies below 0.5, so the integral needs no other normalization.
    let target = 2.0 * probability * beta_integral(0.5);
    let (mut low, mut high) = (0.0, 0.5);
    for _ in 0..HALVINGS {
        let middle = 0.5 * (low + high);
        if beta_integral(middle) < target { low = middle } else { high = middle }
    }
    high
}

/// Integrates the density of the beta distribution, not normalized, from 0 to `x`, which is at most 0.5, as a power series.
fn beta_integral(x: f64) -> f64 {
    let (mut sum, mut term) = (0.0, x.powf(BETA));
    for k in 0..HALVINGS {
        let k = f64::from(k);
        sum += term / (BETA + k);
        term *= x * (1.0 - BETA + k) / (k + 1.0);
    }
    sum
}
