//! The memory of an adapter.

use super::adapters::{GpuKind, kind};
use super::device::Gpu;
use crate::placement::free_memory;

/// The memory that is assumed for a GPU with its own memory whose driver does not report it, in bytes.
const UNREPORTED: u64 = 4 << 30;

impl Gpu {
    /// Returns the number of bytes that this process may use, including those that it uses already.
    pub(crate) fn memory(&self) -> u64 {
        usable(&self.0.adapter, self.allocated())
    }

    /// Returns whether the memory is that of the computer.
    pub(crate) fn shares_memory(&self) -> bool {
        shares_memory(&self.0.adapter)
    }
}

/// Returns the number of bytes of an adapter that this process may use. `in_use` are those that it uses already.
pub(super) fn usable(adapter: &wgpu::Adapter, in_use: u64) -> u64 {
    choose(reported(adapter), shares_memory(adapter).then(|| free_memory().saturating_add(in_use)))
}

fn shares_memory(adapter: &wgpu::Adapter) -> bool {
    // The GPUs of Apple's processors report that they are discrete.
    let is_metal = adapter.get_info().backend == wgpu::Backend::Metal;
    is_metal || matches!(kind(adapter), GpuKind::Integrated | GpuKind::Software)
}

/// Chooses between what the driver reports and the free memory of the computer, if the GPU shares it.
fn choose(reported: Option<u64>, shared: Option<u64>) -> u64 {
    match (reported, shared) {
        (Some(reported), Some(shared)) => reported.min(shared),
        (Some(bytes), None) | (None, Some(bytes)) => bytes,
        (None, None) => UNREPORTED,
    }
}

/// Returns the number of bytes of the adapter's memory that this process may use, if its driver reports it: with Vulkan, but
/// neither with Metal nor with DX12.
#[cfg(not(target_vendor = "apple"))]
pub(super) fn reported(adapter: &wgpu::Adapter) -> Option<u64> {
    use ash::vk;

    #[allow(unsafe_code, reason = "wgpu does not report the memory of an adapter")]
    // SAFETY: Nothing is destroyed, and the handles are used while the guard keeps the instance alive. The functions of
    // Vulkan 1.1 are called only if the instance and the device have this version. The driver fills in the structures, whose
    // types `ash` sets; one that does not know the extension leaves the budget as it is.
    let (memory, budget) = unsafe {
        let adapter = adapter.as_hal::<wgpu::hal::api::Vulkan>()?;
        let (instance, device) = (adapter.shared_instance(), adapter.physical_device_capabilities().properties());
        if instance.instance_api_version().min(device.api_version) < vk::API_VERSION_1_1 {
            return None;
        }
        let mut budget = vk::PhysicalDeviceMemoryBudgetPropertiesEXT::default();
        let mut properties = vk::PhysicalDeviceMemoryProperties2::default().push_next(&mut budget);
        let physical = adapter.raw_physical_device();
        instance.raw_instance().get_physical_device_memory_properties2(physical, &mut properties);
        (properties.memory_properties, budget)
    };
    let heaps = memory.memory_heaps_as_slice().iter().zip(budget.heap_budget);
    let local = heaps.filter(|(heap, _)| heap.flags.contains(vk::MemoryHeapFlags::DEVICE_LOCAL));
    // Without the extension, the budget is 0.
    local.map(|(heap, budget)| if budget > 0 { budget } else { heap.size }).max()
}

/// Returns nothing, because Metal does not report the memory through wgpu.
#[cfg(target_vendor = "apple")]
pub(super) fn reported(_adapter: &wgpu::Adapter) -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::tests::gpu;

    #[test]
    fn the_memory_is_what_the_driver_reports_or_a_documented_default() {
        assert_eq!(choose(Some(8), None), 8);
        // A GPU that shares the memory of the computer has no more than what is free.
        assert_eq!(choose(Some(8), Some(6)), 6);
        assert_eq!(choose(Some(8), Some(10)), 8);
        assert_eq!(choose(None, Some(6)), 6);
        assert_eq!(choose(None, None), 4 << 30);
    }

    #[test]
    fn the_memory_of_this_machines_gpu_is_reported() {
        let adapter = &gpu().0.adapter;
        let Some(reported) = reported(adapter) else {
            assert_ne!(adapter.get_info().backend, wgpu::Backend::Vulkan);
            return;
        };
        assert!(reported > 64 << 20 && reported < 1 << 50, "{reported}");
        assert!(gpu().memory() > 64 << 20);
    }
}
