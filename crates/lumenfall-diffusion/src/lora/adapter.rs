//! The changes of one layer by one LoRA.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use lumenfall_kernels::{Matrix, Threads, Values, Write, matmul};

use super::delta::{Delta, Kronecker, LowRank};
use super::keys::Role;
use super::magnitude::{self, Axis};
use super::scale::Settings;
use super::strengths::Strengths;
use crate::error::Result;
use crate::tensor::Tensor;
use crate::weights::Weights;
use crate::weights::layout::PartKind;

/// The changes of one layer by one LoRA. Their tensors are read when the layer is read.
#[derive(Debug)]
pub(crate) struct Adapter {
    /// The index of the LoRA.
    pub(super) lora: usize,
    pub(super) strengths: Arc<Strengths>,
    /// The strength, if it is the same in all requests.
    pub(super) fixed: Option<f32>,
    pub(super) settings: Arc<Settings>,
    pub(super) part: PartKind,
    pub(super) layer: String,
    pub(super) outputs: usize,
    pub(super) inputs: usize,
    /// The tensors, by the names of their roles.
    pub(super) tensors: Weights,
    /// The rows of a Kronecker product that belong to the layer.
    pub(super) rows: Vec<Range<usize>>,
    /// Whether a layer of the model has the adapter.
    pub(super) attached: AtomicBool,
    pub(super) change: OnceLock<Change>,
}

/// The values of an [`Adapter`].
#[derive(Debug)]
pub(super) struct Change {
    pub(super) delta: Option<Delta>,
    /// The factors of the adapted weight's rows or columns.
    pub(super) factors: Option<(Axis, Vec<f32>)>,
    /// The difference of the bias.
    pub(super) bias: Option<Vec<f32>>,
    #[cfg(feature = "gpu")]
    pub(super) copy: super::on_gpu::Copy,
}

impl Change {
    pub(super) fn new(delta: Option<Delta>, factors: Option<(Axis, Vec<f32>)>, bias: Option<Vec<f32>>) -> Self {
        Self {
            delta,
            factors,
            bias,
            #[cfg(feature = "gpu")]
            copy: super::on_gpu::Copy::default(),
        }
    }
}

impl Adapter {
    /// Creates the change of a layer of the denoiser whose values are not in a file.
    pub(super) fn with_change(
        lora: usize,
        strengths: &Arc<Strengths>,
        layer: &str,
        [outputs, inputs]: [usize; 2],
        change: Change,
    ) -> Self {
        Self {
            lora,
            strengths: Arc::clone(strengths),
            fixed: None,
            settings: Arc::default(),
            part: PartKind::Denoiser,
            layer: layer.to_owned(),
            outputs,
            inputs,
            tensors: Weights::random(),
            rows: Vec::new(),
            attached: AtomicBool::new(false),
            change: OnceLock::from(change),
        }
    }

    /// Returns the values, after [`Adapter::attach`].
    pub(super) fn change(&self) -> Option<(f32, &Change)> {
        let strength = self.strengths.get(self.lora);
        self.change.get().filter(|_| strength != 0.0).map(|change| (strength, change))
    }

    /// Reads and keeps the values. `weight` is the layer's.
    pub(super) fn attach(&self, weight: &Values) -> Result<()> {
        if self.change.get().is_none() {
            // If two threads read the values, they are equal.
            drop(self.change.set(self.read(weight)?));
        }
        Ok(())
    }

    /// Returns whether the values have been read and kept.
    pub(super) fn is_read(&self) -> bool {
        self.change.get().is_some()
    }

    /// Returns the memory of the values, in bytes.
    pub(super) fn bytes(&self) -> u64 {
        let count = |role| self.shape(role).map_or(0, |shape| shape.iter().product::<usize>());
        let factor = |whole, a, b| match (self.shape(a), self.shape(b)) {
            (Some([rows, ..]), Some([rank, ..])) => rows * (count(b) / (*rank).max(1)),
            _ => count(whole),
        };
        let kronecker =
            factor(Role::Kron1, Role::Kron1A, Role::Kron1B) + factor(Role::Kron2, Role::Kron2A, Role::Kron2B);
        let has_bias = [Role::Bias, Role::UpBias].into_iter().any(|role| self.shape(role).is_some());
        let in_f32 = kronecker + count(Role::Magnitude) + if has_bias { self.outputs } else { 0 };
        let in_their_format = [Role::Down, Role::Up].map(|role| self.tensors.file_bytes(role.name()));
        4 * in_f32 as u64 + in_their_format.iter().sum::<u64>()
    }

