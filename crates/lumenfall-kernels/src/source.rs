//! The input of a convolution: an image that is normalized and enlarged while it is read.

use std::ops::Range;

use super::group_norm::Affine;

/// An image: rows of pixels of `channels` values.
#[derive(Clone, Copy)]
pub struct Image<'a> {
    /// The values of all rows, or of the first rows if the others are not read.
    pub values: &'a [f32],
    /// The number of rows.
    pub height: usize,
    /// The number of pixels of a row.
    pub width: usize,
    /// The number of values of a pixel.
    pub channels: usize,
}

/// An image and what happens to its pixels while they are read, so that no changed copy of the image is necessary.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    /// The image.
    pub image: Image<'a>,
    /// The normalization of each pixel.
    pub norm: Option<&'a Affine>,
    /// How often each pixel is repeated in each direction: 1, or 2 for an image of twice the size.
    pub repeat: usize,
}

impl<'a> Source<'a> {
    /// Creates a source that reads the image as it is.
    pub fn plain(image: Image<'a>) -> Self {
        Self { image, norm: None, repeat: 1 }
    }

    /// Returns the number of rows that are read.
    pub fn height(&self) -> usize {
        self.image.height * self.repeat
    }

    /// Returns the number of pixels of a row that are read.
    pub fn width(&self) -> usize {
        self.image.width * self.repeat
    }

    /// Copies a rectangle of the image with `padding` zero pixels at the top and at the left, and any number of them at
    /// the other sides. Rows and columns count from the first zero pixel.
    #[allow(clippy::indexing_slicing, reason = "rows and columns outside the image are excluded before they are read")]
    pub(super) fn copy(&self, rows: Range<usize>, columns: Range<usize>, padding: usize, out: &mut Vec<f32>) {
        let Image { values, width, channels, .. } = self.image;
        out.clear();
        out.resize(rows.len() * columns.len() * channels, 0.0);
        let image = columns.start.max(padding)..columns.end.min(padding + self.width());
        let skipped = (image.start - columns.start) * channels;
        vectorized!({
            for (row, out) in rows.clone().zip(out.chunks_exact_mut(columns.len() * channels)) {
                let Some(y) = row.checked_sub(padding).filter(|y| *y < self.height()) else { continue };
                let pixels = &values[y / self.repeat * width * channels..][..width * channels];
                for (column, out) in image.clone().zip(out[skipped..].chunks_exact_mut(channels)) {
                    let pixel = &pixels[(column - padding) / self.repeat * channels..][..channels];
                    match self.norm {
                        Some(norm) => norm.apply_to_pixel(pixel, out),
                        None => out.copy_from_slice(pixel),
                    }
                }
            }
        });
    }
}
