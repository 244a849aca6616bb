//! An open GPU, and the errors that it reports.

use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use super::adapters;
use super::buffer::Pool;
use super::cache::Cache;
use super::kernels::MAX_INPUTS;
use super::matrices::{self, Matrices};
use super::pipelines::Pipelines;
use super::queue::Queue;
use super::self_test::Report;
use crate::error::{Error, Result};

/// The number of bytes of a kernel's parameters. Every Vulkan driver offers as many.
pub(super) const PARAMETERS: u32 = 128;

/// An open GPU. Clones share it.
#[derive(Clone)]
pub(crate) struct Gpu(pub(super) Arc<Inner>, Precision);

/// The precision of matrix products.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Precision {
    /// The factors are f16 where cooperative matrices are used.
    Fast,
    /// All values are f32.
    Full,
}

pub(super) struct Inner {
    pub(super) name: String,
    pub(super) adapter: wgpu::Adapter,
    pub(super) device: wgpu::Device,
    pub(super) limits: wgpu::Limits,
    /// Whether the driver computes on the CPU.
    pub(super) is_software: bool,
    /// Whether kernels are compiled with bounds checks, and with a counter in each loop.
    pub(super) has_checks: bool,
    /// The size of a band of an image, in bytes.
    band_bytes: usize,
    pub(super) queue: Queue,
    pub(super) pool: Pool,
    /// The layouts of the kernels with one input, two inputs and so on.
    pub(super) layouts: Vec<Layout>,
    pub(super) pipelines: Pipelines,
    /// The result of the self-test, once it is complete.
    report: OnceLock<Report>,
    /// The names and sources of all kernels.
    #[cfg(test)]
    #[cfg(feature = "_gpu-tests")]
    pub(super) sources: Mutex<Vec<(String, String)>>,
    /// The first error that a callback of the driver has reported.
    failure: Arc<Mutex<Option<String>>>,
    /// The driver's message, if nothing can be computed any more because it has reset the device.
    lost: Arc<OnceLock<String>>,
}

/// How an adapter is opened.
pub(super) struct Options {
    /// Whether kernels are compiled with bounds checks, and with a counter in each loop.
    pub(super) has_checks: bool,
    /// The size of a band of an image, in bytes.
    pub(super) band_bytes: usize,
    /// The cooperative matrices that are tested, or why there are none.
    pub(super) matrices: std::result::Result<Vec<Matrices>, &'static str>,
    /// The result of an earlier self-test.
    pub(super) report: Option<Report>,
    pub(super) cache: Cache,
}

impl Options {
    pub(super) fn new(adapter: &wgpu::Adapter) -> Self {
        Self {
            // Without checks, the LLVM of older software drivers compiles some kernels for minutes.
            has_checks: adapter.get_info().device_type == wgpu::DeviceType::Cpu,
            // A convolution reads at most two bands and a few rows. Every driver can bind 128 MiB.
            band_bytes: 32 << 20,
            matrices: Matrices::of(adapter),
            report: None,
            // Tests leave no files behind.
            cache: if cfg!(test) { Cache::default() } else { Cache::of_user() },
        }
    }
}

