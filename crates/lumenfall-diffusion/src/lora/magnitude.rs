//! DoRA: the norms of the adapted weight's rows or columns.

use lumenfall_kernels::Values;

use super::delta::Delta;

/// The number of weights that are converted to f32 at a time.
pub(super) const PANEL: usize = 1 << 20;

/// What a magnitude is the norm of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Axis {
    /// There is one for each output.
    Rows,
    /// There is one for each input.
    Columns,
}

impl Axis {
    /// Returns the axis of a magnitude of a shape. A list for a square weight belongs to its rows, as peft writes it.
    pub(super) fn of(shape: &[usize], outputs: usize, inputs: usize) -> Option<Self> {
        match *shape {
            [length] if length == outputs => Some(Self::Rows),
            [length] if length == inputs => Some(Self::Columns),
            [rows, 1, ..] if rows == outputs && shape.iter().product::<usize>() == outputs => Some(Self::Rows),
            [1, columns] if columns == inputs => Some(Self::Columns),
            _ => None,
        }
    }
}

/// Returns the factors of the rows or columns of `weight + delta` that give them the norms `magnitude`.
pub(super) fn factors(
    weight: &Values,
    delta: Option<&Delta>,
    axis: Axis,
    magnitude: &[f32],
    inputs: usize,
) -> Vec<f32> {
    let mut squares = vec![0f64; magnitude.len()];
    let outputs = weight.len().checked_div(inputs).unwrap_or(0);
    let rows = (PANEL / inputs.max(1)).clamp(1, outputs.max(1));
    for first in (0..outputs).step_by(rows) {
        let mut panel = vec![0.0; rows.min(outputs - first) * inputs];
        weight.widen(first * inputs, &mut panel);
        if let Some(delta) = delta {
            delta.add_to_weight(first, &mut panel, inputs);
        }
        let square = |value: &f32| f64::from(*value) * f64::from(*value);
        match axis {
            Axis::Rows => {
                let squares = squares.iter_mut().skip(first);
                squares
                    .zip(panel.chunks_exact(inputs))
                    .for_each(|(sum, row)| *sum += row.iter().map(square).sum::<f64>());
            }
            Axis::Columns => panel.chunks_exact(inputs).for_each(|row| {
                squares.iter_mut().zip(row).for_each(|(sum, value)| *sum += square(value));
            }),
        }
    }
    // A row of zeros stays one.
    let factor = |(norm, magnitude): (f64, &f32)| if norm > 0.0 { (f64::from(*magnitude) / norm) as f32 } else { 1.0 };
    squares.into_iter().map(f64::sqrt).zip(magnitude).map(factor).collect()
}
