//! LoRAs with a fixed strength, which are added to a layer's weight when it is read.

use std::sync::Arc;

use lumenfall_kernels::Values;

use super::adapter::{Adapter, Adapters, Change};
use super::keys::Role;
use super::magnitude::{Axis, PANEL};
use crate::error::Result;
use crate::tensor::Tensor;

impl Adapters {
    /// Reads the values for a layer. Adds the changes with a fixed strength to a weight in f32 and to the bias, and returns the
    /// others, which requests compute.
    pub(crate) fn attach(self, weight: &mut Values, bias: &mut Option<Tensor>) -> Result<Self> {
        // The factors of a DoRA multiply the weight of the model, which must then stay.
        let needs_weight = |adapter: &Arc<Adapter>| adapter.fixed.is_none() && adapter.shape(Role::Magnitude).is_some();
        let is_exact = matches!(weight, Values::F32(_)) && !self.0.iter().any(needs_weight);
        let (merged, others): (Vec<_>, Vec<_>) =
            self.0.iter().cloned().partition(|adapter| is_exact && adapter.fixed.is_some());
        others.iter().try_for_each(|adapter| adapter.attach(weight))?;
        let changes = merged.iter().map(|adapter| Ok((adapter.fixed.unwrap_or(0.0), adapter.read(weight)?)));
        let changes = changes.collect::<Result<Vec<_>>>()?;
        if let (Values::F32(weight), Some(adapter)) = (weight, merged.first()) {
            merge_weight(&changes, weight, adapter.inputs);
            merge_bias(&changes, bias, adapter.outputs)?;
        }
        Ok(Self(others.into()))
    }
}

/// Computes `weight += strength * (adapted weight − weight)` for each change of the given weight.
fn merge_weight(changes: &[(f32, Change)], weight: &mut [f32], inputs: usize) {
    let inputs = inputs.max(1);
    let rows = (PANEL / inputs).max(1);
    for (index, panel) in weight.chunks_mut(rows * inputs).enumerate() {
        let original = panel.to_vec();
        for (strength, change) in changes {
            let mut adapted = original.clone();
            change.adapt(index * rows, &mut adapted, inputs);
            let values = panel.iter_mut().zip(&adapted).zip(&original);
            values.for_each(|((sum, adapted), weight)| *sum += strength * (adapted - weight));
        }
    }
}

fn merge_bias(changes: &[(f32, Change)], bias: &mut Option<Tensor>, outputs: usize) -> Result<()> {
    for (strength, change) in changes {
        let Some(difference) = &change.bias else { continue };
        let mut sum = bias.take().map_or_else(|| vec![0.0; outputs], Tensor::into_values);
        sum.iter_mut().zip(difference).for_each(|(sum, difference)| *sum += strength * difference);
        *bias = Some(Tensor::new(sum, &[outputs])?);
    }
    Ok(())
}

impl Change {
    /// Replaces the rows of a weight from `first` by those of the adapted weight.
    fn adapt(&self, first: usize, rows: &mut [f32], inputs: usize) {
        if let Some(delta) = &self.delta {
            delta.add_to_weight(first, rows, inputs);
        }
        let scale = |value: &mut f32, factor: f32| *value *= factor;
        match &self.factors {
            Some((Axis::Rows, factors)) => {
                let rows = rows.chunks_exact_mut(inputs).zip(factors.iter().skip(first));
                rows.for_each(|(row, factor)| row.iter_mut().for_each(|value| scale(value, *factor)));
            }
            Some((Axis::Columns, factors)) => {
                let rows = rows.chunks_exact_mut(inputs).flat_map(|row| row.iter_mut().zip(factors));
                rows.for_each(|(value, factor)| scale(value, *factor));
            }
            None => {}
        }
    }
}