    /// Reads the values. `weight` is the layer's.
    pub(super) fn read(&self, weight: &Values) -> Result<Change> {
        let tensor = |role| self.tensor(role);
        let alpha = tensor(Role::Alpha)?.and_then(|alpha| alpha.values().first().copied());
        let scale = |rank| self.settings.scale(self.part, &self.layer, rank, alpha);
        let delta = match (self.shape(Role::Down), self.shape(Role::Kron1).or(self.shape(Role::Kron1A))) {
            (Some(shape), _) => {
                let rank = shape.first().copied().unwrap_or(0);
                let [down, up] = [self.values(Role::Down)?, self.values(Role::Up)?];
                Some(Delta::LowRank(LowRank { down, up, rank, scale: scale(rank) }))
            }
            (None, Some(_)) => {
                let (left, left_rank) = self.factor(Role::Kron1, Role::Kron1A, Role::Kron1B)?;
                let (right, right_rank) = self.factor(Role::Kron2, Role::Kron2A, Role::Kron2B)?;
                let ([_, left_columns], [right_rows, right_columns]) = (left.dims()?, right.dims()?);
                Some(Delta::Kronecker(Kronecker {
                    left: left.into_values(),
                    left_columns,
                    right: right.into_values(),
                    right_rows,
                    right_columns,
                    rows: self.rows.clone(),
                    // LyCORIS ignores alpha if no factor has a rank.
                    scale: right_rank.or(left_rank).map_or(1.0, scale),
                }))
            }
            (None, None) => None,
        };
        let factors = match (tensor(Role::Magnitude)?, self.shape(Role::Magnitude)) {
            (Some(values), Some(shape)) => Axis::of(shape, self.outputs, self.inputs)
                .map(|axis| (axis, magnitude::factors(weight, delta.as_ref(), axis, values.values(), self.inputs))),
            _ => None,
        };
        let mut bias = tensor(Role::Bias)?.map(Tensor::into_values);
        if let (Some(up_bias), Some(shape)) = (tensor(Role::UpBias)?, self.shape(Role::Down)) {
            let scale = scale(shape.first().copied().unwrap_or(0));
            let sum = bias.get_or_insert_with(|| vec![0.0; self.outputs]);
            sum.iter_mut().zip(up_bias.values()).for_each(|(sum, bias)| *sum += scale * bias);
        }
        Ok(Change::new(delta, factors, bias))
    }

    pub(super) fn shape(&self, role: Role) -> Option<&[usize]> {
        self.tensors.shape(role.name())
    }

    fn values(&self, role: Role) -> Result<Values> {
        self.tensors.root().values(role.name(), self.shape(role).unwrap_or(&[]))
    }

    fn tensor(&self, role: Role) -> Result<Option<Tensor>> {
        self.shape(role).map(|shape| self.tensors.root().tensor(role.name(), shape)).transpose()
    }

    /// Returns a factor of a Kronecker product as a matrix, and its rank if the file has it as a product of two.
    fn factor(&self, whole: Role, a: Role, b: Role) -> Result<(Tensor, Option<usize>)> {
        let matrix = |tensor: Tensor| {
            let rows = tensor.shape().first().copied().unwrap_or(1);
            tensor.reshape(&[rows, tensor.len().checked_div(rows).unwrap_or(0)])
        };
        if let Some(tensor) = self.tensor(whole)? {
            return Ok((matrix(tensor)?, None));
        }
        let (Some(a), Some(b)) = (self.tensor(a)?, self.tensor(b)?) else {
            return Ok((Tensor::new(Vec::new(), &[0, 0])?, None));
        };
        let (a, b) = (matrix(a)?, matrix(b)?);
        let ([rows, rank], [_, columns]) = (a.dims()?, b.dims()?);
        let mut product = vec![0.0; rows * columns];
        let (a, b) =
            (Matrix::row_major(a.values(), rows, rank, rank), Matrix::row_major(b.values(), rank, columns, columns));
        matmul(&mut product, columns, Write::Replace, 1.0, a, b, Threads::One);
        Ok((Tensor::new(product, &[rows, columns])?, Some(rank)))
    }
}

