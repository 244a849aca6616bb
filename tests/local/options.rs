//! Options of the local backend, and other backends' refusal of them.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use lumenfall::ErrorKind::{InvalidRequest, Timeout, Unsupported};
use lumenfall::backend::{Backend, Content, Options, Progress, Request};
use lumenfall::local::{
    AtDeadline, GuidanceMethod, Latents, Local, LocalOptions, LongPrompts, Noise, PromptWeights, Recipe, Sampler,
    Schedule, Shift, SkipLayers, SkipWindow,
};
use lumenfall::remote::{Fal, Remote, Replicate};
use lumenfall::{Client, Images, Inline, SkipLayerGuidance};
use lumenfall_diffusion::RgbImage;

use crate::{client, spec};

/// Returns options with every field set but the decoder, which needs a file.
fn all() -> LocalOptions {
    LocalOptions::default()
        .with_sampler(Sampler::Dpmpp2m)
        .with_schedule(Schedule::Karras)
        .with_shift(Shift::Fixed(2.0))
        .with_shift_terminal(0.02)
        .with_guidance_method(GuidanceMethod::ZeroStar { zero_init_steps: 1 })
        .with_guidance_start(0.3)
        .with_guidance_end(0.9)
        .with_guidance_rescale(0.5)
        .with_skip_layers(SkipLayers::new(vec![1], 2.0, SkipWindow::Sigma { start: 0.0, end: 0.5 }))
        .with_noise(Noise::Portable)
        .with_latents(Latents::new(vec![0.5; 16 * 4 * 4]))
        .with_prompt_weights(PromptWeights::A1111)
        .with_long_prompts(LongPrompts::Chunks)
        .with_t5_tokens(40)
        .with_clip_g_prompt("a red [circle]")
        .with_t5_prompt("a (moon:0.5)")
        .with_clip_g_negative_prompt("blue")
        .with_t5_negative_prompt("green")
        .with_first_block_cache(0.9)
        .with_preview_every(1)
        .with_at_deadline(AtDeadline::BestImage)
}

/// Returns the pixels of the first image. Its file also contains the options.
fn pixels(images: &Images<Inline>) -> RgbImage {
    RgbImage::decode(images[0].bytes()).unwrap()
}

#[tokio::test]
async fn every_option_changes_the_image_and_a_result_repeats_it() {
    let client = client();
    let draw = async |local: LocalOptions| {
        let request = spec(|spec| {
            (spec.options.local, spec.options.sampling.steps, spec.options.sampling.seed) = (local, Some(4), Some(1));
            spec.prompt = "a (yellow:1.5) star \\(small\\), ".repeat(8);
        });
        client.images().generate_spec(request).inline().send().await.unwrap()
    };
    let plain = draw(LocalOptions::default()).await;
    let serde_json::Value::Object(form) = serde_json::to_value(all()).unwrap() else { panic!("not an object") };
    assert_eq!(form.len(), 21);
    for (name, value) in form {
        let mut options = LocalOptions::default();
        options.set(&name, value).unwrap();
        let images = draw(options).await;
        let keeps_image = ["preview_every", "at_deadline"].contains(&&*name);
        assert_eq!(pixels(&images) == pixels(&plain), keeps_image, "{name}");
        let skipped = images.metadata().skipped_forwards;
        assert_eq!(skipped.is_some_and(|skipped| skipped > 0), name == "first_block_cache", "{name}");
    }
    let first = draw(all()).await;
    let parameters: Options =
        serde_json::from_str(&serde_json::to_string(&first.metadata().parameters).unwrap()).unwrap();
    let mut expected = all();
    (expected.preview_every, expected.at_deadline) = (None, None);
    assert_eq!(parameters.local, expected);
    let recipe = Recipe::from_bytes(first[0].bytes()).unwrap();
    let Request::Generate(repeated) = &recipe.request else { panic!("{recipe:?}") };
    assert_eq!(repeated.options, parameters);
    let again = client.images().repeat(recipe).unwrap().send().await.unwrap();
    assert_eq!(again[0].bytes(), first[0].bytes());
}

#[tokio::test]
async fn defaults_apply_to_requests_that_do_not_set_an_option() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/crates/lumenfall-diffusion/tests/golden/model");
    let open = |defaults| Local::builder(folder).defaults(defaults).open().unwrap();
    let portable = LocalOptions::default().with_noise(Noise::Portable);
    let with_defaults = open(portable.clone());
    assert_ne!(with_defaults.identity(), open(LocalOptions::default()).identity(), "they change images");
    let client = Client::new(with_defaults);
    let draw = async |client: &Client, local: LocalOptions| {
        let request = spec(|spec| (spec.options.local, spec.options.sampling.seed) = (local, Some(1)));
        pixels(&client.images().generate_spec(request).inline().send().await.unwrap())
    };
    let plain = crate::client();
    assert_eq!(draw(&client, LocalOptions::default()).await, draw(&plain, portable).await);
    let torch = LocalOptions::default().with_noise(Noise::TorchCpu);
    assert_eq!(draw(&client, torch).await, draw(&plain, LocalOptions::default()).await);
}

