//! Previews: the images of a tiny decoder, or a linear projection of latents to colours, which is fitted to the loaded autoencoder.

use std::sync::Arc;

use lumenfall_kernels::{Matrix, Threads, Write, matmul};

use crate::error::{Error, Result};
use crate::image::RgbImage;
use crate::models::{TinyDecoder, Vae};
use crate::tensor::Tensor;

/// The side of the images to which the projection is fitted, in pixels.
pub(super) const SIDE: u32 = 64;

/// The values of red, green and blue in these images.
const LEVELS: [f32; 3] = [-0.8, 0.0, 0.8];

/// The weight of a penalty on large coefficients, per sample. It keeps channels without an effect near 0.
const RIDGE: f64 = 1e-3;

/// What draws the previews of a request.
#[derive(Debug)]
pub(crate) enum Previewer<'a> {
    Projection(Arc<Projection>),
    Decoder(&'a TinyDecoder),
}

impl Previewer<'_> {
    /// Returns the image of a latent `[channels, height, width]`.
    pub(crate) fn image(
        &self,
        latent: &[f32],
        shape: [usize; 3],
        check_cancelled: &dyn Fn() -> Result<()>,
    ) -> Result<RgbImage> {
        match self {
            Self::Projection(projection) => projection.image(latent, shape),
            Self::Decoder(decoder) => {
                RgbImage::from_tensor(&decoder.decode(&Tensor::new(latent.to_vec(), &shape)?, check_cancelled)?)
            }
        }
    }
}

/// A linear projection from the channels of a latent to red, green and blue.
#[derive(Debug)]
pub(crate) struct Projection {
    /// The coefficients of each channel, and at last the constant.
    coefficients: Vec<[f32; 3]>,
}

impl Projection {
    /// Fits the projection to the latents of images of one colour each.
    ///
    /// They are better samples than random latents, which differ too much from those that the decoder was trained with.
    pub(crate) fn fit(vae: &Vae, check_cancelled: &dyn Fn() -> Result<()>) -> Result<Self> {
        let side = SIDE as usize;
        let mut equations = Equations::new(vae.config().latent_channels + 1);
        let level = |color: usize, digit: usize| LEVELS.get(color / digit % LEVELS.len()).copied().unwrap_or(0.0);
        let colors = || (0..LEVELS.len().pow(3)).map(|color| [1, 3, 9].map(|digit| level(color, digit)));
        let images = colors().map(|color| Tensor::new(color.repeat(side * side), &[side, side, 3]));
        for (color, posterior) in colors().zip(vae.encode_all(images, check_cancelled)?) {
            let latent = vae.normalize(posterior.mean);
            let [_, height, width] = latent.dims()?;
            for cell in 0..height * width {
                let channels = latent.values().iter().skip(cell).step_by(height * width);
                let inputs: Vec<f64> = channels.map(|value| f64::from(*value)).chain([1.0]).collect();
                equations.add(&inputs, color.map(f64::from));
            }
        }
        Ok(Self { coefficients: equations.solve() })
    }

    /// Returns the image of a latent `[channels, height, width]`, with a pixel for each of its cells.
    fn image(&self, latent: &[f32], [_, height, width]: [usize; 3]) -> Result<RgbImage> {
        let cells = height * width;
        let Some((constant, coefficients)) = self.coefficients.split_last() else {
            return Err(Error::Compute("the preview has no channels".into()));
        };
        let channels = coefficients.len();
        if latent.len() != channels * cells {
            return Err(Error::Compute(format!("a preview of {channels} channels received {} values", latent.len())));
        }
        let mut colors = vec![*constant; cells].into_flattened();
        let latent = Matrix::row_major(latent, channels, cells, cells).transposed();
        let coefficients = Matrix::row_major(coefficients.as_flattened(), channels, 3, 3);
        matmul(&mut colors, 3, Write::Add, 1.0, latent, coefficients, Threads::One);
        RgbImage::from_tensor(&Tensor::new(colors, &[height, width, 3])?)
    }
}

/// The normal equations of a least-squares fit with three outputs.
struct Equations {
    /// The rows of the matrix, each followed by its three right-hand sides.
    rows: Vec<Vec<f64>>,
    samples: f64,
}

impl Equations {
    fn new(unknowns: usize) -> Self {
        Self { rows: vec![vec![0.0; unknowns + 3]; unknowns], samples: 0.0 }
    }

    fn add(&mut self, inputs: &[f64], outputs: [f64; 3]) {
        for (row, input) in self.rows.iter_mut().zip(inputs) {
            row.iter_mut().zip(inputs.iter().chain(&outputs)).for_each(|(sum, value)| *sum += input * value);
        }
        self.samples += 1.0;
    }

