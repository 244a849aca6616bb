//! Compares the numbers of layers in a configuration with the weights.
//!
//! The shapes of weights are compared when they are requested, but a configuration with too few layers requests too little.

use std::path::Path;

use super::Part;
use super::config::{ClipConfig, DenoiserConfig, T5Config, VaeConfig};
use crate::error::{Error, Result};
use crate::weights::Weights;

/// Returns how many of the names that `name` generates exist, from 0.
pub(super) fn count(weights: &Weights, name: impl Fn(usize) -> String) -> usize {
    (0..1000).take_while(|index| weights.shape(&name(*index)).is_some()).count()
}

/// Compares a value of the configuration at `path` with the number of layers whose names `name` generates.
fn check<C>(part: &Part<C>, path: &Path, key: &str, value: usize, name: impl Fn(usize) -> String) -> Result<()> {
    let found = count(&part.weights, name);
    // Without any layer, the file belongs to another part, which the error of the first missing tensor says.
    if found == 0 || found == value {
        return Ok(());
    }
    Err(contradiction(part, path, &format!("`{key}` is {value}"), &found.to_string()))
}

fn contradiction<C>(part: &Part<C>, path: &Path, configured: &str, found: &str) -> Error {
    let weights = part.weights.path().display();
    Error::malformed(
        path,
        format!(
            "{configured}, but {weights} has {found}; the files belong to different models: download both from one source"
        ),
    )
}

pub(super) fn denoiser(part: &Part<DenoiserConfig>, path: &Path) -> Result<()> {
    let Part { weights, config } = part;
    let query = |attention: &str, index| format!("transformer_blocks.{index}.{attention}.to_q.weight");
    check(part, path, "num_layers", config.num_layers, |index| query("attn", index))?;
    let mut configured = config.dual_attention_layers.clone();
    configured.sort_unstable();
    configured.dedup();
    let has_second = |index: &usize| weights.shape(&query("attn2", *index)).is_some();
    let found: Vec<usize> = (0..config.num_layers).filter(has_second).collect();
    if configured != found && weights.shape(&query("attn", 0)).is_some() {
        let configured = format!("`dual_attention_layers` is {configured:?}");
        return Err(contradiction(part, path, &configured, &format!("{found:?}")));
    }
    Ok(())
}

pub(super) fn vae(part: &Part<VaeConfig>, path: &Path) -> Result<()> {
    let VaeConfig { block_out_channels, layers_per_block, .. } = &part.config;
    let resnet = |level, index| format!("encoder.down_blocks.{level}.resnets.{index}.conv1.weight");
    check(part, path, "block_out_channels.length", block_out_channels.len(), |level| resnet(level, 0))?;
    check(part, path, "layers_per_block", *layers_per_block, |index| resnet(0, index))
}

pub(super) fn clip(part: &Part<ClipConfig>, path: &Path) -> Result<()> {
    // Newer versions of transformers write the names without the prefix.
    ["text_model.", ""].into_iter().try_for_each(|prefix| {
        let layer = |index| format!("{prefix}encoder.layers.{index}.mlp.fc1.weight");
        check(part, path, "num_hidden_layers", part.config.num_hidden_layers, layer)
    })
}

pub(super) fn t5(part: &Part<T5Config>, path: &Path) -> Result<()> {
    let layer = |index| format!("encoder.block.{index}.layer.0.SelfAttention.q.weight");
    check(part, path, "num_layers", part.config.num_layers, layer)
}
