//! The random numbers of torch's CPU generator, so that a seed generates the same image as in diffusers.
//!
//! `torch.randn` in f32 applies the Box–Muller transform to blocks of 16 values of MT19937. For fewer than 16 values it uses
//! a variant in double precision.

use std::f64::consts::TAU;

const STATE: usize = 624;
const SHIFT: usize = 397;

/// The number of values in a Box–Muller block.
const BLOCK: usize = 16;

/// Equivalent to `torch.Generator().manual_seed(seed)`.
#[derive(Clone, Debug)]
pub(crate) struct Generator {
    state: [u32; STATE],
    next: usize,
    /// The unused second value of the last double-precision pair.
    spare: Option<f64>,
}

impl Generator {
    /// Creates a generator. Only the low 32 bits of `seed` have an effect, as in torch.
    pub(crate) fn new(seed: u64) -> Self {
        let mut previous = seed as u32;
        let state = std::array::from_fn(|index| {
            if index > 0 {
                previous = (previous ^ (previous >> 30)).wrapping_mul(1_812_433_253).wrapping_add(index as u32);
            }
            previous
        });
        Self { state, next: STATE, spare: None }
    }

    /// Returns `count` values of the standard normal distribution.
    pub(crate) fn normal(&mut self, count: usize) -> Vec<f32> {
        if count < BLOCK {
            return (0..count).map(|_| self.normal_f64() as f32).collect();
        }
        let mut values: Vec<f32> = (0..count).map(|_| self.uniform()).collect();
        let (blocks, rest) = values.as_chunks_mut::<BLOCK>();
        blocks.iter_mut().for_each(box_muller);
        if !rest.is_empty() {
            // If the count is not a multiple of 16, torch replaces the last 16 values.
            if let Some(last) = values.last_chunk_mut::<BLOCK>() {
                last.iter_mut().for_each(|value| *value = self.uniform());
                box_muller(last);
            }
        }
        values
    }

    fn uniform(&mut self) -> f32 {
        (self.next_u32() & 0x00ff_ffff) as f32 / 16_777_216.0
    }

    fn uniform_f64(&mut self) -> f64 {
        let high = u64::from(self.next_u32());
        let bits = (high << 32) | u64::from(self.next_u32());
        (bits & ((1 << 53) - 1)) as f64 / (1u64 << 53) as f64
    }

    fn normal_f64(&mut self) -> f64 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        let angle = TAU * self.uniform_f64();
        let radius = (-2.0 * (-self.uniform_f64()).ln_1p()).sqrt();
        self.spare = Some(radius * angle.sin());
        radius * angle.cos()
    }

    #[allow(clippy::indexing_slicing, reason = "every index is taken modulo the array's length")]
    fn next_u32(&mut self) -> u32 {
        if self.next >= STATE {
            for index in 0..STATE {
                let joined = (self.state[index] & 0x8000_0000) | (self.state[(index + 1) % STATE] & 0x7fff_ffff);
                let twist = if joined & 1 == 1 { 0x9908_b0df } else { 0 };
                self.state[index] = self.state[(index + SHIFT) % STATE] ^ (joined >> 1) ^ twist;
            }
            self.next = 0;
        }
        let mut value = self.state[self.next % STATE];
        self.next += 1;
        value ^= value >> 11;
        value ^= (value << 7) & 0x9d2c_5680;
        value ^= (value << 15) & 0xefc6_0000;
        value ^ (value >> 18)
    }
}

fn box_muller(block: &mut [f32; BLOCK]) {
    let (first, second) = block.split_at_mut(BLOCK / 2);
    for (a, b) in first.iter_mut().zip(second) {
        let radius = (-2.0 * (1.0 - *a).ln()).sqrt();
        let angle = std::f32::consts::TAU * *b;
        (*a, *b) = (radius * angle.cos(), radius * angle.sin());
    }
}
