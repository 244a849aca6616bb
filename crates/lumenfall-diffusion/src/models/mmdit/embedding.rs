//! The denoiser's input embeddings: patches, timestep and pooled prompt.

use std::sync::{Arc, Mutex, PoisonError};

use crate::checkpoint::config::DenoiserConfig;
use crate::error::{Error, Result};
use crate::layers::{Activation, Linear, activate, add};
use crate::tensor::Tensor;
use crate::weights::{Scope, Weights};

/// The width of the sinusoidal timestep embedding.
const TIMESTEP_WIDTH: usize = 256;

/// The embeddings of positions, read for one image size at a time. The whole table of SD 3.5 Medium would need 900 MB.
#[derive(Debug)]
pub(super) struct Positions {
    table: Table,
    width: usize,
    /// The side of the square table, in patches.
    side: usize,
    /// The embeddings for the last `[rows, columns]`.
    last: Mutex<Option<([usize; 2], Tensor)>>,
}

#[derive(Debug)]
enum Table {
    Stored(Arc<Weights>),
    /// A file without the table. It is computed as diffusers initializes it.
    Computed {
        /// The number of patches between two integer coordinates.
        patches: f32,
    },
}

impl Positions {
    /// Checks the table without reading it.
    pub(super) fn open(weights: Arc<Weights>, config: &DenoiserConfig) -> Result<Self> {
        let (width, side) = (config.width(), config.pos_embed_max_size);
        let table = match weights.root().contains("pos_embed.pos_embed") || !width.is_multiple_of(4) {
            true => {
                let last = side.saturating_mul(side).saturating_sub(1);
                weights.check(|headers| headers.at("pos_embed").rows("pos_embed", width, last, 1).map(|_| ()))?;
                Table::Stored(weights)
            }
            false => {
                let side_of_default_image = config.sample_size.checked_div(config.patch_size).unwrap_or(1).max(1);
                Table::Computed { patches: side as f32 / side_of_default_image as f32 }
            }
        };
        Ok(Self { table, width, side, last: Mutex::new(None) })
    }

    /// Returns the centre of the table: `[rows * columns, width]`.
    pub(super) fn get(&self, rows: usize, columns: usize) -> Result<Tensor> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((size, positions)) = &*last
            && *size == [rows, columns]
        {
            return Ok(positions.clone());
        }
        let (Some(top), Some(left)) = (self.side.checked_sub(rows), self.side.checked_sub(columns)) else {
            let reason = format!("exceeds this model's {0}x{0} patches; request a smaller image", self.side);
            return Err(Error::parameter("size", reason));
        };
        let (top, left) = (top / 2, left / 2);
        let mut values = Vec::with_capacity(rows * columns * self.width);
        match &self.table {
            Table::Stored(weights) => {
                let scope = weights.root().at("pos_embed");
                for row in top..top + rows {
                    values.extend(scope.rows("pos_embed", self.width, row * self.side + left, columns)?);
                }
            }
            Table::Computed { patches } => {
                let embed = |index: usize| sines_and_cosines(index as f32 / patches, self.width / 2);
                let columns: Vec<_> = (left..left + columns).map(embed).collect();
                for row in (top..top + rows).map(embed) {
                    columns.iter().for_each(|column| values.extend(column.iter().chain(&row)));
                }
            }
        }
        let positions = Tensor::new(values, &[rows * columns, self.width])?;
        *last = Some(([rows, columns], positions.clone()));
        Ok(positions)
    }
}

/// Returns the sines and then the cosines of a coordinate at frequencies from 1 down to 1/10000, like diffusers'
/// `get_1d_sincos_pos_embed_from_grid`.
fn sines_and_cosines(coordinate: f32, width: usize) -> Vec<f32> {
    let half = width / 2;
    let angle = move |i: usize| f64::from(coordinate) / libm::pow(10_000.0, i as f64 / half as f64);
    let values = (0..half).map(move |i| libm::sin(angle(i))).chain((0..half).map(move |i| libm::cos(angle(i))));
    values.map(|value| value as f32).collect()
}

/// Converts a latent to tokens.
#[derive(Debug)]
pub(super) struct PatchEmbedding {
    projection: Linear,
    patch: usize,
}

impl PatchEmbedding {
    pub(super) fn load(root: &Scope<'_>, config: &DenoiserConfig) -> Result<Self> {
        let (patch, width) = (config.patch_size, config.width());
        let scope = root.at("pos_embed.proj");
        // A convolution whose stride equals its kernel size is a linear layer over patches.
        let weight = scope.values("weight", &[width, config.in_channels, patch, patch])?;
        let inputs = config.in_channels * patch * patch;
        let projection = Linear::new(weight, inputs, width, Some(scope.tensor("bias", &[width])?));
        let projection = projection.adapted(&scope)?.moved_to(&scope)?;
        Ok(Self { projection, patch })
    }

