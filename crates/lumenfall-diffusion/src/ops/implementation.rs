//! The choice between the two implementations.

use candle_core::Device;

/// An implementation of the tensor operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ops {
    /// Operations composed of candle's operations, for any device.
    Reference,
    /// Fused operations for the CPU.
    Fused,
}

impl Ops {
    /// Returns the fastest implementation for `device`.
    pub fn for_device(device: &Device) -> Self {
        if device.is_cpu() { Self::Fused } else { Self::Reference }
    }
}
