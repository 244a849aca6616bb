//! The memory that the pipeline may use.

use sysinfo::{CGroupLimits, MemoryRefreshKind, RefreshKind, System};

use crate::error::{Error, Result};

/// The part of the free memory that is used by default. The rest is for other programs, and for memory that is not planned.
const USED_PART: f64 = 0.9;

/// The memory that weights and intermediate values may take.
///
/// Blocks of the denoiser that do not fit are read again for each step, which is slower. The images do not depend on it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum MemoryBudget {
    /// 90 % of the memory that the computer, the container or the GPU has free when a request starts.
    #[default]
    Available,
    /// This number of GiB.
    GiB(f64),
}

impl MemoryBudget {
    /// Returns the budget in bytes. `in_use` is the memory that the pipeline already uses.
    pub(crate) fn bytes(self, in_use: u64) -> Result<u64> {
        Ok(self.explicit("memory")?.unwrap_or_else(|| part(free_memory()) + in_use))
    }

    /// Returns the budget of a GPU in bytes. `usable` is the memory that this process may use.
    #[cfg(feature = "gpu")]
    pub(crate) fn gpu_bytes(self, usable: u64) -> Result<u64> {
        Ok(self.explicit("gpu_memory")?.unwrap_or(part(usable)))
    }

    fn explicit(self, parameter: &'static str) -> Result<Option<u64>> {
        match self {
            Self::GiB(size) if size.is_finite() && size > 0.0 => Ok(Some((size * (1u64 << 30) as f64) as u64)),
            Self::GiB(size) => {
                Err(Error::parameter(parameter, format!("is {size} GiB; use a number above 0, such as 8")))
            }
            Self::Available => Ok(None),
        }
    }
}

fn part(free: u64) -> u64 {
    (free as f64 * USED_PART) as u64
}

/// Returns the number of bytes that the computer and the container have free.
pub(crate) fn free_memory() -> u64 {
    let system =
        System::new_with_specifics(RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram()));
    let free = system.available_memory();
    // Without /proc, the memory is unknown, and the limits of control groups would panic.
    if system.total_memory() == 0 {
        return u64::MAX;
    }
    system.cgroup_limits().map_or(free, |limits| free.min(free_in_container(&limits)))
}

/// Returns the number of bytes that a container has free. Its cache of files does not count as used, because the operating
/// system frees it when memory is needed; otherwise a container that has read the weights once would have no memory left.
fn free_in_container(limits: &CGroupLimits) -> u64 {
    limits.total_memory.saturating_sub(limits.rss)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_of_files_does_not_count_as_used_memory_of_a_container() {
        // The container has read a file of 5 bytes.
        let limits = CGroupLimits { total_memory: 8, free_memory: 1, free_swap: 0, rss: 2 };
        assert_eq!(free_in_container(&limits), 6);
        assert_eq!(free_in_container(&CGroupLimits { rss: 9, ..limits }), 0);
    }

    #[test]
    fn a_budget_is_a_positive_number_or_what_is_free() {
        assert_eq!(MemoryBudget::GiB(1.5).bytes(7).unwrap(), 3 << 29);
        for size in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let error = MemoryBudget::GiB(size).bytes(0).unwrap_err();
            assert!(matches!(error, Error::Parameter { parameter: "memory", .. }), "{error}");
        }
        let free = MemoryBudget::Available.bytes(0).unwrap();
        assert!(free > 10 << 20 && free < 1 << 50, "{free}");
        assert!(MemoryBudget::Available.bytes(1 << 50).unwrap() > 1 << 50);
    }
}