    /// Solves by Gaussian elimination. The penalty makes the matrix positive definite, so it needs no pivots.
    fn solve(mut self) -> Vec<[f32; 3]> {
        let unknowns = self.rows.len();
        let penalty = RIDGE * self.samples;
        for (index, row) in self.rows.iter_mut().enumerate() {
            row.iter_mut().skip(index).take(1).for_each(|value| *value += penalty);
        }
        for index in 0..unknowns {
            let pivot = self.rows.get(index).cloned().unwrap_or_default();
            let divisor = pivot.get(index).copied().unwrap_or(1.0);
            for (other, row) in self.rows.iter_mut().enumerate() {
                let factor = if other == index { 0.0 } else { row.get(index).map_or(0.0, |value| value / divisor) };
                row.iter_mut().zip(&pivot).for_each(|(value, pivot)| *value -= factor * pivot);
            }
        }
        let solution = self.rows.iter().enumerate().map(|(index, row)| {
            let divisor = row.get(index).copied().unwrap_or(1.0);
            let output = |k: usize| (row.get(unknowns + k).copied().unwrap_or(0.0) / divisor) as f32;
            [output(0), output(1), output(2)]
        });
        solution.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parameters::{Callbacks, LoadOptions, Parameters};
    use crate::pipeline::Pipeline;

    /// Returns the mean colour of a cell of `scale * scale` pixels of an image `[.., width, 3]`.
    fn average(image: &[f32], width: usize, (x, y): (usize, usize), scale: usize) -> [f64; 3] {
        let mut sum = [0.0; 3];
        let pixels = image.as_chunks::<3>().0;
        for row in pixels.chunks(width).skip(y * scale).take(scale) {
            for pixel in row.iter().skip(x * scale).take(scale) {
                sum.iter_mut().zip(pixel).for_each(|(sum, value)| *sum += f64::from(*value));
            }
        }
        sum.map(|sum| sum / (scale * scale) as f64)
    }

    #[test]
    fn equations_find_a_known_projection() {
        let expected = [[1.0, -2.0, 0.5], [0.25, 3.0, -1.0], [0.1, 0.2, 0.3]];
        let mut equations = Equations::new(3);
        for i in 0..100 {
            let inputs = [f64::from(i % 7) - 3.0, f64::from(i % 5) - 2.0, 1.0];
            let output = |k: usize| inputs.iter().zip(expected).map(|(input, row)| input * row[k]).sum();
            equations.add(&inputs, [output(0), output(1), output(2)]);
        }
        for (actual, expected) in equations.solve().iter().flatten().zip(expected.as_flattened()) {
            assert!((f64::from(*actual) - expected).abs() < 0.02, "{actual} {expected}");
        }
    }

    /// The demonstration model draws a red circle on white. Its preview has the same colours in the same places.
    #[test]
    fn a_preview_resembles_the_image() {
        let pipeline = Pipeline::open(&crate::demo_files(), &LoadOptions::default()).unwrap();
        for prompt in ["a red circle on a white background", "a yellow star on a navy background"] {
            let mut parameters = Parameters::new(prompt);
            parameters.steps = Some(6);
            let previews = std::sync::Mutex::new(Vec::new());
            let keep =
                |preview: crate::Preview<'_>| previews.lock().unwrap().push((preview.step, preview.image.clone()));
            let output = pipeline.generate(&parameters, Callbacks::none().with_previews(2, &keep)).unwrap();
            let previews = previews.into_inner().unwrap();
            assert_eq!(previews.iter().map(|(step, _)| *step).collect::<Vec<_>>(), [2, 4]);
            let (_, preview) = &previews[1];
            let scale = 128 / preview.width() as usize;
            let image: Vec<f32> = output.images[0].pixels().iter().map(|value| f32::from(*value)).collect();
            let mut difference = 0.0;
            for (cell, pixel) in preview.pixels().as_chunks::<3>().0.iter().enumerate() {
                let side = preview.width() as usize;
                let mean = average(&image, 128, (cell % side, cell / side), scale);
                difference += pixel.iter().zip(mean).map(|(a, b)| (f64::from(*a) - b).abs()).sum::<f64>();
            }
            let difference = difference / preview.pixels().len() as f64;
            println!("{prompt}: {difference}");
            assert!(difference < 40.0, "{prompt}: the mean difference is {difference}");
        }
    }

    /// `.ci/run` runs the tests of modules with this name alone.
    mod speed {
        use std::time::{Duration, Instant};

        use super::*;

        /// The steps of the demonstration model are the fastest of all models with the architecture.
        #[test]
        #[ignore = "needs an idle processor"]
        fn a_preview_takes_at_most_a_hundredth_of_a_step() {
            let pipeline = Pipeline::open(&crate::demo_files(), &LoadOptions::default()).unwrap();
            let least = |times: &mut dyn Iterator<Item = Duration>| times.min().unwrap();
            let ends = std::sync::Mutex::new(Vec::new());
            let mark = |_: &[f32]| ends.lock().unwrap().push(Instant::now());
            let parameters = Parameters { steps: Some(10), ..Parameters::new("a star") };
            pipeline.generate(&parameters, Callbacks::none().with_latents(&mark)).unwrap();
            let ends = ends.into_inner().unwrap();
            let step = least(&mut ends.windows(2).map(|pair| pair[1] - pair[0]));

            let projection = Projection::fit(&pipeline.vae, &|| Ok(())).unwrap();
            let preview = least(&mut (0..50).map(|_| {
                let start = Instant::now();
                projection.image(&[0.5; 16 * 16 * 16], [16, 16, 16]).unwrap().encode(crate::FileFormat::Png).unwrap();
                start.elapsed()
            }));
            println!("a step takes {step:?}, a preview {preview:?}");
            assert!(preview * 100 <= step, "a step takes {step:?}, a preview {preview:?}");
        }
    }
}
