//! The models: the order of their layers. Weights are read when they are needed.

mod clip;
pub(crate) mod mmdit;
mod t5;
pub(crate) mod vae;

pub(crate) use clip::{Clip, ClipOutput};
pub(crate) use mmdit::{Conditioning, FirstBlockCache, Mmdit, Modulations, Omitted};
pub(crate) use t5::T5;
pub(crate) use vae::{TINY_SCALE, TinyDecoder, Vae};
