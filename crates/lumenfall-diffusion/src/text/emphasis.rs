//! The effect of weights on the outputs of the encoders.

use crate::error::Result;
use crate::tensor::Tensor;

/// Weighs the difference between the features of each token and those of the empty prompt, as ComfyUI does.
pub(super) fn interpolate(features: Tensor, weights: &[f32], empty: &Tensor) -> Result<Tensor> {
    let (shape, width) = (features.shape().to_vec(), features.width().max(1));
    let mut values = features.into_values();
    let rows = values.chunks_exact_mut(width).zip(empty.values().chunks_exact(width)).zip(weights);
    for ((row, empty), weight) in rows.filter(|(_, weight)| **weight != 1.0) {
        row.iter_mut().zip(empty).for_each(|(value, empty)| *value = (*value - empty) * weight + empty);
    }
    Tensor::new(values, &shape)
}

/// Multiplies the features of both CLIP encoders by the weights of their tokens, and restores the mean of all features, as
/// AUTOMATIC1111's web interface does.
pub(super) fn multiply(parts: [(Tensor, &[f32]); 2]) -> Result<[Tensor; 2]> {
    let mean = |parts: [&Tensor; 2]| {
        let values = parts.iter().flat_map(|part| part.values());
        values.map(|value| f64::from(*value)).sum::<f64>() / parts.iter().map(|part| part.len() as f64).sum::<f64>()
    };
    let [(l, l_weights), (g, g_weights)] = parts;
    let before = mean([&l, &g]);
    let (l, g) = (weighted(l, l_weights)?, weighted(g, g_weights)?);
    // The scale is not finite if the mean of the weighted features is 0.
    let scale = Some(before / mean([&l, &g])).filter(|scale| scale.is_finite()).unwrap_or(1.0) as f32;
    Ok([l, g].map(|part| part.map(|value| value * scale)))
}

fn weighted(features: Tensor, weights: &[f32]) -> Result<Tensor> {
    let (shape, width) = (features.shape().to_vec(), features.width().max(1));
    let mut values = features.into_values();
    for (row, weight) in values.chunks_exact_mut(width).zip(weights) {
        row.iter_mut().for_each(|value| *value *= weight);
    }
    Tensor::new(values, &shape)
}
