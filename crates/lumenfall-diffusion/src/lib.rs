//! The native Stable Diffusion 3.5 pipeline.
