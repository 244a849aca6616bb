//! The samplers that also use the predictions of previous steps: DPM-Solver++(2M) and UniPC.
//!
//! Both solve for the denoised image over a time `λ(σ)`, which grows from noise to image. With `h` as the step's length in `λ`,
//! `α'·(1 − e^−h)` is `1 − σ'/σ` for both of the times below, and the first-order step is an Euler step. Nothing is computed
//! from the infinite `λ` of σ = 0, because the last step is of first order.

use super::sampler::combine;
use super::schedule::Step;

/// The length of a step below which power series replace formulas that cancel.
const SHORT: f64 = 1e-3;

/// The time of Stability AI's own code and ComfyUI.
pub(super) fn inverse_log(sigma: f64) -> f64 {
    -sigma.ln()
}

/// The time of diffusers: the logarithm of the ratio of signal to noise. For σ = 1 it is −∞, so that a prediction there has no
/// weight in the extrapolation of the next step.
pub(super) fn log_signal_to_noise(sigma: f64) -> f64 {
    (1.0 - sigma).ln() - sigma.ln()
}

/// The prediction of a previous step.
struct Prediction {
    sigma: f64,
    denoised: Vec<f32>,
}

/// A predictor step of UniPC, which the next prediction corrects.
struct Correctable {
    latent: Vec<f32>,
    second_order: bool,
}

/// The history of one image.
#[derive(Default)]
pub(super) struct Multistep {
    previous: Option<Prediction>,
    before_previous: Option<Prediction>,
    correctable: Option<Correctable>,
}

impl Multistep {
    /// Computes a step of DPM-Solver++(2M) over the time `lambda`.
    pub(super) fn dpm(&mut self, lambda: fn(f64) -> f64, step: &Step, latent: &[f32], denoised: &[f32]) -> Vec<f32> {
        let (stepped, _) = self.predict(lambda, step, latent, denoised);
        self.remember(step, denoised);
        stepped
    }

    /// Computes a step of UniPC: corrects `latent` with the new prediction, and predicts the next latent from it.
    pub(super) fn unipc(&mut self, step: &Step, latent: &[f32], denoised: &[f32]) -> Vec<f32> {
        let corrected = self.correct(step, denoised).unwrap_or_else(|| latent.to_vec());
        let (stepped, second_order) = self.predict(log_signal_to_noise, step, &corrected, denoised);
        self.correctable = Some(Correctable { latent: corrected, second_order });
        self.remember(step, denoised);
        stepped
    }

    /// Extrapolates from the previous prediction to the middle of the step. Returns the new latent, and whether there was a
    /// previous prediction to use.
    fn predict(&self, lambda: fn(f64) -> f64, step: &Step, latent: &[f32], denoised: &[f32]) -> (Vec<f32>, bool) {
        let (sigma, next) = (f64::from(step.sigma), f64::from(step.next_sigma));
        let kept = next / sigma;
        let previous = self.previous.as_ref().filter(|_| next > 0.0);
        let Some(previous) = previous else {
            return (combine(latent, kept as f32, denoised, (1.0 - kept) as f32), false);
        };
        let length = lambda(next) - lambda(sigma);
        let previous_length = lambda(sigma) - lambda(previous.sigma);
        let extrapolation = (0.5 * length / previous_length) as f32;
        let middle = combine(denoised, 1.0 + extrapolation, &previous.denoised, -extrapolation);
        (combine(latent, kept as f32, &middle, (1.0 - kept) as f32), true)
    }

    /// Repeats the previous step of UniPC, now with the prediction at its end.
    fn correct(&self, step: &Step, denoised: &[f32]) -> Option<Vec<f32>> {
        let (start, predictor) = (self.previous.as_ref()?, self.correctable.as_ref()?);
        let sigma = f64::from(step.sigma);
        let kept = sigma / start.sigma;
        let change = combine(denoised, 1.0, &start.denoised, -1.0);
        let length = log_signal_to_noise(sigma) - log_signal_to_noise(start.sigma);
        let weighted = match self.before_previous.as_ref().filter(|_| predictor.second_order) {
            None => combine(&start.denoised, 1.0, &change, 0.5),
            Some(before) => {
                let ratio = (log_signal_to_noise(before.sigma) - log_signal_to_noise(start.sigma)) / length;
                let (at_before, at_end) = corrector_weights(length, ratio);
                let slope = combine(&before.denoised, 1.0, &start.denoised, -1.0);
                let changes = combine(&slope, (at_before / ratio) as f32, &change, at_end as f32);
                combine(&start.denoised, 1.0, &changes, 1.0)
            }
        };
        Some(combine(&predictor.latent, kept as f32, &weighted, (1.0 - kept) as f32))
    }

    fn remember(&mut self, step: &Step, denoised: &[f32]) {
        let prediction = Prediction { sigma: f64::from(step.sigma), denoised: denoised.to_vec() };
        self.before_previous = self.previous.replace(prediction);
    }
}

/// Solves for the weights of the differences at the point before the step, at `ratio` of its length, and at its end, with B(h) of
/// the variant `bh2`.
fn corrector_weights(length: f64, ratio: f64) -> (f64, f64) {
    let z = -length;
    let (first, second) = if length < SHORT {
        let scale = 1.0 + z / 2.0 + z * z / 6.0;
        ((0.5 + z / 6.0 + z * z / 24.0) / scale, (1.0 / 3.0 + z / 12.0 + z * z / 60.0) / scale)
    } else {
        let scale = z.exp_m1();
        let phi_2 = scale / z - 1.0;
        (phi_2 / scale, 2.0 * (phi_2 / z - 0.5) / scale)
    };
    let at_before = (first - second) / (1.0 - ratio);
    (at_before, first - at_before)
}

#[cfg(test)]
mod tests {
    use super::{SHORT, corrector_weights};

    #[test]
    fn the_weights_of_short_and_long_steps_agree() {
        let short = corrector_weights(SHORT * (1.0 - 1e-9), -1.5);
        let long = corrector_weights(SHORT, -1.5);
        assert!((short.0 - long.0).abs() < 1e-7 && (short.1 - long.1).abs() < 1e-7, "{short:?}, {long:?}");
        // The limit for steps of length 0: the weights of the quadratic through three points.
        let (before, end) = corrector_weights(1e-12, -1.0);
        assert!((before - 1.0 / 12.0).abs() < 1e-9 && (end - 5.0 / 12.0).abs() < 1e-9, "{before}, {end}");
    }
}
