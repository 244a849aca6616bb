//! The one door to the matrix product.
#![allow(
    unsafe_code,
    reason = "the gemm crate takes raw pointers; every call checks here that all that it reads and writes lies inside the slices"
)]

use gemm::Parallelism;

/// A matrix inside a slice. Rows may overlap, as the windows of a convolution do.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a> {
    pub(super) data: &'a [f32],
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) row_stride: usize,
    pub(super) col_stride: usize,
}

impl<'a> Matrix<'a> {
    /// Row after row, `row_stride` values from one to the next.
    pub(super) fn row_major(data: &'a [f32], rows: usize, cols: usize, row_stride: usize) -> Self {
        Self { data, rows, cols, row_stride, col_stride: 1 }
    }

    pub(super) fn transposed(self) -> Self {
        Self { rows: self.cols, cols: self.rows, row_stride: self.col_stride, col_stride: self.row_stride, ..self }
    }

    fn check(&self) {
        if self.rows > 0 && self.cols > 0 {
            let last = (self.rows - 1) * self.row_stride + (self.cols - 1) * self.col_stride;
            assert!(last < self.data.len(), "a matrix reaches beyond its slice");
        }
    }
}

/// Whether a product may use all threads of the current pool or just the caller's.
#[derive(Clone, Copy)]
pub(super) enum Threads {
    All,
    One,
}

/// Whether a product replaces what the output held or is added to it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Write {
    Replace,
    Add,
}

/// `out = scale · a·b`, or `out += …`, where the rows of `out` lie `out_stride` values apart.
pub(super) fn matmul(
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
        "a product does not fit its output"
    );
    let parallelism = match threads {
        Threads::All => Parallelism::Rayon(0),
        Threads::One => Parallelism::None,
    };
    // SAFETY: the checks above hold every index that the product reads or writes inside the three
    // slices, `out` is borrowed mutably and so overlaps neither input, and slices of f32 stay below
    // isize::MAX bytes, so the strides fit isize.
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
