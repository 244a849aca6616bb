//! The strengths of the LoRAs in the current request.

use std::sync::atomic::{AtomicU32, Ordering};

/// The strength of each LoRA, as the layers read it.
#[derive(Debug)]
pub(super) struct Strengths(Vec<AtomicU32>);

impl Strengths {
    pub(super) fn new(count: usize) -> Self {
        Self((0..count).map(|_| AtomicU32::new(0)).collect())
    }

    pub(super) fn get(&self, lora: usize) -> f32 {
        self.0.get(lora).map_or(0.0, |value| f32::from_bits(value.load(Ordering::Relaxed)))
    }

    pub(super) fn set(&self, strengths: impl Iterator<Item = f32>) {
        for (value, strength) in self.0.iter().zip(strengths) {
            value.store(strength.to_bits(), Ordering::Relaxed);
        }
    }
}
