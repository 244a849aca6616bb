//! A safe interface to the matrix product of the `gemm` crate.
#![allow(
    unsafe_code,
    reason = "the gemm crate takes raw pointers; `matmul` checks that every access is within the slices"
)]

use gemm::Parallelism;

/// A matrix in a slice. Its rows may overlap, like the windows of a convolution.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    pub(crate) data: &'a [f32],
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) row_stride: usize,
    pub(crate) col_stride: usize,
}

impl<'a> Matrix<'a> {
    /// Creates a matrix whose rows start `row_stride` values apart.
    pub(crate) fn row_major(data: &'a [f32], rows: usize, cols: usize, row_stride: usize) -> Self {
        Self { data, rows, cols, row_stride, col_stride: 1 }
    }

    pub(crate) fn transposed(self) -> Self {
        Self { rows: self.cols, cols: self.rows, row_stride: self.col_stride, col_stride: self.row_stride, ..self }
    }

    fn check(&self) {
        if self.rows > 0 && self.cols > 0 {
            let last = (self.rows - 1) * self.row_stride + (self.cols - 1) * self.col_stride;
            assert!(last < self.data.len(), "a matrix exceeds its slice");
        }
    }
}

/// The threads that compute a product: all threads of the current pool, or the calling thread.
#[derive(Clone, Copy)]
pub(crate) enum Threads {
    All,
    One,
}

/// Whether a product replaces the output or is added to it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Write {
    Replace,
    Add,
}

/// Computes `out = scale * a·b` or `out += scale * a·b`. The rows of `out` start `out_stride` values apart.
pub(crate) fn matmul(
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
    let parallelism = match threads {
        Threads::All => Parallelism::Rayon(0),
        Threads::One => Parallelism::None,
    };
    // SAFETY: the checks above guarantee that every access is within the three slices. `out` is borrowed mutably, so it
    // does not overlap the inputs. Slices have at most isize::MAX bytes, so the strides fit into isize.
    unsafe {
        gemm::gemm(
            a.rows,
            b.cols,
            a.cols,
            out.as_mut_ptr(),
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
