//! Compares latents and images with those of diffusers.

use rayon::prelude::*;

use super::*;
use crate::parameters::Progress;

/// Runs the pipeline with the parameters of a golden image and compares the latents and the image. The tolerance of the
/// latents is multiplied by `leniency`.
fn assert_same_image(
    pipeline: &Pipeline,
    golden: &Golden,
    (name, run): (&str, &serde_json::Value),
    source: Option<&RgbImage>,
    leniency: f32,
) {
    let number = |key: &str| run[key].as_f64().unwrap();
    let guidance = number("guidance") as f32;
    let mut request = Parameters::new(run["prompt"].as_str().unwrap());
    // Without guidance, diffusers ignores the negative prompt. Our pipeline returns an error.
    request.negative_prompt = (guidance > 1.0).then(|| run["negative"].as_str().unwrap().to_owned());
    request.width = Some(number("width") as u32);
    request.height = Some(number("height") as u32);
    request.steps = Some(number("steps") as u32);
    request.guidance = Guidance::new(guidance);
    request.seed = run["seed"].as_u64().unwrap();
    request.t5_tokens = Some(number("t5_length") as usize);
    let latents = std::sync::Mutex::new(Vec::new());
    let expected = golden.first(&format!("{name}.initial"));
    let record = |latent: &[f32]| latents.lock().unwrap().push(Tensor::new(latent.to_vec(), expected.shape()).unwrap());
    let callbacks = Callbacks::none().with_latents(&record);
    let output = match source {
        Some(source) => pipeline.edit(source, number("strength") as f32, &request, callbacks).unwrap(),
        None => pipeline.generate(&request, callbacks).unwrap(),
    };
    let latents = latents.into_inner().unwrap();
    assert_close(&latents[0], &expected, COMPONENT_TOLERANCE * leniency);
    for (i, latent) in latents[1..].iter().enumerate() {
        assert_close(latent, &golden.first(&format!("{name}.step{i}.latents")), LATENT_TOLERANCE * leniency);
    }
    assert_eq!(output.steps, [latents.len() as u32 - 1]);
    let expected = bytes(&golden.get(&format!("{name}.picture")));
    let actual = output.images[0].pixels();
    assert_eq!(actual.len(), expected.len());
    let worst = actual.iter().zip(&expected).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
    assert!(worst <= 1, "{name}: a pixel differs by {worst}");
    // A peak signal-to-noise ratio of at least 60 dB.
    let differing = actual.iter().zip(&expected).filter(|(a, b)| a != b).count();
    assert!(differing * 1_000_000 <= actual.len() * 255 * 255, "{name}: {differing} values differ");
}

#[test]
fn generated_images_equal_those_of_diffusers() {
    for model in Model::ALL {
        let (_folder, without_t5) = model.files_without_t5();
        assert_generated_images(model, &pipeline(&model.files()), Some(&pipeline(&without_t5)), 1.0);
    }
}

/// Compares the images of a model with and, if it is given, without T5.
pub(super) fn assert_generated_images(model: Model, with_t5: &Pipeline, without_t5: Option<&Pipeline>, leniency: f32) {
    let golden = model.golden("txt2img");
    for (name, run) in model.parameters()["txt2img"].as_object().unwrap() {
        let pipeline = if run["t5"].as_bool().unwrap() { Some(with_t5) } else { without_t5 };
        if let Some(pipeline) = pipeline {
            assert_same_image(pipeline, &golden, (name, run), None, leniency);
        }
    }
}

#[test]
fn edited_images_equal_those_of_diffusers() {
    for model in Model::ALL {
        assert_edited_images(model, &pipeline(&model.files()), 1.0);
    }
}

pub(super) fn assert_edited_images(model: Model, pipeline: &Pipeline, leniency: f32) {
    let golden = model.golden("img2img");
    for (name, run) in model.parameters()["img2img"].as_object().unwrap() {
        let input = golden.get(&format!("{name}.input"));
        let [height, width, _] = input.dims().unwrap();
        let source = RgbImage::new(width as u32, height as u32, bytes(&input)).unwrap();
        assert_same_image(pipeline, &golden, (name, run), Some(&source), leniency);
    }
}

#[test]
fn requests_of_several_threads_run_one_after_another() {
    let pipeline = pipeline(&files());
    let parameters = Parameters { steps: Some(2), ..Parameters::new("a star") };
    let (started, running) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let on_progress = |progress| {
                    let Progress::Step { step, .. } = progress else { return };
                    let others = match step {
                        1 => running.fetch_add(1, Ordering::SeqCst),
                        _ => running.fetch_sub(1, Ordering::SeqCst) - 1,
                    };
                    assert_eq!(others, 0);
                };
                // The first one fits the previews, for which another one must not wait in a thread of the pool.
                let callbacks = Callbacks::new(&|| false, &on_progress).with_previews(1, &|_| {});
                pipeline.generate(&parameters, callbacks).unwrap();
                started.fetch_add(1, Ordering::SeqCst);
            });
        }
    });
    assert_eq!(started.into_inner(), 4);
}

#[test]
fn tasks_of_a_rayon_pool_do_not_nest() {
    let pipeline = pipeline(&files());
    let running = AtomicUsize::new(0);
    let most = AtomicUsize::new(0);
    let parameters = Parameters { steps: Some(1), guidance: Guidance::new(1.0), ..Parameters::new("a star") };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    pool.install(|| {
        (0..24).into_par_iter().with_max_len(1).for_each(|_| {
            most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            pipeline.generate(&parameters, Callbacks::none()).unwrap();
            running.fetch_sub(1, Ordering::SeqCst);
        });
    });
    assert!(most.load(Ordering::SeqCst) <= 2, "a thread runs several tasks at once: {most:?}");
}