/// The changes of one layer by all LoRAs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Adapters(pub(super) Arc<[Arc<Adapter>]>);

impl Adapters {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds an adapter of the same layer.
    pub(super) fn push(&mut self, adapter: Arc<Adapter>) {
        self.0 = self.0.iter().cloned().chain([adapter]).collect();
    }

    /// Notes that a layer of the model has the adapters, before its weight is read.
    pub(crate) fn announce(&self) {
        self.0.iter().for_each(|adapter| adapter.attached.store(true, Ordering::Relaxed));
    }

    /// Returns whether the current request changes the layer.
    pub(crate) fn are_active(&self) -> bool {
        self.0.iter().any(|adapter| adapter.change().is_some())
    }

    /// Computes the outputs of the adapted layer for `[tokens, in]`. `multiply` computes those of the layer itself.
    ///
    /// Each LoRA adds `strength * (adapted weight − weight)`, whatever the others do.
    pub(crate) fn forward(&self, x: Matrix<'_>, out: &mut [f32], multiply: impl Fn(Matrix<'_>, &mut [f32])) {
        let changes: Vec<_> = self.0.iter().filter_map(|adapter| adapter.change()).collect();
        let (by_row, by_column) = (sum_of_factors(&changes, Axis::Rows), sum_of_factors(&changes, Axis::Columns));
        let outputs = out.len().checked_div(x.rows).unwrap_or(0);
        let scaled = by_column.as_ref().map(|factors| {
            // Without factors of the rows, one product is enough.
            let own = if by_row.is_none() { 1.0 } else { 0.0 };
            scale_columns(x, |index| own + factors.get(index).copied().unwrap_or(0.0))
        });
        let scaled = scaled.as_ref().map(|scaled| Matrix { data: scaled, ..x });
        match (&by_row, scaled) {
            (None, None) => multiply(x, out),
            (None, Some(scaled)) => multiply(scaled, out),
            (Some(factors), scaled) => {
                multiply(x, out);
                for row in out.chunks_exact_mut(outputs.max(1)) {
                    row.iter_mut().zip(factors).for_each(|(value, factor)| *value += *value * factor);
                }
                if let Some(scaled) = scaled {
                    let mut product = vec![0.0; out.len()];
                    multiply(scaled, &mut product);
                    out.iter_mut().zip(product).for_each(|(out, value)| *out += value);
                }
            }
        }
        for (strength, change) in changes {
            let (by_row, by_column) = match &change.factors {
                Some((Axis::Rows, factors)) => (Some(factors.as_slice()), None),
                Some((Axis::Columns, factors)) => (None, Some(factors)),
                None => (None, None),
            };
            if let Some(delta) = &change.delta {
                let scaled =
                    by_column.map(|factors| scale_columns(x, |index| factors.get(index).copied().unwrap_or(1.0)));
                let x = scaled.as_ref().map_or(x, |scaled| Matrix { data: scaled, ..x });
                delta.add(strength, by_row, x, out, outputs);
            }
            if let Some(bias) = &change.bias {
                for row in out.chunks_exact_mut(outputs.max(1)) {
                    row.iter_mut().zip(bias).for_each(|(value, bias)| *value += strength * bias);
                }
            }
        }
    }
}

/// Returns the sum of `strength * (factor − 1)` of the changes with factors along an axis.
fn sum_of_factors(changes: &[(f32, &Change)], axis: Axis) -> Option<Vec<f32>> {
    let mut sum: Option<Vec<f32>> = None;
    for (strength, change) in changes {
        let Some((_, factors)) = change.factors.as_ref().filter(|(of, _)| *of == axis) else { continue };
        let sum = sum.get_or_insert_with(|| vec![0.0; factors.len()]);
        sum.iter_mut().zip(factors).for_each(|(sum, factor)| *sum += strength * (factor - 1.0));
    }
    sum
}

