//! An open GPU, and the errors that it reports.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::buffer::Pool;
use super::kernels::MAX_INPUTS;
use super::queue::Queue;
use crate::error::{Error, Result};

/// The number of bytes of a kernel's parameters. Every Vulkan driver offers as many.
pub(super) const PARAMETERS: u32 = 128;

/// An open GPU. Clones share it.
#[derive(Clone)]
pub(crate) struct Gpu(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) name: String,
    pub(super) device: wgpu::Device,
    pub(super) limits: wgpu::Limits,
    /// Whether the driver computes on the CPU.
    pub(super) is_software: bool,
    pub(super) queue: Queue,
    pub(super) pool: Pool,
    /// The layouts of the kernels with one input, two inputs and so on.
    pub(super) layouts: Vec<Layout>,
    pub(super) pipelines: Mutex<HashMap<String, wgpu::ComputePipeline>>,
    /// The first error that a callback of the driver has reported.
    failure: Arc<Mutex<Option<String>>>,
    /// Whether nothing can be computed any more, because the driver has reset the device.
    lost: Arc<AtomicBool>,
}

impl Inner {
    fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }
}

pub(super) struct Layout {
    pub(super) bindings: wgpu::BindGroupLayout,
    pub(super) pipeline: wgpu::PipelineLayout,
}

impl fmt::Debug for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Gpu").field(&self.0.name).finish()
    }
}

impl PartialEq for Gpu {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// The open GPUs, and what identifies their adapters. Pipelines on one GPU share its buffers and kernels.
static OPEN: Mutex<Vec<(wgpu::AdapterInfo, Weak<Inner>)>> = Mutex::new(Vec::new());

impl Gpu {
    /// Returns the open GPU of an adapter, after opening it if it is not open.
    ///
    /// # Errors
    /// [`Error::Device`] if its driver lacks what the kernels need.
    pub(super) fn of(adapter: &wgpu::Adapter) -> Result<Self> {
        let info = adapter.get_info();
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|(_, gpu)| gpu.strong_count() > 0);
        let found = open.iter().find(|(other, gpu)| *other == info && gpu.upgrade().is_some_and(|gpu| !gpu.is_lost()));
        if let Some(gpu) = found.and_then(|(_, gpu)| gpu.upgrade()) {
            return Ok(Self(gpu));
        }
        let gpu = Self::open(adapter)?;
        open.push((info, Arc::downgrade(&gpu.0)));
        Ok(gpu)
    }

    /// Opens an adapter for one test.
    #[cfg(test)]
    pub(super) fn unshared(adapter: &wgpu::Adapter) -> Result<Self> {
        Self::open(adapter)
    }

    /// Opens an adapter.
    ///
    /// # Errors
    /// [`Error::Device`] if its driver lacks what the kernels need.
    fn open(adapter: &wgpu::Adapter) -> Result<Self> {
        let wgpu::AdapterInfo { name, device_type, .. } = adapter.get_info();
        let is_software = device_type == wgpu::DeviceType::Cpu;
        let needed = wgpu::Features::IMMEDIATES;
        let limits = adapter.limits();
        if !adapter.features().contains(needed) || limits.max_immediate_size < PARAMETERS {
            return Err(Error::Device(format!(
                "{name} has no immediate data of {PARAMETERS} bytes; update its driver, or use the CPU"
            )));
        }
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("lumenfall"),
            required_features: needed,
            required_limits: limits.clone(),
            memory_hints: wgpu::MemoryHints::MemoryUsage,
            ..Default::default()
        };
        let (device, queue) = pollster::block_on(adapter.request_device(&descriptor))
            .map_err(|error| Error::Device(format!("{name} cannot be opened: {error}; use another GPU, or the CPU")))?;
        let failure: Arc<Mutex<Option<String>>> = Arc::default();
        let record = |failure: &Mutex<Option<String>>, message: String| {
            failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(message);
        };
        // Without these functions, wgpu would panic.
        let reported = Arc::clone(&failure);
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| record(&reported, error.to_string())));
        let (reported, lost) = (Arc::clone(&failure), Arc::new(AtomicBool::new(false)));
        let is_lost = Arc::clone(&lost);
        device.set_device_lost_callback(move |reason, message| {
            if reason != wgpu::DeviceLostReason::Destroyed {
                is_lost.store(true, Ordering::Relaxed);
                record(&reported, format!("the device was lost: {message}"));
            }
        });
        let layouts = (1..=MAX_INPUTS).map(|inputs| layout(&device, inputs)).collect();
        let (queue, pool, pipelines) = (Queue::new(queue), Pool::default(), Mutex::default());
        Ok(Self(Arc::new(Inner { name, device, limits, is_software, queue, pool, layouts, pipelines, failure, lost })))
    }

    /// Returns the error that the driver has reported since the last call.
    ///
    /// # Errors
    /// [`Error::Device`] if there is one.
    pub(super) fn check(&self) -> Result<()> {
        match self.0.failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(message) => Err(self.error(message)),
            None => Ok(()),
        }
    }

    /// Returns an error that names the adapter.
    pub(super) fn error(&self, problem: impl fmt::Display) -> Error {
        Error::Device(format!("{}: {problem}; try again, request a smaller image, or use the CPU", self.0.name))
    }
}

/// Returns the layout of a kernel that reads `inputs` buffers and writes one.
fn layout(device: &wgpu::Device, inputs: usize) -> Layout {
    let entry = |binding: usize| wgpu::BindGroupLayoutEntry {
        binding: binding as u32,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer {
            ty: wgpu::BufferBindingType::Storage { read_only: binding < inputs },
            has_dynamic_offset: false,
            min_binding_size: None,
        },
        count: None,
    };
    let entries: Vec<_> = (0..=inputs).map(entry).collect();
    let bindings = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: None, entries: &entries });
    let pipeline = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
        label: None,
        bind_group_layouts: &[Some(&bindings)],
        immediate_size: PARAMETERS,
    });
    Layout { bindings, pipeline }
}
