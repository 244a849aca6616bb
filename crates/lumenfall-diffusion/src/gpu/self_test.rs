//! The self-test of an adapter. It compares kernels with the CPU, and decides which ones are used: some drivers compute wrong
//! values with cooperative matrices, and others emulate them slowly.

mod layers;

use std::time::Instant;

use half::f16;
use lumenfall_kernels::{Format, Values};
use serde::{Deserialize, Serialize};

use super::cache::{self, Cache};
use super::device::Gpu;
use super::kernels::{self, Body};
use super::matrices::{self, Matrices};
use super::weight::GpuWeight;
use crate::error::Result;
use crate::layers::Mask;
use crate::sampling::Generator;
use crate::tensor::Tensor;

/// The result of the self-test.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Report {
    /// The cooperative matrices that matrix products use.
    pub(super) matrices: Option<Matrices>,
    /// The cooperative matrices that attention uses.
    pub(super) attention_matrices: Option<Matrices>,
    /// Why cooperative matrices are not used.
    pub(super) note: Option<String>,
}

/// An operation with two kernels: one in f32, and one with cooperative matrices.
struct Operation {
    name: &'static str,
    /// Compares a kernel with the CPU.
    is_right: fn(&Gpu, Option<Matrices>) -> Result<bool>,
    /// Runs a kernel on tensors of the size of the denoiser's.
    run: fn(&Gpu, Option<Matrices>) -> Result<Tensor>,
}

const PRODUCT: Operation = Operation { name: "matrix products", is_right: product_is_right, run: run_product };
const ATTENTION: Operation = Operation { name: "attention", is_right: attention_is_right, run: run_attention };

impl Report {
    /// Returns the result of an earlier process, or tests the GPU. `adapter` identifies the adapter and its driver.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device) if a kernel in f32 computes wrong values, or if a driver fails so that nothing can be
    /// computed any more.
    pub(super) fn of(
        gpu: &Gpu,
        adapter: &str,
        candidates: &std::result::Result<Vec<Matrices>, &'static str>,
        cache: &Cache,
    ) -> Result<Self> {
        let name = cache::name(&[env!("CARGO_PKG_VERSION"), adapter, &format!("{candidates:?}")]);
        let name = format!("self-test-{name}");
        if let Some(report) = cache.read(&name).and_then(|bytes| serde_json::from_slice(&bytes).ok()) {
            return Ok(report);
        }
        let write = |report: &Self| {
            if let Ok(bytes) = serde_json::to_vec(report) {
                cache.write(&name, &bytes);
            }
        };
        Self::check_f32(gpu)?;
        let report = match candidates {
            Err(reason) => Self::without_matrices(reason),
            Ok(candidates) => {
                // If the driver ends the program or loses the GPU now, the next start reads this report.
                write(&Self::without_matrices(matrices::FAILED));
                Self::of_matrices(gpu, candidates)?
            }
        };
        write(&report);
        Ok(report)
    }

    fn without_matrices(reason: &str) -> Self {
        Self { note: Some(reason.into()), ..Self::default() }
    }

    /// Checks the kernels in f32.
    fn check_f32(gpu: &Gpu) -> Result<()> {
        let mut wrong = layers::first_wrong(gpu)?;
        for operation in [PRODUCT, ATTENTION] {
            if !(operation.is_right)(gpu, None)? {
                wrong = Some(operation.name);
            }
        }
        let error = |name| gpu.error(format!("its driver computes wrong values in {name}; update the driver"));
        wrong.map_or(Ok(()), |name| Err(error(name)))
    }

    fn of_matrices(gpu: &Gpu, candidates: &[Matrices]) -> Result<Self> {
        let mut notes = Vec::new();
        let matrices = PRODUCT.choose(gpu, candidates, &mut notes);
        // The heads of the denoiser have 64 values.
        let fitting = candidates.iter().copied().filter(|matrices| matrices.fit_attention(64, &gpu.0.limits));
        let fitting: Vec<Matrices> = fitting.collect();
        if fitting.is_empty() {
            notes.push("the memory of a workgroup is too small for attention with cooperative matrices".into());
        }
        let attention_matrices = ATTENTION.choose(gpu, &fitting, &mut notes);
        gpu.trim()?;
        let note = (!notes.is_empty()).then(|| notes.join("; "));
        Ok(Self { matrices, attention_matrices, note })
    }
}

