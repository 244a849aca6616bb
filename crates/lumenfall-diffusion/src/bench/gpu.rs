//! The times and the memory of a request on a GPU.

use std::path::Path;
use std::time::{Duration, Instant};

use super::request::record;
use crate::device::{Device, GpuChoice};
use crate::error::{Error, Result};
use crate::parameters::LoadOptions;
use crate::pipeline::Pipeline;
use crate::placement::MemoryBudget;
use crate::weights::ModelFiles;

/// The times and the memory of requests on a GPU.
#[derive(Clone, Debug)]
pub struct GpuTimes {
    /// The time of the first image, for which kernels are compiled and weights are read.
    pub first: Duration,
    /// The time to encode the prompt and the negative prompt of the second image.
    pub text: Duration,
    /// The mean time of its steps.
    pub step: Duration,
    /// The time to decode it.
    pub decode: Duration,
    /// The time of the second image.
    pub total: Duration,
    /// The peak of the GPU's memory in bytes.
    pub peak: u64,
}

/// Generates two images of `size`×`size` pixels with guidance on the GPU with an index, within a budget of its memory.
///
/// # Errors
/// Returns the error of the model, of the GPU or of a request.
pub fn measure_gpu(path: &Path, index: usize, size: u32, steps: u32, memory: MemoryBudget) -> Result<GpuTimes> {
    let device = Device::Gpu(GpuChoice::Index(index));
    let options = LoadOptions { device, gpu_memory: memory, ..LoadOptions::default() };
    let pipeline = Pipeline::open(&ModelFiles::find(path)?, &options)?;
    let (_, first) = record(&pipeline, Instant::now(), "a harbour in the morning, watercolour", size, steps)?;
    let (marks, total) = record(&pipeline, Instant::now(), "a lighthouse at dusk, oil on canvas", size, steps)?;
    let ([encoding, before_steps, ..], Some(last)) = (marks.as_slice(), marks.last()) else {
        return Err(Error::Compute("a request has no steps".into()));
    };
    Ok(GpuTimes {
        first,
        text: before_steps.saturating_sub(*encoding),
        step: last.saturating_sub(*before_steps) / steps.max(1),
        decode: total.saturating_sub(*last),
        total,
        peak: pipeline.gpu_peak(),
    })
}

#[cfg(test)]
#[cfg(feature = "_gpu-tests")]
mod tests {
    use super::super::configurations::Configurations;
    use super::super::normal;
    use crate::checkpoint::Part;
    use crate::checkpoint::config::{DenoiserConfig, VaeConfig};
    use crate::gpu::portable::{without_hardware, without_hardware_in_bands};
    use crate::gpu::tests::placement_on;
    use crate::models::{Conditioning, Mmdit, Omitted, Vae};
    use crate::weights::Weights;

    /// Asserts that a plan is enough, and not much more.
    fn assert_planned(what: &str, planned: u64, used: u64) {
        assert!(used <= planned && planned <= used * 3 / 2, "{what}: {planned} bytes are planned, and {used} are used");
    }

    #[test]
    fn the_planned_memory_suffices_for_a_forward_pass() {
        let config = DenoiserConfig {
            num_layers: 2,
            num_attention_heads: 3,
            dual_attention_layers: vec![0],
            pos_embed_max_size: 64,
            ..Configurations::full().denoiser().unwrap()
        };
        let conditioning = Conditioning { context: normal(&[333, 4096]).unwrap(), pooled: normal(&[1, 2048]).unwrap() };
        for size in [512, 1024] {
            let gpu = without_hardware(wgpu::Limits::unlimited());
            let weights = Weights::random().on(&placement_on(&gpu));
            let denoiser = Mmdit::open(Part { weights, config: config.clone() }).unwrap();
            denoiser.keep_blocks(2);
            let context = denoiser.embed_context(&conditioning).unwrap();
            let modulations = denoiser.modulations(&[(500.0, &conditioning.pooled)], &|| Ok(())).unwrap();
            // Nothing that is free stays allocated.
            gpu.set_limit(1);
            let forward = || {
                let latent = normal(&[16, size / 8, size / 8]).unwrap();
                denoiser.forward(&latent, &context, &modulations, 0, Omitted::default(), &|| Ok(())).unwrap();
            };
            forward();
            let tokens = 333 + size * size / 256;
            // The embedded prompt and the embeddings of the positions are in use, too.
            let used = gpu.peak() - gpu.in_use() + 4 * (tokens * 192) as u64;
            assert_planned(&format!("{size}"), denoiser.gpu_working_bytes(tokens), used);
        }
    }

    #[test]
    fn the_planned_memory_suffices_for_the_autoencoder() {
        // The bands have the same part of the largest layers as in an image of 1024x1024 with all channels.
        let (channels, side) = (8, 512);
        let config = VaeConfig {
            block_out_channels: [1, 2, 4, 4].map(|width| width * channels).to_vec(),
            norm_num_groups: 4,
            ..Configurations::full().vae().unwrap()
        };
        let gpu = without_hardware_in_bands(4 * channels * side * side / 16);
        let vae = Vae::open(Part { weights: Weights::random().on(&placement_on(&gpu)), config }).unwrap();
        vae.keep_decoder(true);
        gpu.set_limit(1);
        vae.decode(&normal(&[16, side / 8, side / 8]).unwrap(), &|| Ok(())).unwrap();
        // The memory besides the images depends on the size of bands.
        let planned = vae.gpu_decoding_bytes(side as u32, side as u32) - (128 << 20);
        assert_planned("decoder", planned, gpu.peak() - gpu.in_use());
        vae.keep_decoder(false);
        vae.encode(&normal(&[side, side, 3]).unwrap(), &|| Ok(())).unwrap();
        let planned = vae.gpu_encoding_bytes(side as u32, side as u32) - (128 << 20);
        assert_planned("encoder with its weights", planned, gpu.peak());
    }
}
