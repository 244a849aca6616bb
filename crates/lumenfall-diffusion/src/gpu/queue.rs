//! The commands of a GPU. They are collected, and submitted in parts that complete in a fraction of a second.

use std::collections::VecDeque;
use std::sync::mpsc;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::buffer::View;
use super::device::Gpu;
use crate::error::Result;

/// The number of operations after which commands are submitted: 0.1 seconds of a slow integrated GPU. Windows resets a GPU
/// that does not respond for 2 seconds.
const SUBMITTED_OPERATIONS: u64 = 50_000_000_000;

/// The number of commands after which they are submitted.
const SUBMITTED_COMMANDS: usize = 64;

/// The number of submissions that may be incomplete. More would delay a cancellation.
const IN_FLIGHT: usize = 2;

/// The time after which a GPU that does not complete a submission is given up.
const TIMEOUT: Duration = Duration::from_secs(120);

/// The commands that were not submitted, and the submissions that may be incomplete.
pub(super) struct Queue {
    raw: wgpu::Queue,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    commands: Vec<Command>,
    operations: u64,
    in_flight: VecDeque<wgpu::SubmissionIndex>,
}

/// One dispatch of a kernel.
pub(super) struct Command {
    pub(super) pipeline: wgpu::ComputePipeline,
    pub(super) bindings: wgpu::BindGroup,
    pub(super) parameters: Vec<u32>,
    pub(super) workgroups: [u32; 2],
    /// The approximate number of floating-point operations.
    pub(super) operations: u64,
}

impl Queue {
    pub(super) fn new(raw: wgpu::Queue) -> Self {
        Self { raw, state: Mutex::default() }
    }
}

impl Gpu {
    /// Adds a command.
    pub(super) fn push(&self, command: Command) -> Result<()> {
        let mut state = self.0.queue.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.operations = state.operations.saturating_add(command.operations);
        state.commands.push(command);
        if state.operations >= SUBMITTED_OPERATIONS || state.commands.len() >= SUBMITTED_COMMANDS {
            self.submit(&mut state, None)?;
        }
        Ok(())
    }

    /// Submits the commands, and then `last`. It waits if the GPU is far behind.
    fn submit(&self, state: &mut State, last: Option<&dyn Fn(&mut wgpu::CommandEncoder)>) -> Result<()> {
        let mut encoder = self.0.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            for command in state.commands.drain(..) {
                let [x, y] = command.workgroups;
                pass.set_pipeline(&command.pipeline);
                pass.set_bind_group(0, &command.bindings, &[]);
                pass.set_immediates(0, bytemuck::cast_slice(&command.parameters));
                pass.dispatch_workgroups(x, y, 1);
            }
        }
        last.into_iter().for_each(|last| last(&mut encoder));
        state.operations = 0;
        state.in_flight.push_back(self.0.queue.raw.submit([encoder.finish()]));
        self.check()?;
        while state.in_flight.len() > IN_FLIGHT {
            let oldest = state.in_flight.pop_front();
            self.poll(oldest)?;
        }
        Ok(())
    }

    /// Submits the commands.
    pub(super) fn flush(&self) -> Result<()> {
        let mut state = self.0.queue.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.commands.is_empty() { Ok(()) } else { self.submit(&mut state, None) }
    }

    /// Copies bytes to a buffer. Commands that were submitted use what the buffer contained before.
    pub(super) fn write(&self, buffer: &wgpu::Buffer, bytes: &[u8]) -> Result<()> {
        let queue = &self.0.queue.raw;
        // A copy consists of whole words.
        let (words, rest) = bytes.split_at(bytes.len() / 4 * 4);
        queue.write_buffer(buffer, 0, words);
        if !rest.is_empty() {
            let mut word = [0; 4];
            word.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
            queue.write_buffer(buffer, words.len() as u64, &word);
        }
        self.check()
    }

    /// Submits the commands and waits for them.
    pub(super) fn wait(&self) -> Result<()> {
        let mut state = self.0.queue.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.submit(&mut state, None)?;
        state.in_flight.clear();
        self.poll(None)
    }

    /// Waits for a submission, or for all of them.
    fn poll(&self, submission_index: Option<wgpu::SubmissionIndex>) -> Result<()> {
        let poll = wgpu::PollType::Wait { submission_index, timeout: Some(TIMEOUT) };
        let result = self.poll_device(poll).map_err(|error| self.error(format!("it does not respond ({error})")));
        self.check()?;
        result.map(|_| ())
    }

    /// Waits for the commands and returns values that they have written.
    pub(crate) fn read(&self, view: &View) -> Result<Vec<f32>> {
        let bytes = view.len as u64 * 4;
        if bytes == 0 {
            return Ok(Vec::new());
        }
        let staging = self.0.device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: bytes,
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        let copy = |encoder: &mut wgpu::CommandEncoder| {
            encoder.copy_buffer_to_buffer(&view.buffer.raw, view.start as u64 * 4, &staging, 0, bytes);
        };
        {
            let mut state = self.0.queue.state.lock().unwrap_or_else(PoisonError::into_inner);
            self.submit(&mut state, Some(&copy))?;
            state.in_flight.clear();
        }
        let (mapped, result) = mpsc::channel();
        // If the receiver is gone, the reader has given up.
        staging.map_async(wgpu::MapMode::Read, .., move |result| drop(mapped.send(result)));
        let deadline = Instant::now() + TIMEOUT;
        // A poll can return before the buffer is mapped.
        let mapped = loop {
            self.poll(None)?;
            match result.try_recv() {
                Ok(result) => break result,
                Err(_) if Instant::now() < deadline => std::thread::yield_now(),
                Err(_) => return Err(self.error("it does not complete a copy")),
            }
        };
        mapped.map_err(|error| self.error(error))?;
        self.0.pipelines.save();
        let range = staging.get_mapped_range(..).map_err(|error| self.error(error))?;
        Ok(range.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
    }
}
