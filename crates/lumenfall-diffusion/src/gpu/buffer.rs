//! Buffers of a GPU. They are used again.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::device::Gpu;
use crate::error::Result;

/// The sizes of buffers are multiples of this number of bytes, so that more of them can be used again.
const GRANULARITY: u64 = 4096;

const USAGE: wgpu::BufferUsages =
    wgpu::BufferUsages::STORAGE.union(wgpu::BufferUsages::COPY_SRC).union(wgpu::BufferUsages::COPY_DST);

/// A buffer of a GPU. Its memory can be used again once nothing refers to it.
#[derive(Debug)]
pub(crate) struct Buffer {
    gpu: Gpu,
    pub(super) raw: wgpu::Buffer,
}

/// A part of a buffer with f32 values.
#[derive(Clone, Debug)]
pub(crate) struct View {
    pub(crate) buffer: Arc<Buffer>,
    /// The index of the first value.
    pub(crate) start: usize,
    pub(crate) len: usize,
}

/// The buffers of a GPU.
#[derive(Default)]
pub(super) struct Pool {
    /// The buffers that can be used again, by their size in bytes.
    free: Mutex<BTreeMap<u64, Vec<wgpu::Buffer>>>,
    /// The number of bytes of all buffers that a tensor or a weight refers to.
    in_use: AtomicU64,
    /// The number of bytes of all buffers.
    allocated: AtomicU64,
    /// The largest number of bytes of all buffers so far.
    peak: AtomicU64,
    /// The number of bytes of all buffers above which the free ones are given back before another one is created. 0: none.
    limit: AtomicU64,
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let pool = &self.gpu.0.pool;
        pool.in_use.fetch_sub(self.raw.size(), Ordering::Relaxed);
        let mut free = pool.free.lock().unwrap_or_else(PoisonError::into_inner);
        // Commands run in the order of their submission. So a command that still uses the buffer precedes the next one.
        free.entry(self.raw.size()).or_default().push(self.raw.clone());
    }
}

impl Buffer {
    pub(crate) fn gpu(&self) -> &Gpu {
        &self.gpu
    }
}

impl Gpu {
    /// Creates a buffer for `values` f32 values, which it does not initialize.
    pub(super) fn buffer(&self, values: usize) -> Result<View> {
        let size = (values as u64 * 4).max(16).next_multiple_of(GRANULARITY);
        let raw = match self.reuse(size) {
            Some(raw) => raw,
            None => self.allocate(size)?,
        };
        Ok(View { buffer: self.owned(raw), start: 0, len: values })
    }

    /// Creates a buffer with a copy of `bytes`.
    pub(super) fn upload(&self, bytes: &[u8]) -> Result<Arc<Buffer>> {
        let size = (bytes.len() as u64).max(16).next_multiple_of(GRANULARITY);
        let raw = match self.reuse(size) {
            Some(raw) => {
                // Commands that were collected may use what the buffer contains now.
                self.flush()?;
                raw
            }
            None => self.allocate(size)?,
        };
        let buffer = self.owned(raw);
        self.write(&buffer.raw, bytes)?;
        Ok(buffer)
    }

    fn owned(&self, raw: wgpu::Buffer) -> Arc<Buffer> {
        self.0.pool.in_use.fetch_add(raw.size(), Ordering::Relaxed);
        Arc::new(Buffer { gpu: self.clone(), raw })
    }

    /// Returns a free buffer that is not much larger.
    fn reuse(&self, size: u64) -> Option<wgpu::Buffer> {
        let mut free = self.0.pool.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.range_mut(size..=size + size / 4).find_map(|(_, buffers)| buffers.pop())
    }

    fn allocate(&self, size: u64) -> Result<wgpu::Buffer> {
        self.check()?;
        let max = self.0.limits.max_buffer_size;
        if size > max {
            return Err(self.error(format!("a buffer of {size} bytes is needed, but its driver allows {max}")));
        }
        let create = || {
            let out_of_memory = self.0.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
            let descriptor = wgpu::BufferDescriptor { label: None, size, usage: USAGE, mapped_at_creation: false };
            let buffer = self.0.device.create_buffer(&descriptor);
            match pollster::block_on(out_of_memory.pop()) {
                Some(_) => None,
                None => Some(buffer),
            }
        };
        let pool = &self.0.pool;
        let limit = pool.limit.load(Ordering::Relaxed);
        if limit > 0 && self.allocated() + size > limit && self.allocated() > self.in_use() {
            self.trim()?;
        }
        let created = match create() {
            Some(buffer) => Some(buffer),
            None => {
                self.trim()?;
                create()
            }
        };
        let used = self.in_use();
        let error =
            || self.error(format!("its memory is full: {size} more bytes are needed, and {used} bytes are in use"));
        let buffer = created.ok_or_else(error)?;
        let allocated = pool.allocated.fetch_add(size, Ordering::Relaxed) + size;
        pool.peak.fetch_max(allocated, Ordering::Relaxed);
        Ok(buffer)
    }

    /// Frees the buffers that nothing refers to.
    pub(crate) fn trim(&self) -> Result<()> {
        let free = std::mem::take(&mut *self.0.pool.free.lock().unwrap_or_else(PoisonError::into_inner));
        let bytes = free.iter().map(|(size, buffers)| size * buffers.len() as u64).sum();
        drop(free);
        self.0.pool.allocated.fetch_sub(bytes, Ordering::Relaxed);
        self.wait()
    }

    /// Sets the number of bytes of all buffers above which the free ones are given back before another one is created.
    pub(crate) fn set_limit(&self, bytes: u64) {
        self.0.pool.limit.store(bytes, Ordering::Relaxed);
    }

    /// Returns the number of bytes of all buffers that a tensor or a weight refers to.
    pub(crate) fn in_use(&self) -> u64 {
        self.0.pool.in_use.load(Ordering::Relaxed)
    }

    /// Returns the number of bytes of all buffers.
    pub(crate) fn allocated(&self) -> u64 {
        self.0.pool.allocated.load(Ordering::Relaxed)
    }

    /// Forgets the buffers of the self-test.
    pub(super) fn reset_peak(&self) {
        self.0.pool.peak.store(self.allocated(), Ordering::Relaxed);
    }

    /// Returns the largest number of bytes of all buffers so far.
    pub(crate) fn peak(&self) -> u64 {
        self.0.pool.peak.load(Ordering::Relaxed)
    }
}
