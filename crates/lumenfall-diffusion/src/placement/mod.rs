//! Where the weights are: in memory, on a GPU, or in the file until they are needed.

mod budget;
mod lazy;
mod plan;

#[cfg(feature = "gpu")]
use crate::gpu::Gpu;
pub use budget::MemoryBudget;
pub(crate) use lazy::{Blocks, Lazy};
pub(crate) use plan::{Phase, Plan};

/// Where the layers of a component compute.
#[derive(Clone, Debug, Default)]
pub(crate) enum Target {
    #[default]
    Cpu,
    #[cfg(feature = "gpu")]
    Gpu(Gpu),
}

impl Target {
    /// Returns the same device, which then computes all products in f32.
    pub(crate) fn with_full_precision(&self) -> Self {
        #[cfg(feature = "gpu")]
        if let Self::Gpu(gpu) = self {
            return Self::Gpu(gpu.with_full_precision());
        }
        self.clone()
    }
}
