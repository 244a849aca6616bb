//! The automatic choice of a GPU.

use super::adapters::{GpuKind, all, kind};
use super::device::Gpu;
use super::memory::usable;
use crate::error::{Error, Result};
use crate::placement::MemoryBudget;

/// A GPU that may be chosen.
#[derive(Clone, Debug)]
struct Candidate {
    name: String,
    kind: GpuKind,
    /// The number of bytes of its memory that may be used.
    budget: u64,
}

impl Gpu {
    /// Opens the most suitable GPU with enough memory, but no software adapter.
    ///
    /// # Errors
    /// [`Error::Device`] with the reason if there is none.
    pub(crate) fn best(needed: u64, budget: MemoryBudget) -> Result<Self> {
        let adapters = all();
        let candidate = |adapter: &wgpu::Adapter| {
            let budget = budget.gpu_bytes(usable(adapter, 0))?;
            Ok(Candidate { name: adapter.get_info().name, kind: kind(adapter), budget })
        };
        let candidates = adapters.iter().map(candidate).collect::<Result<Vec<_>>>()?;
        let mut result = Err(Error::Device(reason(&candidates, needed)));
        for (adapter, candidate) in adapters.iter().zip(&candidates) {
            if candidate.is_suitable(needed) && result.is_err() {
                result = Self::of(adapter);
            }
        }
        result
    }
}

impl Candidate {
    fn is_suitable(&self, needed: u64) -> bool {
        self.kind != GpuKind::Software && self.budget >= needed
    }
}

/// Returns why none of the GPUs is suitable.
fn reason(candidates: &[Candidate], needed: u64) -> String {
    let gib = |bytes: u64| bytes as f64 / (1u64 << 30) as f64;
    let hardware: Vec<_> = candidates.iter().filter(|candidate| candidate.kind != GpuKind::Software).collect();
    match (hardware.as_slice(), candidates) {
        ([], []) => "there is no GPU with a Vulkan, Metal or DX12 driver; install a driver".into(),
        ([], [software, ..]) => {
            format!("there is only a software adapter, {}; install the GPU's driver", software.name)
        }
        (hardware, _) => {
            let list = hardware.iter().map(|gpu| format!("{} may use {:.2} GiB", gpu.name, gib(gpu.budget)));
            format!(
                "the model needs {:.2} GiB of a GPU's memory, and {}; allow more, close other programs, or use a model \
                 with smaller weights, such as a Q4_K file",
                gib(needed),
                list.collect::<Vec<_>>().join(", ")
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(name: &str, kind: GpuKind, gib: u64) -> Candidate {
        Candidate { name: name.into(), kind, budget: gib << 30 }
    }

    #[test]
    fn a_gpu_is_suitable_if_it_is_real_and_has_enough_memory() {
        let gpus = [
            candidate("GeForce", GpuKind::Discrete, 2),
            candidate("Arc", GpuKind::Integrated, 6),
            candidate("llvmpipe", GpuKind::Software, 64),
        ];
        let suitable = |needed: u64| gpus.iter().map(|gpu| gpu.is_suitable(needed << 30)).collect::<Vec<_>>();
        assert_eq!(suitable(2), [true, true, false]);
        assert_eq!(suitable(3), [false, true, false]);
        assert_eq!(suitable(7), [false; 3]);
        let reason = reason(&gpus, 7 << 30);
        assert!(reason.contains("needs 7.00 GiB") && reason.contains("use a model"), "{reason}");
        assert!(reason.contains("GeForce may use 2.00 GiB, Arc may use 6.00 GiB;"), "{reason}");
    }

    #[test]
    fn the_reason_for_the_cpu_names_the_remedy() {
        assert!(reason(&[], 1).contains("no GPU with a Vulkan, Metal or DX12 driver; install a driver"));
        let software = [candidate("llvmpipe", GpuKind::Software, 64)];
        assert!(reason(&software, 1).contains("only a software adapter, llvmpipe; install the GPU's driver"));
    }
}
