//! The denoiser's input embeddings: patches, timestep and pooled prompt.

use std::sync::{Mutex, PoisonError};

use candle_core::Tensor;

use crate::config::DenoiserConfig;
use crate::error::{Error, Result};
use crate::ops::{Activation, Linear, Ops};
use crate::weights::{Scope, Weights};

/// The width of the sinusoidal timestep embedding.
const TIMESTEP_WIDTH: usize = 256;

/// Converts a latent to tokens with position embeddings.
#[derive(Debug)]
pub(super) struct PatchEmbedding {
    projection: Linear,
    patch: usize,
    width: usize,
    /// The side of the square table of position embeddings, in patches.
    table_side: usize,
    weights: Weights,
    /// The position embeddings for the last `(rows, columns)`. The whole table of SD 3.5 Medium would need 900 MB.
    positions: Mutex<Option<((usize, usize), Tensor)>>,
}

impl PatchEmbedding {
    pub(super) fn load(weights: Weights, config: &DenoiserConfig) -> Result<Self> {
        let (patch, width) = (config.patch_size, config.width());
        let scope = weights.root().at("pos_embed.proj");
        // A convolution whose stride equals its kernel size is a linear layer over patches.
        let weight = scope.values("weight", &[width, config.in_channels, patch, patch])?;
        let inputs = config.in_channels * patch * patch;
        let projection = Linear::new(weight, inputs, width, Some(scope.tensor("bias", &[width])?));
        let table_side = config.pos_embed_max_size;
        weights.root().at("pos_embed").rows("pos_embed", width, table_side * table_side - 1, 1)?;
        Ok(Self { projection, patch, width, table_side, weights, positions: Mutex::new(None) })
    }

    /// Converts `[channels, height, width]` to `[tokens, width]`.
    pub(super) fn forward(&self, ops: Ops, latent: &Tensor) -> Result<Tensor> {
        let (channels, height, width) = latent.dims3()?;
        let (rows, columns) = (height / self.patch, width / self.patch);
        // [channels, rows, p, columns, q] -> [rows, columns, channels, p, q]
        let patches = latent.reshape((channels, rows, self.patch, columns, self.patch))?.permute((1, 3, 0, 2, 4))?;
        let patches = patches.contiguous()?.reshape((rows * columns, channels * self.patch * self.patch))?;
        Ok(ops.add(&ops.linear(&patches, &self.projection)?, &self.positions(rows, columns)?)?)
    }

    /// Returns the centre of the table of position embeddings: `[rows * columns, width]`.
    fn positions(&self, rows: usize, columns: usize) -> Result<Tensor> {
        let mut cached = self.positions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((size, positions)) = &*cached
            && *size == (rows, columns)
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
        let positions = Tensor::from_vec(values, (rows * columns, self.width), scope.device())?;
        *cached = Some(((rows, columns), positions.clone()));
        Ok(positions)
    }
}

/// Converts timestep and pooled prompt to the input of every modulation.
#[derive(Debug)]
pub(super) struct TimestepTextEmbedding {
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

    fn forward(&self, ops: Ops, x: &Tensor) -> Result<Tensor> {
        Ok(ops.linear(&ops.linear_activation(x, &self.first, Activation::Silu)?, &self.second)?)
    }
}

impl TimestepTextEmbedding {
    pub(super) fn load(scope: &Scope<'_>, config: &DenoiserConfig) -> Result<Self> {
        let width = config.width();
        Ok(Self {
            timestep: Mlp::load(&scope.at("timestep_embedder"), TIMESTEP_WIDTH, width)?,
            text: Mlp::load(&scope.at("text_embedder"), config.pooled_projection_dim, width)?,
        })
    }

    /// Computes `silu(timestep embedding + pooled embedding)`: `[1, width]`.
    pub(super) fn forward(&self, ops: Ops, timestep: f32, pooled: &Tensor) -> Result<Tensor> {
        let timestep = Tensor::from_vec(sinusoidal(timestep), (1, TIMESTEP_WIDTH), pooled.device())?;
        let sum = ops.add(&self.timestep.forward(ops, &timestep)?, &self.text.forward(ops, &pooled.unsqueeze(0)?)?)?;
        Ok(ops.activate(&sum, Activation::Silu)?)
    }
}

/// Returns the cosines and then the sines of `timestep` at frequencies from 1 down to 1/10000.
fn sinusoidal(timestep: f32) -> Vec<f32> {
    let half = TIMESTEP_WIDTH / 2;
    let angle = move |i: usize| timestep * (-(10_000f32.ln()) * i as f32 / half as f32).exp();
    (0..half).map(move |i| angle(i).cos()).chain((0..half).map(move |i| angle(i).sin())).collect()
}
