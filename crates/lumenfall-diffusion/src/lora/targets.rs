//! The layers of a model that a LoRA can change, by all their names.

use std::collections::HashMap;

use crate::checkpoint::Checkpoint;
use crate::weights::Weights;
use crate::weights::layout::{PartKind, Rows, original_denoiser};

/// A layer of the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// The name in diffusers, without `text_model.`.
    pub(super) layer: String,
    pub(super) outputs: usize,
    pub(super) inputs: usize,
    /// The outputs of a LoRA that belong to the layer.
    pub(super) rows: Rows,
}

/// The layers of a model, by the names that LoRA files have for them. A name of the original model may stand for several
/// layers of diffusers.
#[derive(Debug, Default)]
pub(super) struct Targets(HashMap<(PartKind, String), Vec<Target>>);

/// The modules of the original denoiser outside its blocks.
const MODULES: [&str; 8] = [
    "x_embedder.proj",
    "t_embedder.mlp.0",
    "t_embedder.mlp.2",
    "y_embedder.mlp.0",
    "y_embedder.mlp.2",
    "context_embedder",
    "final_layer.linear",
    "final_layer.adaLN_modulation.1",
];

/// The modules of a stream of the original denoiser's blocks.
const BLOCK_MODULES: [&str; 7] =
    ["attn.qkv", "attn.proj", "attn2.qkv", "attn2.proj", "mlp.fc1", "mlp.fc2", "adaLN_modulation.1"];

impl Targets {
    pub(super) fn new(checkpoint: &Checkpoint) -> Self {
        let Checkpoint { denoiser, clip_l, clip_g, t5, .. } = checkpoint;
        let mut targets = Self::default();
        targets.add_all(PartKind::Denoiser, &denoiser.weights);
        targets.add_original_denoiser(denoiser.config.num_layers, denoiser.config.width());
        for (part, (_, clip)) in [(PartKind::ClipL, clip_l), (PartKind::ClipG, clip_g)] {
            targets.add_all(part, &clip.weights);
            if targets.get(part, "text_projection").is_none() {
                // Without a projection in the file, it is the identity.
                let (outputs, inputs) = (clip.config.projection_dim, clip.config.hidden_size);
                let layer = "text_projection".to_owned();
                targets.add(part, &layer.clone(), vec![Target { layer, outputs, inputs, rows: Rows::All }]);
            }
        }
        if let Some((_, t5)) = t5 {
            targets.add_all(PartKind::T5, &t5.weights);
        }
        targets
    }

    pub(super) fn get(&self, part: PartKind, name: &str) -> Option<&[Target]> {
        self.0.get(&(part, name.to_owned())).map(Vec::as_slice)
    }

    /// Adds the layers of a part with their names in diffusers.
    fn add_all(&mut self, part: PartKind, weights: &Weights) {
        for (tensor, shape) in weights.shapes() {
            let Some(name) = tensor.strip_suffix(".weight") else { continue };
            let (Some(outputs), true) = (shape.first().copied(), shape.len() >= 2) else { continue };
            let inputs = shape.iter().skip(1).product();
            let layer = layer_name(name).to_owned();
            let target = || vec![Target { layer: layer.clone(), outputs, inputs, rows: Rows::All }];
            self.add(part, &layer, target());
            if matches!(part, PartKind::ClipL | PartKind::ClipG) && layer != "text_projection" {
                self.add(part, &format!("text_model.{layer}"), target());
            }
        }
    }

    /// Adds the names of the original denoiser. Those of diffusers have been added.
    fn add_original_denoiser(&mut self, blocks: usize, width: usize) {
        let streams = (0..blocks).flat_map(|block| {
            let streams = ["x_block", "context_block"].into_iter();
            streams.flat_map(move |stream| {
                BLOCK_MODULES.map(|module| (format!("joint_blocks.{block}.{stream}.{module}"), block + 1 == blocks))
            })
        });
        for (module, is_last) in MODULES.map(|module| (module.to_owned(), false)).into_iter().chain(streams) {
            // The last block's modulation of the text has two parts.
            let shape = [if is_last && module.contains("context_block.adaLN") { 2 * width } else { 0 }];
            let found = original_denoiser(&format!("{module}.weight"), &shape, width);
            let targets = found.into_iter().map(|(name, rows)| {
                let [target] = self.get(PartKind::Denoiser, name.strip_suffix(".weight")?)? else { return None };
                Some(Target { rows, ..target.clone() })
            });
            if let Some(targets) = targets.collect::<Option<Vec<_>>>() {
                self.add(PartKind::Denoiser, &module, targets);
            }
        }
    }

    /// Adds targets under a name and under the same name with underscores, as kohya and LyCORIS write it.
    fn add(&mut self, part: PartKind, name: &str, targets: Vec<Target>) {
        if targets.is_empty() {
            return;
        }
        self.0.insert((part, name.replace('.', "_")), targets.clone());
        self.0.insert((part, name.to_owned()), targets);
    }
}

/// Returns the name of a layer without the prefix that only older versions of transformers write.
pub(crate) fn layer_name(name: &str) -> &str {
    name.strip_prefix("text_model.").unwrap_or(name)
}