impl Operation {
    /// Returns the first matrices that are right and not slower than f32. If there are none, the reasons are added to `notes`.
    fn choose(&self, gpu: &Gpu, candidates: &[Matrices], notes: &mut Vec<String>) -> Option<Matrices> {
        let mut problems = Vec::new();
        for matrices in candidates {
            match self.problem(gpu, *matrices) {
                None => return Some(*matrices),
                Some(problem) => {
                    let side = matrices.side;
                    problems.push(format!("in {}, matrices of {side}x{side} {problem}", self.name));
                }
            }
        }
        notes.append(&mut problems);
        None
    }

    /// Returns the reason against matrices.
    fn problem(&self, gpu: &Gpu, matrices: Matrices) -> Option<String> {
        let times = || -> Result<[f64; 2]> {
            match gpu.0.is_software {
                // Nobody chooses a software driver for its speed.
                true => Ok([0.0; 2]),
                false => Ok([self.time(gpu, None)?, self.time(gpu, Some(matrices))?]),
            }
        };
        problem((self.is_right)(gpu, Some(matrices)), times)
    }

    /// Returns the seconds of one run.
    fn time(&self, gpu: &Gpu, matrices: Option<Matrices>) -> Result<f64> {
        const RUNS: u32 = 4;
        let measure = || -> Result<f64> {
            let start = Instant::now();
            for _ in 0..RUNS {
                (self.run)(gpu, matrices)?;
            }
            gpu.wait()?;
            Ok(start.elapsed().as_secs_f64() / f64::from(RUNS))
        };
        // The first measurement includes the compilation, and then the clock of the GPU rises.
        measure()?;
        let mut best = f64::INFINITY;
        for _ in 0..3 {
            best = best.min(measure()?);
        }
        Ok(best)
    }
}

/// Returns the reason against matrices. `times` measures the seconds in f32 and with matrices.
fn problem(is_right: Result<bool>, times: impl FnOnce() -> Result<[f64; 2]>) -> Option<String> {
    match is_right.and_then(|is_right| if is_right { times().map(Some) } else { Ok(None) }) {
        Ok(Some([full, fast])) if fast <= full => None,
        Ok(Some([full, fast])) => {
            Some(format!("are slower than f32: {:.2} ms instead of {:.2} ms", fast * 1e3, full * 1e3))
        }
        Ok(None) => Some("compute wrong values".into()),
        Err(error) => Some(format!("fail: {error}")),
    }
}

/// The sizes are not multiples of a tile, and a row exceeds the range of f16.
fn product_is_right(gpu: &Gpu, matrices: Option<Matrices>) -> Result<bool> {
    let (rows, inputs, outputs) = (70, 72, 130);
    let scale = |row: usize| if row == 1 { 1e6 } else { 1.0 };
    let seed = seed(matrices);
    let x = Generator::new(seed).normal(rows * inputs);
    let x: Vec<f32> = x.iter().enumerate().map(|(index, value)| value * scale(index / inputs)).collect();
    let weight: Vec<f16> = Generator::new(seed + 1).normal(outputs * inputs).into_iter().map(f16::from_f32).collect();
    let bytes = weight.iter().flat_map(|value| value.to_le_bytes()).collect();
    let on_gpu = GpuWeight::new(gpu, &Values::Encoded(Format::F16, bytes), inputs)?;
    let x = Tensor::new(x, &[rows, inputs])?;
    let actual = kernels::linear_with(gpu, body(matrices), &x, &on_gpu, outputs, None, None)?.on_cpu()?;
    let expected = x.values().chunks(inputs).flat_map(|row| {
        weight
            .chunks(inputs)
            .map(move |column| row.iter().zip(column).map(|(a, b)| f64::from(*a) * b.to_f64()).sum::<f64>())
    });
    // The standard deviation of a sum of products of normal values is the square root of their number.
    let deviation = (inputs as f64).sqrt();
    let tolerance = if matrices.is_some() { 4e-3 } else { 1e-5 };
    let errors = actual.values().iter().zip(expected).enumerate().map(|(index, (actual, expected))| {
        (f64::from(*actual) - expected).abs() / (deviation * f64::from(scale(index / outputs)))
    });
    Ok(actual.values().len() == rows * outputs && { errors }.all(|error| error <= tolerance))
}

