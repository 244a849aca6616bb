//! Where the weights are: in memory, on a GPU, or in the file until they are needed.

mod budget;
mod lazy;
mod plan;

use std::sync::{Arc, Mutex, PoisonError};

#[cfg(feature = "gpu")]
use crate::gpu::Gpu;
pub use budget::MemoryBudget;
#[cfg(feature = "gpu")]
pub(crate) use budget::free_memory;
pub(crate) use lazy::{Blocks, Lazy};
pub(crate) use plan::{Phase, Plan};

/// The device of layers.
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

/// Where the layers of a component compute. Clones share it, so that it can change for weights that are read later.
#[derive(Clone, Debug, Default)]
pub(crate) struct Placement(Arc<Mutex<Target>>);

impl Placement {
    /// Returns the present device.
    pub(crate) fn target(&self) -> Target {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sets the device of the layers that are read from now on.
    pub(crate) fn set(&self, target: Target) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = target;
    }
}
