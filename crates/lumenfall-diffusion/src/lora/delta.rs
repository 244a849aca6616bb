//! Differences of weights: low-rank products and Kronecker products.

use std::ops::Range;

use lumenfall_kernels::{Matrix, Threads, Values, Write, matmul};
use rayon::prelude::*;

/// The difference of a layer's weight, `[out, in]`, without its strength.
#[derive(Debug)]
pub(super) enum Delta {
    /// `scale * up · down`
    LowRank(LowRank),
    /// `scale * kron(left, right)`
    Kronecker(Kronecker),
}

#[derive(Debug)]
pub(super) struct LowRank {
    /// `[rank, in]`
    pub(super) down: Values,
    /// `[out, rank]`
    pub(super) up: Values,
    pub(super) rank: usize,
    pub(super) scale: f32,
}

/// Rows of a Kronecker product.
#[derive(Debug)]
pub(super) struct Kronecker {
    /// `[left rows, left columns]`
    pub(super) left: Vec<f32>,
    pub(super) left_columns: usize,
    /// `[right rows, right columns]`
    pub(super) right: Vec<f32>,
    pub(super) right_rows: usize,
    pub(super) right_columns: usize,
    /// The rows of the product that belong to the layer, in the order of its outputs.
    pub(super) rows: Vec<Range<usize>>,
    pub(super) scale: f32,
}

impl Delta {
    /// Computes `out += strength * factors ∘ (x · deltaᵀ)` for `[tokens, in]` and `[tokens, out]`.
    ///
    /// `factors` has a value for each output.
    pub(super) fn add(&self, strength: f32, factors: Option<&[f32]>, x: Matrix<'_>, out: &mut [f32], outputs: usize) {
        match self {
            Self::LowRank(delta) => delta.add(strength, factors, x, out, outputs),
            Self::Kronecker(delta) => delta.add(strength, factors, x, out, outputs),
        }
    }

    /// Adds the rows of the difference from `first` to `panel`, which contains whole rows of the weight.
    pub(super) fn add_to_weight(&self, first: usize, panel: &mut [f32], inputs: usize) {
        match self {
            Self::LowRank(delta) => delta.add_to_weight(first, panel, inputs),
            Self::Kronecker(delta) => delta.add_to_weight(first, panel, inputs),
        }
    }
}

impl LowRank {
    fn add(&self, strength: f32, factors: Option<&[f32]>, x: Matrix<'_>, out: &mut [f32], outputs: usize) {
        let Self { down, up, rank, scale } = self;
        let down = down.to_f32();
        let mut hidden = vec![0.0; x.rows * rank];
        let down = Matrix::row_major(&down, *rank, x.cols, x.cols).transposed();
        matmul(&mut hidden, *rank, Write::Replace, 1.0, x, down, Threads::All);
        let mut up = up.to_f32();
        if let Some(factors) = factors {
            let rows = up.to_mut().chunks_exact_mut(*rank).zip(factors);
            rows.for_each(|(row, factor)| row.iter_mut().for_each(|value| *value *= factor));
        }
        let hidden = Matrix::row_major(&hidden, x.rows, *rank, *rank);
        let up = Matrix::row_major(&up, outputs, *rank, *rank).transposed();
        matmul(out, outputs, Write::Add, strength * scale, hidden, up, Threads::All);
    }

    fn add_to_weight(&self, first: usize, panel: &mut [f32], inputs: usize) {
        let Self { down, up, rank, scale } = self;
        let (down, up) = (down.to_f32(), up.to_f32());
        let rows = panel.len().checked_div(inputs).unwrap_or(0);
        let Some(up) = up.get(first * rank..(first + rows) * rank) else { return };
        let (up, down) = (Matrix::row_major(up, rows, *rank, *rank), Matrix::row_major(&down, *rank, inputs, inputs));
        matmul(panel, inputs, Write::Add, *scale, up, down, Threads::One);
    }
}

impl Kronecker {
    fn add(&self, strength: f32, factors: Option<&[f32]>, x: Matrix<'_>, out: &mut [f32], outputs: usize) {
        let Self { left, left_columns, right, right_rows, right_columns, rows, scale } = self;
        // Row `(i, k)` of the product is the sum over j and l of left[i, j] * right[k, l] * x[j, l].
        let sections = x.rows * left_columns;
        let mut hidden = vec![0.0; sections * right_rows];
        let x = Matrix::row_major(x.data, sections, *right_columns, *right_columns);
        let right = Matrix::row_major(right, *right_rows, *right_columns, *right_columns).transposed();
        matmul(&mut hidden, *right_rows, Write::Replace, strength * scale, x, right, Threads::All);
        let tokens = hidden.par_chunks_exact(left_columns * right_rows).zip(out.par_chunks_exact_mut(outputs));
        tokens.for_each(|(hidden, out)| {
            let mut sum = vec![0.0; *right_rows];
            let mut rest = out;
            let mut factors = factors.into_iter().flatten().copied().chain(std::iter::repeat(1.0));
            for part in rows.iter().flat_map(|rows| sections_of(rows, *right_rows)) {
                sum.fill(0.0);
                let left = left.chunks_exact(*left_columns).nth(part.section).unwrap_or(&[]);
                for (hidden, left) in hidden.chunks_exact(*right_rows).zip(left) {
                    sum.iter_mut().zip(hidden).for_each(|(sum, hidden)| *sum += left * hidden);
                }
                let sum = sum.get(part.range.clone()).unwrap_or(&[]);
                let (target, remaining) = rest.split_at_mut(sum.len().min(rest.len()));
                let target = target.iter_mut().zip(sum).zip(&mut factors);
                target.for_each(|((out, sum), factor)| *out += factor * sum);
                rest = remaining;
            }
        });
    }

    fn add_to_weight(&self, first: usize, panel: &mut [f32], inputs: usize) {
        let Self { left, left_columns, right, right_rows, right_columns, rows, scale } = self;
        let rows = rows.iter().cloned().flatten().skip(first);
        for (panel, row) in panel.chunks_exact_mut(inputs).zip(rows) {
            let left = left.chunks_exact(*left_columns).nth(row / right_rows).unwrap_or(&[]);
            let right = right.chunks_exact(*right_columns).nth(row % right_rows).unwrap_or(&[]);
            for (panel, left) in panel.chunks_exact_mut(*right_columns).zip(left) {
                panel.iter_mut().zip(right).for_each(|(panel, right)| *panel += scale * left * right);
            }
        }
    }
}

/// Consecutive rows with the same row of the left factor.
struct Section {
    section: usize,
    /// The rows of the right factor.
    range: Range<usize>,
}

fn sections_of(rows: &Range<usize>, right_rows: usize) -> impl Iterator<Item = Section> + use<> {
    let Range { start, end } = *rows;
    (start / right_rows..end.div_ceil(right_rows)).map(move |section| {
        let first = section * right_rows;
        Section { section, range: start.max(first) - first..end.min(first + right_rows) - first }
    })
}
