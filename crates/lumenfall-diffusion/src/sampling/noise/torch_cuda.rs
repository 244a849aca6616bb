//! The random numbers of torch's CUDA generator.
//!
//! `torch.randn` starts a thread for each value, in blocks of 256, up to the number of threads that the card can run at once. Each
//! thread has its own Philox stream, from which it draws four values at a time. The values of a call are at the distance of the
//! number of threads. A latent with more values than the card has threads therefore differs from card to card.

use std::f32::consts::TAU;

use serde::{Deserialize, Serialize};

use super::philox;
use crate::error::{Error, Result};

/// The number of threads in a block of torch's kernel.
const BLOCK: u64 = 256;

/// The number of values that a thread draws at a time.
const DRAWN: u64 = 4;

const TWO_POW_MINUS_32: f32 = 1.0 / 4_294_967_296.0;

/// The card whose random numbers are computed.
///
/// A latent has a value for 4 pixels: 262,144 for an image of 1024x1024. Up to the number of threads that a card runs at once, its
/// random numbers equal those of all other cards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CudaCard {
    /// NVIDIA T4: 40 multiprocessors with 1024 threads.
    T4,
    /// NVIDIA GeForce RTX 4090: 128 multiprocessors with 1536 threads.
    Rtx4090,
    /// NVIDIA A100: 108 multiprocessors with 2048 threads.
    A100,
    /// NVIDIA H100 SXM: 132 multiprocessors with 2048 threads.
    H100,
    /// Another card: `multi_processor_count` and `max_threads_per_multi_processor` of `torch.cuda.get_device_properties(0)`.
    Custom {
        /// The number of multiprocessors.
        multiprocessors: u32,
        /// The maximum number of resident threads of a multiprocessor, at least 256.
        threads_per_multiprocessor: u32,
    },
}

impl CudaCard {
    /// Returns the number of threads that torch starts at most.
    fn threads(self) -> Result<u64> {
        let (multiprocessors, threads) = match self {
            Self::T4 => (40, 1024),
            Self::Rtx4090 => (128, 1536),
            Self::A100 => (108, 2048),
            Self::H100 => (132, 2048),
            Self::Custom { multiprocessors, threads_per_multiprocessor } => {
                (multiprocessors, threads_per_multiprocessor)
            }
        };
        match u64::from(multiprocessors) * (u64::from(threads) / BLOCK) * BLOCK {
            0 => Err(Error::parameter(
                "noise",
                format!(
                    "has a card with {multiprocessors} multiprocessors of {threads} threads; \
                     use at least 1 multiprocessor and {BLOCK} threads"
                ),
            )),
            threads => Ok(threads),
        }
    }
}

/// The stream of `torch.Generator("cuda").manual_seed(seed)`.
#[derive(Clone, Debug)]
pub(crate) struct CudaStream {
    seed: u64,
    max_threads: u64,
    /// The number of times that each thread has drawn values.
    draws: u64,
}

impl CudaStream {
    pub(super) fn new(card: CudaCard, seed: u64) -> Result<Self> {
        Ok(Self { seed, max_threads: card.threads()?, draws: 0 })
    }

    /// Returns the next `count` values.
    pub(super) fn normal(&mut self, count: usize) -> Vec<f32> {
        let threads = (count as u64).next_multiple_of(BLOCK).clamp(BLOCK, self.max_threads);
        let value = |index: u64| {
            let (round, index) = (index / (threads * DRAWN), index % (threads * DRAWN));
            let words = philox::words(self.draws.wrapping_add(round), index % threads, self.seed);
            box_muller(words, index / threads)
        };
        let values = (0..count as u64).map(value).collect();
        self.draws = self.draws.wrapping_add((count as u64).div_ceil(threads * DRAWN));
        values
    }
}

/// Returns a value of curand's `curand_normal4`.
fn box_muller([a, b, c, d]: [u32; 4], index: u64) -> f32 {
    let (first, second) = if index < 2 { (a, b) } else { (c, d) };
    let u = (first as f32).mul_add(TWO_POW_MINUS_32, TWO_POW_MINUS_32 / 2.0);
    let angle = (second as f32).mul_add(TWO_POW_MINUS_32 * TAU, TWO_POW_MINUS_32 * TAU / 2.0);
    let radius = (-2.0 * u.ln()).sqrt();
    radius * if index.is_multiple_of(2) { angle.sin() } else { angle.cos() }
}
