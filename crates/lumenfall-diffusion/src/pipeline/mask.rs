//! Masks, which mark the part of an image to redraw.

use std::fmt;

use crate::error::{Error, Result};
use crate::image::RgbImage;

/// The part of an image to redraw: where the mask is transparent.
#[derive(Clone, PartialEq, Eq)]
pub struct Mask {
    width: u32,
    height: u32,
    /// From 0, transparent, to 255, opaque.
    alpha: Vec<u8>,
}

impl fmt::Debug for Mask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mask({}x{})", self.width, self.height)
    }
}

impl Mask {
    /// Creates a mask from `width * height` values of alpha: 0 is redrawn, 255 is kept, and values in between are blended.
    ///
    /// # Errors
    /// [`Error::Parameter`] if `alpha` has another length, or no value below 255.
    pub fn new(width: u32, height: u32, alpha: Vec<u8>) -> Result<Self> {
        if alpha.len() as u128 != u128::from(width) * u128::from(height) {
            let reason = format!("has {} values; {width}x{height} pixels were expected", alpha.len());
            return Err(Error::parameter("mask", reason));
        }
        if alpha.iter().all(|alpha| *alpha == u8::MAX) {
            return Err(opaque());
        }
        Ok(Self { width, height, alpha })
    }

    /// Reads the alpha channel of an image file.
    ///
    /// # Errors
    /// [`Error::Parameter`] if the file cannot be decoded or has no transparent pixel.
    pub fn decode(file: &[u8]) -> Result<Self> {
        let (image, alpha) = RgbImage::decode_with_alpha(file)
            .map_err(|error| Error::parameter("mask", format!("is not an image: {error}")))?;
        Self::new(image.width(), image.height(), alpha.ok_or_else(opaque)?)
    }

    /// Checks that the mask has the size of an image.
    pub(crate) fn check(&self, source: &RgbImage) -> Result<()> {
        let (width, height) = (source.width(), source.height());
        if (self.width, self.height) == (width, height) {
            return Ok(());
        }
        let reason = format!(
            "has {}x{} pixels, but the image has {width}x{height}; provide a mask of the image's size",
            self.width, self.height
        );
        Err(Error::parameter("mask", reason))
    }

    /// Returns how much each cell of a grid is drawn, from 0 to 1: as much as the most transparent pixel that it contains a part
    /// of. A thin line of the mask is therefore kept.
    pub(crate) fn drawn(&self, columns: usize, rows: usize) -> Vec<f32> {
        let (width, height) = (self.width as usize, self.height as usize);
        let range = |index: usize, count: usize, size: usize| {
            let (start, end) = (index * size / count.max(1), ((index + 1) * size).div_ceil(count.max(1)));
            (start, end.max(start + 1) - start)
        };
        let cell = |index: usize| {
            let ((x, across), (y, down)) =
                (range(index % columns, columns, width), range(index / columns, rows, height));
            let lines = self.alpha.chunks(width).skip(y).take(down);
            let least = lines.flat_map(|line| line.iter().skip(x).take(across)).min().copied().unwrap_or(u8::MAX);
            f32::from(u8::MAX - least) / 255.0
        };
        (0..columns * rows).map(cell).collect()
    }

    /// Returns `source` with the pixels of `drawn` where the mask is transparent. Both have the mask's size.
    pub(crate) fn composite(&self, source: &RgbImage, drawn: &RgbImage) -> Result<RgbImage> {
        let pairs = source.pixels().iter().zip(drawn.pixels());
        let alpha = self.alpha.iter().flat_map(|alpha| [u32::from(*alpha); 3]);
        let blend = |((source, drawn), alpha): ((&u8, &u8), u32)| {
            ((u32::from(*source) * alpha + u32::from(*drawn) * (255 - alpha) + 127) / 255) as u8
        };
        RgbImage::new(self.width, self.height, pairs.zip(alpha).map(blend).collect())
    }
}

fn opaque() -> Error {
    Error::parameter(
        "mask",
        "has no transparent pixel, so nothing would be drawn; make the area to redraw transparent (alpha 0)",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(width: u32, height: u32, transparent: &[(u32, u32, u8)]) -> Mask {
        let mut alpha = vec![255; (width * height) as usize];
        for (x, y, value) in transparent {
            alpha[(y * width + x) as usize] = *value;
        }
        Mask::new(width, height, alpha).unwrap()
    }

    #[test]
    fn one_transparent_pixel_marks_every_cell_that_it_touches() {
        let drawn = mask(32, 16, &[(9, 15, 0)]).drawn(4, 2);
        assert_eq!(drawn, [0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0]);
        // 3 pixels become 2 cells: the pixel in the middle belongs to both.
        assert_eq!(mask(3, 1, &[(1, 0, 51)]).drawn(2, 1), [0.8, 0.8]);
        assert_eq!(mask(2, 1, &[(1, 0, 0)]).drawn(4, 1), [0.0, 0.0, 1.0, 1.0]);
    }

    #[test]
    fn opaque_pixels_equal_the_source_and_others_are_blended() {
        let source = RgbImage::new(3, 1, vec![10, 20, 30, 40, 50, 60, 70, 80, 90]).unwrap();
        let drawn = RgbImage::new(3, 1, vec![200; 9]).unwrap();
        let result = mask(3, 1, &[(1, 0, 0), (2, 0, 128)]).composite(&source, &drawn).unwrap();
        assert_eq!(result.pixels(), [10, 20, 30, 200, 200, 200, 135, 140, 145]);
    }

    #[test]
    fn masks_that_draw_nothing_or_do_not_fit_are_errors() {
        let source = RgbImage::new(4, 2, vec![0; 24]).unwrap();
        let opaque = source.encode(crate::FileFormat::Png).unwrap();
        for (error, text) in [
            (Mask::new(2, 2, vec![255; 4]).unwrap_err(), "no transparent pixel"),
            (Mask::decode(&opaque).unwrap_err(), "no transparent pixel"),
            (Mask::new(2, 2, vec![0; 3]).unwrap_err(), "3 values"),
            (Mask::decode(b"text").unwrap_err(), "is not an image"),
            (mask(2, 4, &[(0, 0, 0)]).check(&source).unwrap_err(), "has 2x4 pixels, but the image has 4x2"),
        ] {
            assert!(matches!(error, Error::Parameter { parameter: "mask", .. }), "{error}");
            assert!(error.to_string().contains(text), "{error}");
        }
    }
}
