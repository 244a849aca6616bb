//! The adapters of this machine, and the choice of one.

use std::fmt;

use wgpu::{Backend, Backends, DeviceType};

use super::device::Gpu;
use super::matrices::Matrices;
use super::self_test::Report;
use crate::device::GpuChoice;
use crate::error::{Error, Result};

/// A GPU of this machine. [`devices`] lists them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GpuInfo {
    /// The index, for [`GpuChoice::Index`].
    pub index: usize,
    /// The name that the driver reports.
    pub name: String,
    /// The type of the GPU.
    pub kind: GpuKind,
    /// The programming interface: `Vulkan`, `Metal` or `DX12`.
    pub api: &'static str,
    /// The name and version of the driver.
    pub driver: String,
    /// The memory that this process may use, in bytes, if the driver reports it: with Vulkan, but neither with Metal nor with DX12.
    pub memory: Option<u64>,
    /// The maximum size of a buffer in bytes.
    pub max_buffer: u64,
    /// Whether the driver can compute in f16.
    pub f16: bool,
    /// The number of rows and columns of the cooperative matrices that matrix products and convolutions use. Without them,
    /// they use f32.
    pub matrices: Option<u32>,
    /// The same for attention.
    pub attention_matrices: Option<u32>,
    /// Why cooperative matrices are not used, or why the GPU cannot be used.
    pub note: Option<String>,
}

/// The type of a GPU, from the most suitable to the least suitable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum GpuKind {
    /// A GPU with its own memory.
    Discrete,
    /// A GPU that shares the memory of the CPU.
    Integrated,
    /// A GPU of a virtual machine.
    Virtual,
    /// A GPU of an unknown type.
    Other,
    /// A driver that computes on the CPU. It is slower than the pipeline without a GPU, so it is never the default.
    Software,
}

impl fmt::Display for GpuKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Discrete => "discrete",
            Self::Integrated => "integrated",
            Self::Virtual => "virtual",
            Self::Other => "other",
            Self::Software => "software",
        })
    }
}

/// Returns the GPUs of this machine, the most suitable one first. A GPU with drivers for several programming interfaces is
/// listed once.
///
/// This function opens each GPU, and tests it if that has not been done with its driver.
pub fn devices() -> Vec<GpuInfo> {
    let adapters = all();
    adapters.iter().enumerate().map(|(index, adapter)| info(index, adapter)).collect()
}

impl Gpu {
    /// Opens a GPU.
    ///
    /// # Errors
    /// [`Error::Device`] if it does not exist or lacks what the kernels need.
    pub(crate) fn chosen(choice: &GpuChoice) -> Result<Self> {
        let adapters = all();
        let found = match choice {
            GpuChoice::Index(index) => adapters.get(*index),
            GpuChoice::Name(name) => {
                let name = name.to_lowercase();
                adapters.iter().find(|adapter| adapter.get_info().name.to_lowercase().contains(&name))
            }
        };
        let names = || adapters.iter().map(|adapter| adapter.get_info().name).collect::<Vec<_>>();
        Self::of(found.ok_or_else(|| missing(choice, &names()))?)
    }
}

/// Returns the error of a GPU that does not exist. The machine has GPUs with the names `names`.
fn missing(choice: &GpuChoice, names: &[String]) -> Error {
    let list: Vec<_> = names.iter().enumerate().map(|(index, name)| format!("{index}: {name}")).collect();
    Error::Device(match list.is_empty() {
        true => format!(
            "there is no GPU {choice}, because this machine has no Vulkan, Metal or DX12 driver; install one, or use the CPU"
        ),
        false => format!("there is no GPU {choice}; use one of {}, or the CPU", list.join(", ")),
    })
}

/// Returns the adapters of this machine in the order of [`devices`]. A driver that cannot be loaded has none.
pub(super) fn all() -> Vec<wgpu::Adapter> {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    // wgpu's own variable `WGPU_BACKEND` can exclude an interface whose driver crashes.
    let wanted = Backends::from_env().unwrap_or(Backends::all());
    descriptor.backends = wanted & (Backends::VULKAN | Backends::METAL | Backends::DX12);
    let mut adapters = pollster::block_on(wgpu::Instance::new(descriptor).enumerate_adapters(Backends::all()));
    // Of a GPU with several drivers, the first is kept: kernels are slower through DX12 than through Vulkan.
    adapters.sort_by_key(|adapter| (kind(adapter), adapter.get_info().backend == Backend::Dx12));
    let mut known: Vec<wgpu::AdapterInfo> = Vec::new();
    adapters.retain(|adapter| {
        let info = adapter.get_info();
        // Two equal cards have different bus ids, or the same backend.
        let duplicate = known.iter().any(|other| {
            let buses = [&other.device_pci_bus_id, &info.device_pci_bus_id];
            match buses.iter().any(|bus| bus.is_empty()) {
                true => (other.vendor, other.device) == (info.vendor, info.device) && other.backend != info.backend,
                false => buses[0] == buses[1],
            }
        });
        known.push(info);
        !duplicate
    });
    adapters
}

pub(super) fn kind(adapter: &wgpu::Adapter) -> GpuKind {
    match adapter.get_info().device_type {
        DeviceType::DiscreteGpu => GpuKind::Discrete,
        DeviceType::IntegratedGpu => GpuKind::Integrated,
        DeviceType::VirtualGpu => GpuKind::Virtual,
        DeviceType::Other => GpuKind::Other,
        DeviceType::Cpu => GpuKind::Software,
    }
}

fn info(index: usize, adapter: &wgpu::Adapter) -> GpuInfo {
    let info = adapter.get_info();
    let report = Gpu::of(adapter).map(|gpu| gpu.report().cloned().unwrap_or_default());
    let report = report.unwrap_or_else(|error| Report { note: Some(error.to_string()), ..Report::default() });
    let side = |matrices: Option<Matrices>| matrices.map(|matrices| matrices.side);
    GpuInfo {
        index,
        name: info.name,
        kind: kind(adapter),
        api: match info.backend {
            Backend::Metal => "Metal",
            Backend::Dx12 => "DX12",
            _ => "Vulkan",
        },
        driver: format!("{} {}", info.driver, info.driver_info).trim().to_owned(),
        memory: super::memory::reported(adapter),
        max_buffer: adapter.limits().max_buffer_size,
        f16: adapter.features().contains(wgpu::Features::SHADER_F16),
        matrices: side(report.matrices),
        attention_matrices: side(report.attention_matrices),
        note: report.note,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_of_a_gpu_that_does_not_exist_names_the_remedy() {
        let error = missing(&GpuChoice::Index(2), &["GeForce".into(), "Arc".into()]).to_string();
        assert_eq!(error, "there is no GPU 2; use one of 0: GeForce, 1: Arc, or the CPU");
        let error = missing(&GpuChoice::Name("Arc".into()), &[]).to_string();
        assert!(
            error.contains("no GPU `Arc`, because this machine has no Vulkan") && error.contains("install one"),
            "{error}"
        );
    }
}
