//! A safe interface to the matrix product of the `gemm` crate.
#![allow(
    unsafe_code,
    reason = "the gemm crate takes raw pointers; the functions check that every access is within the slices"
)]

use std::cell::RefCell;

use gemm::Parallelism;
use rayon::prelude::*;

/// A matrix in a slice. Its rows may overlap, like the windows of a convolution.
#[derive(Clone, Copy)]
pub struct Matrix<'a> {
    /// The values, of which the first is that of the first row and column.
    pub data: &'a [f32],
    /// The number of rows.
    pub rows: usize,
    /// The number of columns.
    pub cols: usize,
    /// The distance of neighbouring rows, in values.
    pub row_stride: usize,
    /// The distance of neighbouring columns, in values.
    pub col_stride: usize,
}

impl<'a> Matrix<'a> {
    /// Creates a matrix whose rows start `row_stride` values apart.
    pub fn row_major(data: &'a [f32], rows: usize, cols: usize, row_stride: usize) -> Self {
        Self { data, rows, cols, row_stride, col_stride: 1 }
    }

    /// Exchanges rows and columns.
    pub fn transposed(self) -> Self {
        Self { rows: self.cols, cols: self.rows, row_stride: self.col_stride, col_stride: self.row_stride, ..self }
    }

    fn check(&self) {
        if self.rows > 0 && self.cols > 0 {
            let last = (self.rows - 1) * self.row_stride + (self.cols - 1) * self.col_stride;
            assert!(last < self.data.len(), "a matrix exceeds its slice");
        }
    }
}

/// The threads that compute a product.
#[derive(Clone, Copy)]
pub enum Threads {
    /// All threads of the current pool.
    All,
    /// The calling thread.
    One,
}

/// Whether a product replaces the output or is added to it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Write {
    /// The product replaces the output.
    Replace,
    /// The product is added to the output.
    Add,
}

/// Computes `out = scale * a·b` or `out += scale * a·b`. The rows of `out` start `out_stride` values apart.
pub fn matmul(
    out: &mut [f32],
    out_stride: usize,
    write: Write,
    scale: f32,
    a: Matrix<'_>,
    b: Matrix<'_>,
    threads: Threads,
) {
    assert_eq!(a.cols, b.rows, "the inner dimensions of a product differ");
    if a.rows == 0 || b.cols == 0 {
        return;
    }
    a.check();
    b.check();
    assert!(
        out_stride >= b.cols && (a.rows - 1) * out_stride + b.cols <= out.len(),
        "a product does not fit into its output"
    );
    // SAFETY: the checks above guarantee that every access is within the three slices. `out` is borrowed mutably, so it
    // does not overlap the inputs.
    unsafe { product(out.as_mut_ptr(), out_stride, write, scale, a, b, threads) };
}

/// Computes a product whose accesses have been checked.
///
/// # Safety
/// The matrices must be within their slices, and no other access to the rows and columns of the output may happen.
unsafe fn product(
    out: *mut f32,
    out_stride: usize,
    write: Write,
    scale: f32,
    a: Matrix<'_>,
    b: Matrix<'_>,
    threads: Threads,
) {
    let parallelism = match threads {
        Threads::All => Parallelism::Rayon(0),
        Threads::One => Parallelism::None,
    };
    // SAFETY: the caller guarantees it. Slices have at most isize::MAX bytes, so the strides fit into isize.
    unsafe {
        gemm::gemm(
            a.rows,
            b.cols,
            a.cols,
            out,
            1,
            out_stride as isize,
            write == Write::Add,
            a.data.as_ptr(),
            a.col_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.col_stride as isize,
            b.row_stride as isize,
            1.0,
            scale,
            false,
            false,
            false,
            parallelism,
        );
    }
}

thread_local! {
    /// The memory of a thread for a part of a matrix.
    static PART: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Returns the first values of a buffer, which grows if it is shorter.
pub(super) fn first_values<T: Copy + Default>(buffer: &mut Vec<T>, count: usize) -> &mut [T] {
    if buffer.len() < count {
        buffer.resize(count, T::default());
    }
    buffer.split_at_mut(count).0
}

/// Computes `out = a·b` on all threads, with parts of `b` that are computed when they are needed.
///
/// `out` and `b` have `columns` columns. `fill(row, column, part)` writes the values of a part of `b`, which begins at a row and a
/// column, has `width` columns (the last parts have fewer), and at most `height` rows. A part of a few hundred kilobytes stays
/// in the cache of the processor until it is multiplied. A thread computes the parts of the same columns in order.
pub(super) fn matmul_in_parts(
    out: &mut [f32],
    columns: usize,
    a: Matrix<'_>,
    (height, width): (usize, usize),
    fill: impl Fn(usize, usize, &mut [f32]) + Sync,
) {
    /// The start of the output.
    struct Output(*mut f32);
    // SAFETY: tasks write to different columns.
    unsafe impl Sync for Output {}
    impl Output {
        fn at(&self, column: usize) -> *mut f32 {
            self.0.wrapping_add(column)
        }
    }

    if a.rows == 0 || a.cols == 0 {
        return out.fill(0.0);
    }
    a.check();
    assert!(a.rows * columns <= out.len(), "a product does not fit into its output");
    let out = Output(out.as_mut_ptr());
    let tasks = (0..columns.div_ceil(width)).into_par_iter().with_max_len(1);
    let compute = |task, buffer: &mut Vec<f32>| {
        let first = task * width;
        let width = width.min(columns - first);
        for row in (0..a.cols).step_by(height) {
            let height = height.min(a.cols - row);
            let values = first_values(buffer, height * width);
            fill(row, first, values);
            let part = Matrix::row_major(values, height, width, width);
            let a = Matrix { data: a.data.get(row * a.col_stride..).unwrap_or(&[]), cols: height, ..a };
            let write = if row == 0 { Write::Replace } else { Write::Add };
            // SAFETY: the checks above include all rows and columns of `a` and of the output, whose columns from `first` to
            // `first + width` no other task writes to. `values` has the rows and columns of the part.
            unsafe { product(out.at(first), columns, write, 1.0, a, part, Threads::One) };
        }
    };
    tasks.for_each(|task| PART.with_borrow_mut(|buffer| compute(task, buffer)));
}