fn run_product(gpu: &Gpu, matrices: Option<Matrices>) -> Result<Tensor> {
    let (tokens, width) = (512, 1536);
    let x = Tensor::on_gpu(gpu.buffer(tokens * width)?, &[tokens, width])?;
    let buffer = gpu.buffer(width * width / 2)?.buffer;
    let weight = GpuWeight { format: Format::F16, buffer, factors: None, fits_f16: true };
    kernels::linear_with(gpu, body(matrices), &x, &weight, width, None, None)
}

/// Returns other random numbers for each kernel: a buffer that is used again may contain the values that another kernel has written, so
/// that values which a kernel does not write would seem right.
fn seed(matrices: Option<Matrices>) -> u64 {
    matrices.map_or(0, |matrices| u64::from(10_000 * matrices.side + 10 * matrices.subgroup))
}

fn body(matrices: Option<Matrices>) -> Body {
    matrices.map_or(Body::Tiled, Body::Matrices)
}

/// The number of tokens is not a multiple of a tile.
fn attention_is_right(gpu: &Gpu, matrices: Option<Matrices>) -> Result<bool> {
    let (tokens, head, scale) = (70, 64, 0.125);
    let [q, k, v] = [2, 3, 4].map(|index| Generator::new(seed(matrices) + index).normal(tokens * head));
    let rows = |values: &[f32]| -> Vec<Vec<f64>> {
        values.chunks(head).map(|row| row.iter().map(|value| f64::from(*value)).collect()).collect()
    };
    let (queries, keys, values) = (rows(&q), rows(&k), rows(&v));
    let expected = queries.iter().flat_map(|query| {
        let score = |key: &Vec<f64>| (scale * query.iter().zip(key).map(|(a, b)| a * b).sum::<f64>()).exp();
        let weights: Vec<f64> = keys.iter().map(score).collect();
        let total: f64 = weights.iter().sum();
        let mut sums = vec![0.0; head];
        for (weight, value) in weights.iter().zip(&values) {
            sums.iter_mut().zip(value).for_each(|(sum, value)| *sum += weight / total * value);
        }
        sums
    });
    let expected: Vec<f64> = expected.collect();
    let [q, k, v] = [q, k, v].map(|values| Tensor::new(values, &[tokens, head]));
    let actual = attend(gpu, matrices, [&q?, &k?, &v?], 1, scale as f32)?.on_cpu()?;
    let tolerance = if matrices.is_some() { 4e-3 } else { 1e-5 };
    let mut pairs = actual.values().iter().zip(&expected);
    Ok(actual.values().len() == expected.len() && pairs.all(|(a, b)| (f64::from(*a) - b).abs() <= tolerance))
}

fn run_attention(gpu: &Gpu, matrices: Option<Matrices>) -> Result<Tensor> {
    let (tokens, heads) = (1024, 24);
    let width = heads * 64;
    let x = Tensor::on_gpu(gpu.buffer(tokens * width)?, &[tokens, width])?;
    attend(gpu, matrices, [&x, &x, &x], heads, 0.125)
}

fn attend(gpu: &Gpu, matrices: Option<Matrices>, inputs: [&Tensor; 3], heads: usize, scale: f32) -> Result<Tensor> {
    match matrices {
        None => kernels::attention(&gpu.with_full_precision(), inputs, heads, scale, Mask::None),
        Some(matrices) => kernels::attention_with_matrices(gpu, matrices, inputs, heads, scale),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn matrices_that_are_wrong_slow_or_rejected_are_not_used() {
        let problem = |is_right, times| problem(is_right, || Ok(times)).unwrap_or_default();
        assert_eq!(problem(Ok(true), [2e-3, 1e-3]), "");
        assert_eq!(problem(Ok(true), [1e-3, 2e-3]), "are slower than f32: 2.00 ms instead of 1.00 ms");
        assert_eq!(problem(Ok(false), [2e-3, 1e-3]), "compute wrong values");
        let rejected = problem(Err(Error::Device("its driver rejects the kernel".into())), [2e-3, 1e-3]);
        assert!(rejected.contains("fail: ") && rejected.contains("rejects the kernel"), "{rejected}");
    }
}
