//! Schedules, samplers, guidance and noise: the mathematics between the denoiser's predictions and the final latent.
//!
//! Nothing here depends on a tensor library. A latent and a prediction are slices of f32, and one call handles one image.

mod guidance;
mod guide;
mod multistep;
mod noise;
mod sampler;
mod schedule;
mod sigmas;
#[cfg(test)]
mod tests;

pub use guidance::{Guidance, GuidanceMethod, SkipLayers, SkipWindow};
pub(crate) use guide::{Forward, GuidancePlan, Guide};
pub(crate) use noise::NoiseStream;
pub(crate) use noise::torch_cpu::Generator;
pub use noise::{CudaCard, Noise};
pub use sampler::Sampler;
pub(crate) use sampler::{Point, combine, sample};
pub use schedule::{DynamicShift, Schedule, ScheduleOptions, Shift, TimeShift};
pub(crate) use schedule::{Scheduler, Step};

/// Returns the decimal number that an f32 stands for, as an f64: 0.6 of 5 steps is then exactly 3.
fn decimal(value: f32) -> f64 {
    (f64::from(value) * 1e7).round() / 1e7
}
