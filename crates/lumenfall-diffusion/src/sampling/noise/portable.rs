//! Normal random numbers with the same bits on every platform.
//!
//! Values 2k and 2k + 1 of a seed come from the words w₀..w₃ of Philox4x32-10 with the counter k and the seed as key. With the 53
//! high bits of (w₀, w₁) plus 1 as `u` and of (w₂, w₃) as `v`, both divided by 2^53, they are √(−2·ln u) times cos 2πv and
//! sin 2πv. All operations are in f64: those of IEEE 754, which are exactly defined, and the software functions of `libm`.
//! A request for an odd number of values discards the last one.

use std::f64::consts::TAU;

use super::philox;

/// The stream of a seed.
#[derive(Clone, Debug)]
pub(crate) struct PortableStream {
    seed: u64,
    next_pair: u64,
}

impl PortableStream {
    pub(super) fn new(seed: u64) -> Self {
        Self { seed, next_pair: 0 }
    }

    /// Returns the next `count` values.
    pub(super) fn normal(&mut self, count: usize) -> Vec<f32> {
        let mut values = Vec::with_capacity(count + 1);
        while values.len() < count {
            values.extend(self.pair());
        }
        values.truncate(count);
        values
    }

    fn pair(&mut self) -> [f32; 2] {
        let [a, b, c, d] = philox::words(self.next_pair, 0, self.seed);
        self.next_pair = self.next_pair.wrapping_add(1);
        let unit = (1u64 << 53) as f64;
        let u = (bits(a, b) + 1) as f64 / unit;
        let v = bits(c, d) as f64 / unit;
        let radius = (-2.0 * libm::log(u)).sqrt();
        [(radius * libm::cos(TAU * v)) as f32, (radius * libm::sin(TAU * v)) as f32]
    }
}

/// Returns the 53 high bits of two words.
fn bits(high: u32, low: u32) -> u64 {
    ((u64::from(high) << 32) | u64::from(low)) >> 11
}