fn scale_columns(x: Matrix<'_>, factor: impl Fn(usize) -> f32) -> Vec<f32> {
    let factors: Vec<f32> = (0..x.cols).map(factor).collect();
    let rows = x.data.chunks_exact(x.cols.max(1));
    rows.flat_map(|row| row.iter().zip(&factors).map(|(value, factor)| value * factor)).collect()
}

#[cfg(test)]
mod tests {
    use half::f16;
    use lumenfall_kernels::Format;

    use super::*;
    use crate::layers::Linear;
    use crate::placement::{Placement, Target};
    use crate::sampling::Generator;

    const INPUTS: usize = 64;
    const OUTPUTS: usize = 40;

    fn normal(seed: u64, count: usize) -> Vec<f32> {
        Generator::new(seed).normal(count)
    }

    /// A Kronecker product with 10 rows a section. The rows of the layer begin and end within sections.
    fn kronecker(seed: u64) -> Delta {
        Delta::Kronecker(Kronecker {
            left: normal(seed, 8 * 4),
            left_columns: 4,
            right: normal(seed + 1, 10 * 16),
            right_rows: 10,
            right_columns: 16,
            rows: vec![45..68, 3..20],
            scale: 0.3,
        })
    }

    fn low_rank(seed: u64) -> Delta {
        let [down, up] = [normal(seed, 3 * INPUTS), normal(seed + 1, 3 * OUTPUTS)].map(Values::F32);
        Delta::LowRank(LowRank { down, up, rank: 3, scale: 0.2 })
    }

    fn weight() -> Values {
        let mut values = Values::with_capacity(Format::Q8_0, OUTPUTS * INPUTS);
        for (block, scale) in normal(1, OUTPUTS * INPUTS / 32).iter().enumerate() {
            values.extend_from_bytes(&f16::from_f32(scale / 64.0).to_le_bytes());
            values.extend_from_bytes(&(0..32).map(|index| (block * 37 + index * 11) as u8).collect::<Vec<_>>());
        }
        values
    }

    /// Adds `strength * (adapted weight − weight)` to `sum`, in f64 and without the code that is tested.
    fn add_difference(
        sum: &mut [f64],
        weight: &[f32],
        strength: f64,
        delta: &Delta,
        magnitude: Option<(Axis, &[f32])>,
    ) {
        let at = |row: usize, column: usize| match delta {
            Delta::LowRank(delta) => {
                let (up, down) = (delta.up.to_f32(), delta.down.to_f32());
                let product = (0..delta.rank)
                    .map(|rank| f64::from(up[row * delta.rank + rank]) * f64::from(down[rank * INPUTS + column]));
                product.sum::<f64>() * f64::from(delta.scale)
            }
            Delta::Kronecker(delta) => {
                let row = delta.rows.iter().cloned().flatten().nth(row).unwrap();
                let left = delta.left[row / 10 * 4 + column / 16];
                f64::from(left) * f64::from(delta.right[row % 10 * 16 + column % 16]) * f64::from(delta.scale)
            }
        };
        let cells = || (0..OUTPUTS).flat_map(|row| (0..INPUTS).map(move |column| (row, column)));
        let mut adapted: Vec<f64> =
            cells().map(|(row, column)| f64::from(weight[row * INPUTS + column]) + at(row, column)).collect();
        if let Some((axis, magnitude)) = magnitude {
            let index = |row: usize, column: usize| if axis == Axis::Rows { row } else { column };
            let mut norms = vec![0.0; magnitude.len()];
            cells().for_each(|(row, column)| norms[index(row, column)] += adapted[row * INPUTS + column].powi(2));
            for (row, column) in cells() {
                let index = index(row, column);
                adapted[row * INPUTS + column] *= f64::from(magnitude[index]) / norms[index].sqrt();
            }
        }
        for ((sum, adapted), weight) in sum.iter_mut().zip(adapted).zip(weight) {
            *sum += strength * (adapted - f64::from(*weight));
        }
    }

