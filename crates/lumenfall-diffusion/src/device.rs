//! The choice of the device that a pipeline computes on.

use std::fmt;

use crate::error::{Error, Result};
#[cfg(feature = "gpu")]
use crate::placement::MemoryBudget;
use crate::placement::Target;

/// The device that a pipeline computes on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Device {
    /// The best GPU whose memory suffices for an image of the default size. If there is none, the CPU, with a warning in the
    /// output. Without the feature `gpu`, the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// A GPU. Requires the feature `gpu`.
    Gpu(GpuChoice),
}

/// A GPU of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GpuChoice {
    /// The GPU with this index in the list of devices.
    Index(usize),
    /// The first GPU whose name contains this text, in upper or lower case.
    Name(String),
}

impl fmt::Display for GpuChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Index(index) => write!(f, "{index}"),
            Self::Name(name) => write!(f, "`{name}`"),
        }
    }
}

impl Device {
    /// Opens the device. For [`Device::Auto`] without a GPU that fits, it returns the CPU and the reason.
    ///
    /// `needed` is the memory in bytes without which the GPU cannot compute an image of the default size.
    #[cfg(feature = "gpu")]
    pub(crate) fn open(&self, needed: u64, budget: MemoryBudget) -> Result<(Target, Option<String>)> {
        use crate::gpu::Gpu;

        match self {
            Self::Cpu => Ok((Target::Cpu, None)),
            Self::Gpu(choice) => Ok((Target::Gpu(Gpu::chosen(choice)?), None)),
            Self::Auto => match Gpu::best(needed, budget) {
                Ok(gpu) => Ok((Target::Gpu(gpu), None)),
                Err(Error::Device(reason)) => {
                    Ok((Target::Cpu, Some(format!("the CPU computed the image, because {reason}"))))
                }
                Err(error) => Err(error),
            },
        }
    }

    /// Opens the device.
    #[cfg(not(feature = "gpu"))]
    pub(crate) fn open(&self) -> Result<Target> {
        match self {
            Self::Auto | Self::Cpu => Ok(Target::Cpu),
            Self::Gpu(choice) => Err(Error::Device(format!(
                "the GPU {choice} cannot be used, because this program was built without the feature `gpu`; build it \
                 with the feature, or use the CPU"
            ))),
        }
    }
}