    /// Converts `[channels, height, width]` to `[tokens, width]` and adds the embeddings of the positions.
    pub(super) fn forward(&self, latent: &Tensor, positions: &Positions) -> Result<Tensor> {
        let [channels, height, width] = latent.dims()?;
        let (rows, columns) = (height / self.patch, width / self.patch);
        // [channels, rows, p, columns, q] -> [rows, columns, channels, p, q]
        let patches = latent.reshape(&[channels, rows, self.patch, columns, self.patch])?.permute([1, 3, 0, 2, 4])?;
        let patches = patches.reshape(&[rows * columns, channels * self.patch * self.patch])?;
        add(self.projection.forward(&patches)?, &positions.get(rows, columns)?)
    }
}

/// The input of every modulation for one timestep and prompt: `[1, width]`.
#[derive(Clone, Debug)]
pub(super) struct Condition(pub(super) Tensor);

/// Converts timestep and pooled prompt to the input of every modulation.
#[derive(Debug)]
pub(super) struct ConditionEmbedding {
    timestep: Mlp,
    text: Mlp,
}

#[derive(Debug)]
struct Mlp {
    first: Linear,
    second: Linear,
}

impl Mlp {
    fn load(scope: &Scope<'_>, inputs: usize, width: usize) -> Result<Self> {
        Ok(Self {
            first: Linear::load(&scope.at("linear_1"), inputs, width)?,
            second: Linear::load(&scope.at("linear_2"), width, width)?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.second.forward(&self.first.forward_activated(x, Activation::Silu)?)
    }
}

impl ConditionEmbedding {
    pub(super) fn load(root: &Scope<'_>, config: &DenoiserConfig) -> Result<Self> {
        let (scope, width) = (root.at("time_text_embed"), config.width());
        Ok(Self {
            timestep: Mlp::load(&scope.at("timestep_embedder"), TIMESTEP_WIDTH, width)?,
            text: Mlp::load(&scope.at("text_embedder"), config.pooled_projection_dim, width)?,
        })
    }

    /// Computes `silu(timestep embedding + pooled embedding)`. `pooled` is `[1, pooled width]`.
    pub(super) fn forward(&self, timestep: f32, pooled: &Tensor) -> Result<Condition> {
        let timestep = Tensor::new(sinusoidal(timestep), &[1, TIMESTEP_WIDTH])?;
        let sum = add(self.timestep.forward(&timestep)?, &self.text.forward(pooled)?)?;
        activate(sum, Activation::Silu).map(Condition)
    }
}

/// Returns the cosines and then the sines of `timestep` at frequencies from 1 down to 1/10000.
fn sinusoidal(timestep: f32) -> Vec<f32> {
    let half = TIMESTEP_WIDTH / 2;
    let angle = move |i: usize| timestep * (-(10_000f32.ln()) * i as f32 / half as f32).exp();
    (0..half).map(move |i| angle(i).cos()).chain((0..half).map(move |i| angle(i).sin())).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::checkpoint::{Checkpoint, Part};

    #[test]
    fn a_table_that_a_file_lacks_is_that_of_diffusers() {
        // diffusers computed the table of the demonstration model, which is stored in f16.
        let Part { weights, config } = Checkpoint::open(&crate::demo_files()).unwrap().denoiser;
        let stored = Positions::open(Arc::new(weights), &config).unwrap();
        let computed = Positions::open(Arc::new(Weights::empty(Path::new("file"))), &config).unwrap();
        assert!(matches!((&stored.table, &computed.table), (Table::Stored(_), Table::Computed { .. })));
        for (rows, columns) in [(16, 16), (3, 8)] {
            let [stored, computed] = [&stored, &computed].map(|positions| positions.get(rows, columns).unwrap());
            let difference = stored.zip_with(&computed, |a, b| (a - b).abs()).unwrap();
            let difference = difference.values().iter().copied().fold(0.0, f32::max);
            assert!(difference < 2.5e-4, "differs by {difference}");
        }
    }
    #[test]
    fn a_coordinate_has_the_embedding_of_diffusers() {
        // `get_2d_sincos_pos_embed(16, 384, base_size=64)` at row 100, column 37.
        let expected = [
            [
                -0.116_255_32,
                0.578_319,
                0.061_627_59,
                0.006_166_627_6,
                0.993_219_4,
                0.815_810_74,
                0.998_099_2,
                0.999_981,
            ],
            [
                -0.818_446_9,
                0.995_407_94,
                0.165_896_13,
                0.016_665_894,
                -0.574_582_16,
                -0.095_723_49,
                0.986_143_23,
                0.999_861_1,
            ],
        ];
        let config = DenoiserConfig {
            sample_size: 128,
            pos_embed_max_size: 384,
            attention_head_dim: 4,
            ..Checkpoint::open(&crate::demo_files()).unwrap().denoiser.config
        };
        assert_eq!((config.width(), config.patch_size), (16, 2));
        let positions = Positions::open(Arc::new(Weights::empty(Path::new("file"))), &config).unwrap();
        // The centre of 184 rows begins at row 100, and that of 310 columns at column 37.
        let actual = positions.get(184, 310).unwrap();
        for (actual, expected) in actual.values().iter().zip(expected.as_flattened()) {
            assert!((actual - expected).abs() < 2e-7, "{actual}, {expected}");
        }
    }
}