impl Inner {
    fn is_lost(&self) -> bool {
        self.lost.get().is_some()
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
            return Ok(Self(gpu, Precision::Fast));
        }
        let gpu = Self::open(adapter, Options::new(adapter))?;
        open.push((info, Arc::downgrade(&gpu.0)));
        Ok(gpu)
    }

    /// Opens an adapter.
    ///
    /// # Errors
    /// [`Error::Device`] if its driver lacks what the kernels need, or computes wrong results.
    pub(super) fn open(adapter: &wgpu::Adapter, options: Options) -> Result<Self> {
        let Options { has_checks, band_bytes, matrices, report, cache } = options;
        let info = adapter.get_info();
        let (name, is_software) = (info.name.clone(), info.device_type == wgpu::DeviceType::Cpu);
        let needed = wgpu::Features::IMMEDIATES;
        let limits = adapter.limits();
        if !adapter.features().contains(needed) || limits.max_immediate_size < PARAMETERS {
            return Err(Error::Device(format!(
                "{name} has no immediate data of {PARAMETERS} bytes; update its driver, or use the CPU"
            )));
        }
        let mut features = needed | (adapter.features() & wgpu::Features::PIPELINE_CACHE);
        let mut experimental_features = wgpu::ExperimentalFeatures::disabled();
        if matrices.is_ok() {
            features |= matrices::FEATURES;
            #[allow(unsafe_code, reason = "cooperative matrices are an experimental feature of wgpu")]
            // SAFETY: wgpu requires that the caller expects undefined behaviour where an experimental feature has a bug. Only
            // kernels with matrices that the adapter lists use the feature, and the self-test compares their results.
            let enabled = unsafe { wgpu::ExperimentalFeatures::enabled() };
            experimental_features = enabled;
        }
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("lumenfall"),
            required_features: features,
            experimental_features,
            required_limits: limits.clone(),
            memory_hints: wgpu::MemoryHints::MemoryUsage,
            ..Default::default()
        };
        let (device, queue) = pollster::block_on(adapter.request_device(&descriptor))
            .map_err(|error| Error::Device(format!("{name} cannot be opened: {error}; use another GPU, or the CPU")))?;
        let failure: Arc<Mutex<Option<String>>> = Arc::default();
        // Without this function, wgpu would panic.
        let reported = Arc::clone(&failure);
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            reported.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error.to_string());
        }));
        let lost: Arc<OnceLock<String>> = Arc::default();
        let reason = Arc::clone(&lost);
        device.set_device_lost_callback(move |_, message| drop(reason.set(message)));
        let layouts = (1..=MAX_INPUTS).map(|inputs| layout(&device, inputs)).collect();
        // What identifies the adapter and its driver.
        let driver = format!("{info:?}");
        let pipelines = Pipelines::open(&device, &driver, &cache);
        let (queue, pool) = (Queue::new(queue), Pool::default());
        let inner = Inner {
            name,
            adapter: adapter.clone(),
            device,
            limits,
            is_software,
            has_checks,
            band_bytes,
            queue,
            pool,
            layouts,
            pipelines,
            report: OnceLock::new(),
            #[cfg(test)]
            #[cfg(feature = "_gpu-tests")]
            sources: Mutex::default(),
            failure,
            lost,
        };
        let gpu = Self(Arc::new(inner), Precision::Fast);
        let report = match (report, info.backend) {
            (Some(report), _) => Ok(report),
            // An adapter that computes nothing is one of tests.
            (None, wgpu::Backend::Noop) => Ok(Report::default()),
            (None, _) => Report::of(&gpu, &driver, &matrices, &cache),
        };
        if report.is_err() && gpu.is_lost() && matrices.is_ok() {
            let matrices = Err(matrices::FAILED);
            return Self::open(adapter, Options { has_checks, band_bytes, matrices, report: None, cache });
        }
        let report = report?;
        gpu.0.report.get_or_init(|| report);
        gpu.0.pipelines.save();
        gpu.reset_peak();
        Ok(gpu)
    }

    /// Returns the same GPU, where all products are computed in f32.
    pub(crate) fn with_full_precision(&self) -> Self {
        Self(Arc::clone(&self.0), Precision::Full)
    }

    /// Returns the result of the self-test.
    pub(super) fn report(&self) -> Option<&Report> {
        self.0.report.get()
    }

    /// Returns the cooperative matrices that products use.
    pub(crate) fn matrices(&self) -> Option<Matrices> {
        self.report().filter(|_| self.1 == Precision::Fast)?.matrices
    }

    /// Returns the cooperative matrices that attention uses.
    pub(super) fn attention_matrices(&self) -> Option<Matrices> {
        self.report().filter(|_| self.1 == Precision::Fast)?.attention_matrices
    }

    /// Returns the size of a band of an image, in bytes.
    pub(crate) fn band_bytes(&self) -> usize {
        self.0.band_bytes
    }

    /// Returns whether nothing can be computed any more, because the driver has reset the device.
    pub(crate) fn is_lost(&self) -> bool {
        self.0.is_lost()
    }

    /// Opens the adapter again, after the device was lost.
    ///
    /// # Errors
    /// [`Error::Device`] if the adapter does not exist anymore or cannot be opened.
    pub(crate) fn reopened(&self) -> Result<Self> {
        let info = self.0.adapter.get_info();
        match adapters::all().iter().find(|adapter| adapter.get_info() == info) {
            Some(adapter) => Self::of(adapter),
            None => Err(Error::Device(format!(
                "{}: the device was lost, and its driver does not list it anymore; restart the program, use another GPU, \
                 or use the CPU",
                self.0.name
            ))),
        }
    }

    /// Resets the device, as a driver does.
    #[cfg(test)]
    pub(crate) fn lose(&self) {
        self.0.device.destroy();
    }

    /// Returns the name that the driver reports.
    pub(crate) fn name(&self) -> &str {
        &self.0.name
    }

    /// Returns the error that the driver has reported since the last call.
    ///
    /// # Errors
    /// [`Error::Device`] if there is one.
    pub(super) fn check(&self) -> Result<()> {
        let failure = self.0.failure.lock().unwrap_or_else(PoisonError::into_inner).take();
        if failure.is_some() {
            // The driver reports the loss of the device only when it is polled, after the errors that follow from it.
            drop(self.poll_device(wgpu::PollType::Poll));
        }
        match (self.0.lost.get(), failure) {
            (Some(message), _) => Err(self.error(format!("the device was lost ({message})"))),
            (None, Some(message)) => Err(self.error(message)),
            (None, None) => Ok(()),
        }
    }

    /// Polls the device. wgpu panics if the driver has lost it, which [`check`](Self::check) reports afterwards.
    pub(super) fn poll_device(&self, poll: wgpu::PollType) -> std::result::Result<wgpu::PollStatus, wgpu::PollError> {
        let polled = panic::catch_unwind(AssertUnwindSafe(|| self.0.device.poll(poll)));
        polled.unwrap_or_else(|_| {
            self.0.lost.get_or_init(|| "the driver does not say why".into());
            Ok(wgpu::PollStatus::Poll)
        })
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
