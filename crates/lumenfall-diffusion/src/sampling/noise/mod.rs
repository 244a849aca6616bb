//! The sources of random numbers.

mod philox;
mod portable;
pub(super) mod torch_cpu;
mod torch_cuda;

use serde::{Deserialize, Serialize};

use crate::error::Result;

pub use torch_cuda::CudaCard;

/// The random numbers that a seed stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Noise {
    /// Those of `torch.Generator("cpu")`, which uses the low 32 bits of a seed. The logarithm and cosine of the platform can change
    /// the last bit of a value.
    #[default]
    TorchCpu,
    /// Those of `torch.Generator("cuda")` on this card. They equal the card's values up to a difference of about 1e-6, because
    /// the card computes approximate sines.
    TorchCuda(CudaCard),
    /// A stream with the same bits on every platform: Philox4x32-10 and the Box–Muller transform in f64, with the logarithm, sine
    /// and cosine of the crate `libm`, rounded to f32.
    Portable,
}

/// The stream of random numbers of one image: first its initial latent, then the noise of its steps.
#[derive(Clone, Debug)]
pub(crate) enum NoiseStream {
    TorchCpu(Box<torch_cpu::Generator>),
    TorchCuda(torch_cuda::CudaStream),
    Portable(portable::PortableStream),
}

impl Noise {
    /// Starts the stream of a seed.
    pub(crate) fn stream(self, seed: u64) -> Result<NoiseStream> {
        Ok(match self {
            Self::TorchCpu => NoiseStream::TorchCpu(Box::new(torch_cpu::Generator::new(seed))),
            Self::TorchCuda(card) => NoiseStream::TorchCuda(torch_cuda::CudaStream::new(card, seed)?),
            Self::Portable => NoiseStream::Portable(portable::PortableStream::new(seed)),
        })
    }
}

impl NoiseStream {
    /// Returns the next `count` values of the standard normal distribution.
    pub(crate) fn normal(&mut self, count: usize) -> Vec<f32> {
        match self {
            Self::TorchCpu(stream) => stream.normal(count),
            Self::TorchCuda(stream) => stream.normal(count),
            Self::Portable(stream) => stream.normal(count),
        }
    }
}
