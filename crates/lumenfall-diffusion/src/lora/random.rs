//! LoRAs with random values, for the benchmarks.

use std::sync::Arc;

use half::f16;
use lumenfall_kernels::{Format, Values};

use super::adapter::{Adapter, Adapters, Change};
use super::delta::{Delta, LowRank};
use super::strengths::Strengths;
use crate::sampling::Generator;

/// Some LoRAs of the same rank, in f16.
#[derive(Debug)]
pub(crate) struct RandomLoras {
    count: usize,
    rank: usize,
    strengths: Arc<Strengths>,
}

impl RandomLoras {
    pub(crate) fn new(count: usize, rank: usize) -> Self {
        Self { count, rank, strengths: Arc::new(Strengths::new(count)) }
    }

    /// Sets the strength of all LoRAs. With 0 they change nothing.
    pub(crate) fn set_strength(&self, strength: f32) {
        self.strengths.set(std::iter::repeat_n(strength, self.count));
    }

    /// Returns the changes of a linear layer.
    pub(crate) fn adapters(&self, layer: &str, outputs: usize, inputs: usize) -> Adapters {
        let values = |count| {
            let mut values = Values::with_capacity(Format::F16, count);
            let random = Generator::new(0).normal(count).into_iter();
            values.extend_from_bytes(&random.flat_map(|value| f16::from_f32(value).to_le_bytes()).collect::<Vec<_>>());
            values
        };
        let mut adapters = Adapters::default();
        for lora in 0..self.count {
            let (down, up) = (values(self.rank * inputs), values(outputs * self.rank));
            let delta = Delta::LowRank(LowRank { down, up, rank: self.rank, scale: 1e-3 });
            let change = Change::new(Some(delta), None, None);
            adapters.push(Arc::new(Adapter::with_change(lora, &self.strengths, layer, [outputs, inputs], change)));
        }
        adapters
    }
}
