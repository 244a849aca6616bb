//! The numbers that torch's processor generator draws.
//!
//! A seed makes the same picture here and in diffusers. The algorithm is that of `torch.randn` in f32:
//! MT19937, and Box–Muller over blocks of 16 (below 16 values a double-precision variant).

use std::f64::consts::TAU;

const STATE: usize = 624;
const SHIFT: usize = 397;

/// Values that one Box–Muller block transforms.
const BLOCK: usize = 16;

/// A generator in the state that `torch.Generator().manual_seed(seed)` starts from.
#[derive(Clone, Debug)]
pub(crate) struct Generator {
    state: [u32; STATE],
    next: usize,
    /// The second value of the last double-precision pair.
    spare: Option<f64>,
}

impl Generator {
    /// Torch uses the low 32 bits of a seed.
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

    /// `count` values of the standard normal distribution.
    pub(crate) fn normal(&mut self, count: usize) -> Vec<f32> {
        if count < BLOCK {
            return (0..count).map(|_| self.double_normal() as f32).collect();
        }
        let mut values: Vec<f32> = (0..count).map(|_| self.uniform()).collect();
        let (blocks, rest) = values.as_chunks_mut::<BLOCK>();
        blocks.iter_mut().for_each(box_muller);
        if !rest.is_empty() {
            // Torch draws the last 16 values anew where the count is no multiple of 16.
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

    fn double_uniform(&mut self) -> f64 {
        let high = u64::from(self.next_u32());
        let bits = (high << 32) | u64::from(self.next_u32());
        (bits & ((1 << 53) - 1)) as f64 / (1u64 << 53) as f64
    }

    fn double_normal(&mut self) -> f64 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        let angle = TAU * self.double_uniform();
        let radius = (-2.0 * (-self.double_uniform()).ln_1p()).sqrt();
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
