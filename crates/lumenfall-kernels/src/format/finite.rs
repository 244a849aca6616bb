//! The search for values that are infinite or not a number.

use half::f16;

use super::Format;

/// The number of values that are checked at a time.
const CHUNK: usize = 4096;

impl Format {
    /// Returns the index of the first value that is infinite or not a number, or of the first value of its block.
    pub fn first_not_finite(self, bytes: &[u8]) -> Option<usize> {
        match self {
            Self::F16 | Self::Bf16 => {
                // All bits of the exponent are set.
                let exponent = if self == Self::F16 { 0x7c00 } else { 0x7f80 };
                let is_finite = |bytes: &[u8; 2]| u16::from_le_bytes(*bytes) & exponent != exponent;
                bytes.as_chunks().0.chunks(CHUNK).enumerate().find_map(|(chunk, values)| {
                    let finite = vectorized!(values.iter().fold(true, |finite, value| finite & is_finite(value)));
                    let at = if finite { None } else { values.iter().position(|value| !is_finite(value)) };
                    at.map(|at| chunk * CHUNK + at)
                })
            }
            Self::F32 | Self::F8E4m3 | Self::F8E5m2 => {
                let mut buffer = [0.0; CHUNK];
                bytes.chunks(CHUNK * self.block_bytes()).enumerate().find_map(|(chunk, bytes)| {
                    let (values, _) = buffer.split_at_mut(bytes.len() / self.block_bytes());
                    self.widen(bytes, values);
                    // Unlike `all`, this loop has no early exit, so the compiler vectorizes it.
                    let finite = values.iter().fold(true, |finite, value| finite & value.is_finite());
                    let at = if finite { None } else { values.iter().position(|value| !value.is_finite()) };
                    at.map(|at| chunk * CHUNK + at)
                })
            }
            // The integers in a block are finite, and their products with a finite f16 are, too.
            _ => {
                let finite = |block: &[u8], at: usize| {
                    let scale = block.get(at..).and_then(|rest| rest.first_chunk());
                    scale.is_some_and(|scale| f16::from_le_bytes(*scale).is_finite())
                };
                let block = bytes
                    .chunks_exact(self.block_bytes())
                    .position(|block| !self.scales().iter().all(|at| finite(block, *at)));
                block.map(|block| block * self.block_values())
            }
        }
    }
}
