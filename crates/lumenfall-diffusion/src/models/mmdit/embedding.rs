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
    weights: Arc<Weights>,
    width: usize,
    /// The side of the square table, in patches.
    table_side: usize,
    /// The embeddings for the last `[rows, columns]`.
    last: Mutex<Option<([usize; 2], Tensor)>>,
}

impl Positions {
    /// Checks the table without reading it.
    pub(super) fn open(weights: Arc<Weights>, config: &DenoiserConfig) -> Result<Self> {
        let (width, table_side) = (config.width(), config.pos_embed_max_size);
        let last = table_side.saturating_mul(table_side).saturating_sub(1);
        weights.headers().at("pos_embed").rows("pos_embed", width, last, 1)?;
        Ok(Self { weights, width, table_side, last: Mutex::new(None) })
    }

    /// Returns the centre of the table: `[rows * columns, width]`.
    pub(super) fn get(&self, rows: usize, columns: usize) -> Result<Tensor> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((size, positions)) = &*last
            && *size == [rows, columns]
        {
            return Ok(positions.clone());
        }
        let (Some(top), Some(left)) = (self.table_side.checked_sub(rows), self.table_side.checked_sub(columns)) else {
            let reason = format!("exceeds this model's {0}x{0} patches; request a smaller image", self.table_side);
            return Err(Error::parameter("size", reason));
        };
        let (top, left) = (top / 2, left / 2);
        let scope = self.weights.root().at("pos_embed");
        let mut values = Vec::with_capacity(rows * columns * self.width);
        for row in top..top + rows {
            values.extend(scope.rows("pos_embed", self.width, row * self.table_side + left, columns)?);
        }
        let positions = Tensor::new(values, &[rows * columns, self.width])?;
        *last = Some(([rows, columns], positions.clone()));
        Ok(positions)
    }
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