#[test]
fn other_backends_refuse_local_options_by_name() {
    let backends: [Box<dyn Backend>; 3] = [
        Box::new(Remote::builder().api_key("key").build().unwrap()),
        Box::new(Fal::builder().api_key("key").build().unwrap()),
        Box::new(Replicate::builder().api_key("key").build().unwrap()),
    ];
    let request = spec(|spec| spec.options.local.sampler = Some(Sampler::Heun));
    for backend in backends {
        let error = backend.check(&request.clone().into()).unwrap_err();
        assert_eq!((error.kind(), error.parameter()), (Unsupported, Some("local.sampler")), "{error}");
        assert!(error.to_string().contains("`local.sampler` is an option of the local backend"), "{error}");
    }
}

#[tokio::test]
async fn invalid_options_are_errors_that_name_them() {
    let mut options = LocalOptions::default();
    for (name, value, text) in [("sampler", "ddim", "unknown variant `ddim`"), ("samplers", "euler", "unknown field")] {
        let error = options.set(name, value).unwrap_err();
        assert_eq!((error.kind(), error.parameter()), (InvalidRequest, Some(&*format!("local.{name}"))));
        assert!(error.to_string().contains(text), "{error}");
    }
    let twice = LocalOptions::default().with_skip_layers(SkipLayers::diffusers());
    for (local, parameter) in [
        (LocalOptions::default().with_preview_every(0), "local.preview_every"),
        (twice, "skip_layer_guidance"),
        (LocalOptions::default().with_latents(Latents::new(vec![0.0; 7])), "latents"),
        (LocalOptions::default().with_t5_tokens(513), "t5_tokens"),
        (LocalOptions::default().with_schedule(Schedule::Sigmas(vec![0.5, 0.6])), "sigmas"),
    ] {
        let request = spec(|spec| {
            (spec.options.local, spec.options.sampling.steps) = (local, None);
            if parameter == "skip_layer_guidance" {
                spec.options.sampling.skip_layer_guidance = Some(SkipLayerGuidance::default());
            }
        });
        let error = client().images().generate_spec(request).send().await.unwrap_err();
        assert_eq!((error.kind(), error.parameter()), (InvalidRequest, Some(parameter)), "{error}");
    }
}

#[tokio::test]
async fn previews_follow_their_steps_and_are_small_png_files() {
    let events = Arc::new(Mutex::new(Vec::new()));
    let record = Arc::clone(&events);
    let request = spec(|spec| {
        (spec.options.sampling.steps, spec.options.n) = (Some(5), Some(2));
        spec.options.local.preview_every = Some(2);
    });
    let request = client().images().generate_spec(request);
    request.on_progress(move |event| record.lock().unwrap().push(event)).send().await.unwrap();
    let mut previews = Vec::new();
    let mut last_step = None;
    for event in events.lock().unwrap().iter() {
        match event {
            Progress::Step { image, step, .. } => last_step = Some((*image, *step)),
            Progress::PartialImage { index, content: Content::Bytes(file) } => {
                let preview = RgbImage::decode(file).unwrap();
                assert_eq!((preview.width(), preview.height()), (4, 4));
                previews.push((*index, last_step.unwrap()));
            }
            _ => {}
        }
    }
    assert_eq!(previews, [(0, (0, 2)), (1, (0, 4)), (2, (1, 2)), (3, (1, 4))]);
}

#[tokio::test]
async fn a_panic_at_a_preview_fails_only_its_request() {
    let client = client();
    let request = spec(|spec| (spec.options.sampling.steps, spec.options.local.preview_every) = (Some(3), Some(1)));
    let request = client.images().generate_spec(request).on_progress(|event| {
        assert!(!matches!(event, Progress::PartialImage { .. }), "message of the callback");
    });
    let error = request.send().await.unwrap_err();
    assert!(error.to_string().contains("message of the callback"), "{error}");
    client.images().generate_spec(spec(|_| {})).send().await.unwrap();
}

#[tokio::test]
async fn at_a_deadline_the_best_image_is_returned() {
    let client = client();
    let request = |steps| {
        spec(move |spec| {
            (spec.options.sampling.steps, spec.options.n) = (Some(steps), Some(2));
            spec.options.local.at_deadline = Some(AtDeadline::BestImage);
        })
    };
    // The weights are read before.
    let complete = client.images().generate_spec(request(2)).timeout(Duration::from_secs(60)).inline().send();
    let complete = complete.await.unwrap();
    assert_eq!((complete.metadata().steps, complete.len()), (Some(2), 2));
    assert!(complete.metadata().warnings.is_empty());

    let started = Instant::now();
    let stopped = client.images().generate_spec(request(1000)).timeout(Duration::from_millis(300)).inline().send();
    let stopped = stopped.await.unwrap();
    let (metadata, elapsed) = (stopped.metadata(), started.elapsed());
    assert!(metadata.steps.is_some_and(|steps| (1..1000).contains(&steps)), "{metadata:?}");
    assert!(elapsed < Duration::from_secs(5), "{elapsed:?}");
    assert_eq!(stopped.len(), 1);
    assert!(metadata.warnings.iter().any(|warning| warning.contains("of 1000")), "{:?}", metadata.warnings);
    assert!(metadata.warnings.iter().any(|warning| warning.contains("after 1 of 2 images")), "{:?}", metadata.warnings);

    // A request that waits for another one until its deadline has no image.
    let long = client.images().generate_spec(request(1000)).timeout(Duration::from_millis(400)).send();
    let waiting = client.images().generate_spec(request(1)).timeout(Duration::from_millis(100)).send();
    let (_, error) = tokio::join!(long, waiting);
    assert_eq!(error.unwrap_err().kind(), Timeout);
}
