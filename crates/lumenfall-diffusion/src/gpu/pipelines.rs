//! The compiled kernels of a GPU, and their copy on disk.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::cache::{self, Cache};
use super::device::Gpu;
use crate::error::Result;

/// The compiled kernels by their names.
pub(super) struct Pipelines {
    compiled: Mutex<HashMap<String, wgpu::ComputePipeline>>,
    stored: Option<Stored>,
}

/// The copy on disk. It contains the kernels of earlier processes, too.
struct Stored {
    raw: wgpu::PipelineCache,
    cache: Cache,
    name: String,
    /// The number of kernels of this process that the copy contains.
    count: AtomicUsize,
}

impl Pipelines {
    /// Reads the kernels that another process has compiled with the same driver.
    pub(super) fn open(device: &wgpu::Device, adapter: &str, cache: &Cache) -> Self {
        let compiled = Mutex::default();
        if !device.features().contains(wgpu::Features::PIPELINE_CACHE) {
            return Self { compiled, stored: None };
        }
        let name = format!("kernels-{}", cache::name(&[adapter]));
        let data = cache.read(&name);
        let create = |data: Option<&[u8]>| {
            let invalid = device.push_error_scope(wgpu::ErrorFilter::Validation);
            let descriptor = wgpu::PipelineCacheDescriptor { label: None, data, fallback: true };
            #[allow(unsafe_code, reason = "no other function reads compiled kernels")]
            // SAFETY: The checksum of the file agrees, so wgpu has returned the data for an adapter and driver of this name.
            let raw = unsafe { device.create_pipeline_cache(&descriptor) };
            pollster::block_on(invalid.pop()).is_none().then_some(raw)
        };
        let raw = data.as_deref().and_then(|data| create(Some(data))).or_else(|| create(None));
        let stored = raw.map(|raw| Stored { raw, cache: cache.clone(), name, count: AtomicUsize::new(0) });
        Self { compiled, stored }
    }

    /// Writes the kernels to disk, unless none is new.
    pub(super) fn save(&self) {
        let Some(stored) = &self.stored else { return };
        let count = self.compiled.lock().unwrap_or_else(PoisonError::into_inner).len();
        if stored.count.swap(count, Ordering::Relaxed) != count
            && let Some(data) = stored.raw.get_data()
        {
            stored.cache.write(&stored.name, &data);
        }
    }
}

impl Gpu {
    /// Returns the kernel of a name, after compiling it if it is new.
    pub(super) fn pipeline(
        &self,
        name: &str,
        source: &dyn Fn() -> String,
        layout: &wgpu::PipelineLayout,
    ) -> Result<wgpu::ComputePipeline> {
        let Pipelines { compiled, stored } = &self.0.pipelines;
        let mut compiled = compiled.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pipeline) = compiled.get(name) {
            return Ok(pipeline.clone());
        }
        #[cfg(test)]
        #[cfg(feature = "_gpu-tests")]
        self.0.sources.lock().unwrap_or_else(PoisonError::into_inner).push((name.to_owned(), source()));
        let device = &self.0.device;
        // A driver's compiler reports errors as internal ones.
        let internal = device.push_error_scope(wgpu::ErrorFilter::Internal);
        let invalid = device.push_error_scope(wgpu::ErrorFilter::Validation);
        let source = wgpu::ShaderSource::Wgsl(source().into());
        let descriptor = wgpu::ShaderModuleDescriptor { label: Some(name), source };
        let checks = wgpu::ShaderRuntimeChecks {
            bounds_checks: self.0.has_checks,
            force_loop_bounding: self.0.has_checks,
            ..wgpu::ShaderRuntimeChecks::checked()
        };
        #[allow(unsafe_code, reason = "bounds checks make kernels up to 9 times slower")]
        // SAFETY: A kernel accesses only elements whose indices are less than the sizes in its parameters. Each view has as
        // many values as these sizes say: layers check the shapes of their inputs, `product` checks its inputs itself, and
        // wgpu checks that a view lies within its buffer. All loops have an upper bound and a step above 0.
        let module = unsafe { device.create_shader_module_trusted(descriptor, checks) };
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(name),
            layout: Some(layout),
            module: &module,
            entry_point: Some("main"),
            compilation_options: wgpu::PipelineCompilationOptions {
                zero_initialize_workgroup_memory: false,
                ..Default::default()
            },
            cache: stored.as_ref().map(|stored| &stored.raw),
        });
        let errors = [pollster::block_on(invalid.pop()), pollster::block_on(internal.pop())];
        if let Some(error) = errors.into_iter().flatten().next() {
            return Err(self.error(format!("its driver rejects the kernel `{name}`: {error}")));
        }
        self.check()?;
        compiled.insert(name.to_owned(), pipeline.clone());
        Ok(pipeline)
    }
}
