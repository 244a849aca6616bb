//! Compares the models on a GPU with the golden values, with the same functions as on the CPU.

use super::components::*;
use super::images::*;
use super::*;
use crate::device::GpuChoice;
use crate::gpu::tests::{placement, placement_on, unshared};

#[test]
fn encoded_prompts_equal_those_of_transformers() {
    assert_encoded_prompts(&placement());
}

#[test]
fn denoiser_output_equals_that_of_diffusers() {
    assert_denoiser_output(&placement());
}

#[test]
fn autoencoder_output_equals_that_of_diffusers() {
    assert_autoencoder_output(&placement());
}

#[test]
fn images_equal_those_of_diffusers() {
    let options = LoadOptions { device: Device::Gpu(GpuChoice::Index(0)), ..LoadOptions::default() };
    for model in Model::ALL {
        let pipeline = Pipeline::open(&model.files(), &options).unwrap();
        assert_generated_images(model, &pipeline, None, leniency(&placement()));
        assert_edited_images(model, &pipeline, leniency(&placement()));
    }
}

#[test]
fn the_demonstration_model_draws_what_it_draws_on_the_cpu() {
    let [expected, image] = [Device::Cpu, Device::Gpu(GpuChoice::Index(0))].map(|device| {
        let options = LoadOptions { device, ..LoadOptions::default() };
        let pipeline = Pipeline::open(&crate::demo_files(), &options).unwrap();
        let parameters = Parameters { steps: Some(4), ..Parameters::new("a green letter R on a black background") };
        pipeline.generate(&parameters, Callbacks::none()).unwrap().images[0].pixels().to_vec()
    });
    assert!(image.iter().zip(&expected).all(|(a, b)| a.abs_diff(*b) <= 1));
}

#[test]
fn cancelled_requests_leave_no_buffer_behind() {
    // Other tests use the buffers of the shared GPU at the same time.
    let gpu = unshared();
    let placement = placement_on(&gpu);
    let Checkpoint { denoiser, vae, clip_l, clip_g, t5, .. } =
        Checkpoint::open(&files()).unwrap().on(&placement, &placement);
    let text = TextEncoders::open(clip_l, clip_g, t5, 64, WithoutT5::Zeros).unwrap();
    let (denoiser, vae) = (Mmdit::open(denoiser).unwrap(), Vae::open(vae).unwrap());
    denoiser.keep_blocks(usize::MAX);
    vae.keep_decoder(true);
    let latent = Tensor::new(Generator::new(1).normal(16 * 8 * 8), &[16, 8, 8]).unwrap();
    // Prompts differ, so that they are encoded each time.
    let request = |prompt: &str, check_cancelled: &dyn Fn() -> crate::error::Result<()>| {
        let conditioning = encode(&text, &[prompt], 7, check_cancelled)?.remove(0);
        let context = denoiser.embed_context(&conditioning)?;
        let modulations = denoiser.modulations(&[(500.0, &conditioning.pooled)], check_cancelled)?;
        let omitted = Omitted::default();
        let velocity = denoiser.forward(&latent, &context, &modulations, 0, omitted, check_cancelled)?.on_cpu()?;
        vae.decode(&velocity, check_cancelled)?.on_cpu()
    };
    let checks = AtomicUsize::new(0);
    let count = || {
        checks.fetch_add(1, Ordering::Relaxed);
        Ok(())
    };
    request("a star", &count).unwrap();
    let kept = gpu.in_use();
    assert!(kept > 0);
    let checks = checks.into_inner();
    for index in 0..50 {
        // A permutation of the places where a request can be cancelled.
        let left = AtomicUsize::new(index * 7 % checks);
        let cancel = || match left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)) {
            Ok(_) => Ok(()),
            Err(_) => Err(crate::error::Error::Cancelled),
        };
        assert!(request(&format!("star {index}"), &cancel).is_err());
        assert_eq!(gpu.in_use(), kept, "request {index}");
    }
}
