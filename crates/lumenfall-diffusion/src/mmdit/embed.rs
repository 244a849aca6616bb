//! What turns latents, time and prompt into tokens.

use std::sync::{Mutex, PoisonError};

use candle_core::Tensor;

use crate::config::DenoiserConfig;
use crate::error::{Error, Result};
use crate::ops::{Activation, Linear, Ops};
use crate::weights::{Scope, Weights};

/// Width of the sinusoidal embedding of time.
const TIME_WIDTH: usize = 256;

/// Patches of the latent to tokens, with their positions.
#[derive(Debug)]
pub(crate) struct PatchEmbed {
    projection: Linear,
    patch: usize,
    width: usize,
    /// Sides of the square position table, in patches.
    table: usize,
    weights: Weights,
    /// The crop of the table for the last size: the whole table of SD 3.5 Medium would take 900 MB.
    crop: Mutex<Option<((usize, usize), Tensor)>>,
}

impl PatchEmbed {
    pub(crate) fn load(weights: Weights, config: &DenoiserConfig) -> Result<Self> {
        let (patch, width) = (config.patch_size, config.width());
        let scope = weights.root().at("pos_embed.proj");
        // A convolution whose stride is its kernel is a linear layer over patches.
        let weight = scope.tensor("weight", &[width, config.in_channels, patch, patch])?;
        let weight = weight.reshape((width, config.in_channels * patch * patch))?;
        let projection = Linear::new(weight, Some(scope.tensor("bias", &[width])?));
        let table = config.pos_embed_max_size;
        weights.root().at("pos_embed").rows("pos_embed", width, table * table - 1, 1)?;
        Ok(Self { projection, patch, width, table, weights, crop: Mutex::new(None) })
    }

    /// `[channels, height, width]` to `[tokens, width]`.
    pub(crate) fn forward(&self, ops: Ops, latent: &Tensor) -> Result<Tensor> {
        let (channels, height, width) = latent.dims3()?;
        let (rows, columns) = (height / self.patch, width / self.patch);
        // [channels, rows, p, columns, q] -> [rows, columns, channels, p, q]
        let patches = latent.reshape((channels, rows, self.patch, columns, self.patch))?.permute((1, 3, 0, 2, 4))?;
        let patches = patches.contiguous()?.reshape((rows * columns, channels * self.patch * self.patch))?;
        Ok(ops.add(&ops.linear(&patches, &self.projection)?, &self.positions(rows, columns)?)?)
    }

    /// The middle of the position table: `[rows·columns, width]`.
    fn positions(&self, rows: usize, columns: usize) -> Result<Tensor> {
        let mut crop = self.crop.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((size, positions)) = &*crop
            && *size == (rows, columns)
        {
            return Ok(positions.clone());
        }
        let (Some(top), Some(left)) = (self.table.checked_sub(rows), self.table.checked_sub(columns)) else {
            return Err(Error::parameter(
                "size",
                format!("is larger than this model's {0}×{0} patches; ask for less", self.table),
            ));
        };
        let (top, left) = (top / 2, left / 2);
        let scope = self.weights.root().at("pos_embed");
        let mut values = Vec::with_capacity(rows * columns * self.width);
        for row in top..top + rows {
            values.extend(scope.rows("pos_embed", self.width, row * self.table + left, columns)?);
        }
        let positions = Tensor::from_vec(values, (rows * columns, self.width), scope.device())?;
        *crop = Some(((rows, columns), positions.clone()));
        Ok(positions)
    }
}

/// Time and pooled prompt to the vector that modulates every block.
#[derive(Debug)]
pub(crate) struct TimeTextEmbed {
    time: Mlp,
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

impl TimeTextEmbed {
    pub(crate) fn load(scope: &Scope<'_>, config: &DenoiserConfig) -> Result<Self> {
        let width = config.width();
        Ok(Self {
            time: Mlp::load(&scope.at("timestep_embedder"), TIME_WIDTH, width)?,
            text: Mlp::load(&scope.at("text_embedder"), config.pooled_projection_dim, width)?,
        })
    }

    /// `silu(time + pooled)`: `[1, width]`.
    pub(crate) fn forward(&self, ops: Ops, timestep: f32, pooled: &Tensor) -> Result<Tensor> {
        let time = Tensor::from_vec(sinusoid(timestep), (1, TIME_WIDTH), pooled.device())?;
        let sum = ops.add(&self.time.forward(ops, &time)?, &self.text.forward(ops, &pooled.unsqueeze(0)?)?)?;
        Ok(ops.activate(&sum, Activation::Silu)?)
    }
}

/// Cosines, then sines, of `timestep` at frequencies from 1 down to 1/10000.
fn sinusoid(timestep: f32) -> Vec<f32> {
    let half = TIME_WIDTH / 2;
    let angle = move |i: usize| timestep * (-(10_000f32.ln()) * i as f32 / half as f32).exp();
    (0..half).map(move |i| angle(i).cos()).chain((0..half).map(move |i| angle(i).sin())).collect()
}
