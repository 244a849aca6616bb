//! A description of a part of a model.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::Weights;
use super::layout::PartKind;

/// A description of one part of a model.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PartSummary {
    /// The part.
    pub part: PartKind,
    /// Its file, or one of them.
    pub path: PathBuf,
    /// The number of weights.
    pub weights: u64,
    /// The number of bytes in the files.
    pub bytes: u64,
    /// The number of tensors of each format, such as `F16` or `Q8_0`.
    pub formats: BTreeMap<String, usize>,
    /// The names of tensors that the pipeline does not use.
    pub unused: Vec<String>,
}

impl PartSummary {
    pub(crate) fn new(part: PartKind, weights: &Weights) -> Self {
        let (mut formats, mut count) = (BTreeMap::new(), 0);
        for tensor in weights.tensors() {
            *formats.entry(tensor.format).or_default() += 1;
            count += tensor.values;
        }
        let bytes = weights.tensors().map(|tensor| tensor.bytes).sum();
        Self { part, path: weights.path().to_path_buf(), weights: count, bytes, formats, unused: weights.unused() }
    }
}
