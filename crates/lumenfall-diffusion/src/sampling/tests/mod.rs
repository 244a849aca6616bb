//! Compares samplers, schedules, guidance and noise with the values of `tools/sampling_golden.py`.

use std::collections::HashMap;
use std::path::Path;

use super::{Sampler, Schedule, ScheduleOptions, Scheduler};
use crate::checkpoint::scheduler::{self, SchedulerConfig};
use crate::error::Result;
use crate::weights::ModelFiles;

mod guidance;
mod model;
mod noise;
mod pipeline;
mod sampler;
mod schedule;

const TOLERANCE: f32 = 1e-5;
const SAMPLERS: [(&str, Sampler); 7] = [
    ("euler", Sampler::Euler),
    ("heun", Sampler::Heun),
    ("dpmpp_2m", Sampler::Dpmpp2m),
    ("dpmpp_2m_flow", Sampler::Dpmpp2mFlow),
    ("uni_pc", Sampler::UniPc),
    ("euler_ancestral", Sampler::EulerAncestral),
    ("lcm", Sampler::Lcm),
];

struct Golden(HashMap<String, Vec<f32>>);

impl Golden {
    fn open() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/sampling.safetensors");
        let bytes = std::fs::read(path).unwrap();
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let values = |data: &[u8]| data.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        Self(tensors.iter().map(|(name, tensor)| (name.to_string(), values(tensor.data()))).collect())
    }

    fn get(&self, name: &str) -> &[f32] {
        self.0.get(name).unwrap_or_else(|| panic!("no golden tensor {name}"))
    }

    /// Returns the rows of a matrix with the width of the latent.
    fn rows(&self, name: &str) -> Vec<&[f32]> {
        self.get(name).chunks(self.get("latent").len()).collect()
    }
}

#[track_caller]
fn assert_close(actual: &[f32], expected: &[f32], tolerance: f32, name: &str) {
    assert_eq!(actual.len(), expected.len(), "{name}");
    for (index, (actual, expected)) in actual.iter().zip(expected).enumerate() {
        assert!((actual - expected).abs() <= tolerance, "{name}, value {index}: {actual}, expected {expected}");
    }
}

/// Returns the configuration of Stable Diffusion 3.5 with additional settings.
fn configuration(settings: &str) -> Result<SchedulerConfig> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("scheduler")).unwrap();
    std::fs::write(folder.path().join("scheduler/scheduler_config.json"), format!("{{\"shift\": 3.0{settings}}}"))
        .unwrap();
    scheduler::read(&ModelFiles::Folder(folder.path().into()))
}

fn scheduler(schedule: Option<Schedule>, sampler: Sampler, steps: u32) -> Scheduler {
    let options = ScheduleOptions { schedule, ..Default::default() };
    Scheduler::with_options(&configuration("").unwrap(), &options, sampler, Some(steps), 0).unwrap()
}