    #[test]
    fn changes_of_a_quantised_layer_equal_those_of_its_weight() {
        assert_changes(&Placement::default());
    }

    #[cfg(feature = "gpu")]
    #[test]
    fn changes_on_a_gpu_equal_those_of_the_weight() {
        assert_changes(&crate::gpu::tests::placement());
    }

    #[cfg(feature = "gpu")]
    fn is_in_memory(x: &Tensor) -> bool {
        x.gpu().is_none()
    }

    #[cfg(not(feature = "gpu"))]
    fn is_in_memory(_: &Tensor) -> bool {
        true
    }

    fn assert_changes(placement: &Placement) {
        let tolerance = 2e-4 * f64::from(crate::golden::leniency(placement));
        let weight = weight();
        let values = weight.to_f32().into_owned();
        let rows: Vec<f32> = normal(5, OUTPUTS).iter().map(|value| 3.0 + value).collect();
        let columns: Vec<f32> = normal(6, INPUTS).iter().map(|value| 3.0 + value).collect();
        let x = Tensor::new(normal(7, 9 * INPUTS), &[9, INPUTS]).unwrap();
        type Kind<'a> = (fn(u64) -> Delta, Option<(Axis, &'a [f32])>);
        let kinds: [Kind<'_>; 6] = [
            (low_rank, None),
            (kronecker, None),
            (low_rank, Some((Axis::Rows, &rows))),
            (kronecker, Some((Axis::Rows, &rows))),
            (low_rank, Some((Axis::Columns, &columns))),
            (kronecker, Some((Axis::Columns, &columns))),
        ];
        // Each kind alone, and all together.
        for chosen in (0..kinds.len()).map(|kind| vec![kind]).chain([(0..kinds.len()).collect()]) {
            let strengths = Arc::new(Strengths::new(kinds.len()));
            let mut adapters = Adapters::default();
            let mut sum: Vec<f64> = values.iter().map(|value| f64::from(*value)).collect();
            let mut requested = vec![0.0; kinds.len()];
            for kind in &chosen {
                let (delta, magnitude) = kinds[*kind];
                let delta = delta(10 + *kind as u64);
                let strength = [1.0, -0.5, 0.7][kind % 3];
                requested[*kind] = strength;
                add_difference(&mut sum, &values, f64::from(strength), &delta, magnitude);
                let factors = magnitude
                    .map(|(axis, norms)| (axis, magnitude::factors(&weight, Some(&delta), axis, norms, INPUTS)));
                let change = Change::new(Some(delta), factors, None);
                let adapter = Adapter::with_change(*kind, &strengths, "layer", [OUTPUTS, INPUTS], change);
                adapters.push(Arc::new(adapter));
            }
            let mut weights = Weights::random().on(placement);
            weights.adapters.insert("layer".into(), adapters);
            let scope = weights.root().at("layer");
            let layer = Linear::new(weight.clone(), INPUTS, OUTPUTS, None);
            let plain = layer.clone().moved_to(&scope).unwrap().forward(&x).unwrap().on_cpu().unwrap();
            let layer = layer.adapted(&scope).unwrap().moved_to(&scope).unwrap();
            assert_eq!(layer.forward(&x).unwrap().on_cpu().unwrap().values(), plain.values());
            strengths.set(requested.iter().copied());
            let actual = layer.forward(&x).unwrap();
            assert_eq!(matches!(placement.target(), Target::Cpu), is_in_memory(&actual));
            let actual = actual.on_cpu().unwrap();
            for (token, actual) in actual.values().chunks_exact(OUTPUTS).enumerate() {
                let x = &x.values()[token * INPUTS..(token + 1) * INPUTS];
                for (actual, row) in actual.iter().zip(sum.chunks_exact(INPUTS)) {
                    let expected: f64 = row.iter().zip(x).map(|(weight, x)| weight * f64::from(*x)).sum();
                    assert!((f64::from(*actual) - expected).abs() < tolerance, "{chosen:?}: {actual} {expected}");
                }
            }
        }
    }
}
