//! Requests that succeed, and requests that are given up.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use lumenfall::backend::{Progress, Request, RequestContext};
use lumenfall::{Client, ErrorKind, Input, Jpeg, Sampling, Webp, count, percent, size};
use lumenfall_diffusion::Picture;

use crate::client;

fn decoded(bytes: &[u8]) -> Picture {
    Picture::decode(bytes).unwrap()
}

#[tokio::test]
async fn a_prompt_becomes_png_bytes_of_the_size_asked_for() {
    let images = client().images().generate("a star").size(size!("48x32")).steps(2).inline().send().await.unwrap();
    assert!(images[0].bytes().starts_with(b"\x89PNG"));
    let picture = decoded(images[0].bytes());
    assert_eq!((picture.width(), picture.height()), (48, 32));
    assert_eq!(images.metadata().backend, "local");
    assert_eq!(images.metadata().steps, Some(2));
}

#[tokio::test]
async fn an_aspect_ratio_keeps_the_models_area() {
    let images = client().images().generate("a star").size(size!("4:1")).steps(1).inline().send().await.unwrap();
    let picture = decoded(images[0].bytes());
    assert_eq!((picture.width(), picture.height()), (192, 48));
}

#[tokio::test]
async fn formats_are_what_their_names_say() {
    let request = || client().images().generate("a star").size(size!("32x32")).steps(1).seed(3).inline();
    let jpeg = request().output_format(Jpeg).output_compression(percent!(40)).send().await.unwrap();
    assert!(jpeg[0].bytes().starts_with(&[0xff, 0xd8, 0xff]));
    let webp = request().output_format(Webp).send().await.unwrap();
    assert!(webp[0].bytes().starts_with(b"RIFF"));
    let png = request().send().await.unwrap();
    assert_eq!(decoded(webp[0].bytes()), decoded(png[0].bytes()));
}

#[tokio::test]
async fn each_of_several_images_has_the_next_seed() {
    let client = client();
    let several = client
        .images()
        .generate("a star")
        .size(size!("32x32"))
        .steps(2)
        .seed(40)
        .n(count!(3))
        .inline()
        .send()
        .await
        .unwrap();
    assert_eq!(several.len(), 3);
    let seeds: Vec<_> = several.iter().map(|image| image.seed()).collect();
    assert_eq!(seeds, [Some(40), Some(41), Some(42)]);
    let last = client.images().generate("a star").size(size!("32x32")).steps(2).seed(42).inline().send().await.unwrap();
    assert_eq!(several[2].bytes(), last[0].bytes());
    assert_ne!(several[0].bytes(), several[1].bytes());
}

#[tokio::test]
async fn without_a_seed_images_differ_and_tell_theirs() {
    let client = client();
    let request = || client.images().generate("a star").size(size!("32x32")).steps(1).inline();
    let (first, second) = (request().send().await.unwrap(), request().send().await.unwrap());
    assert_ne!(first[0].seed(), second[0].seed());
    let again = request().seed(first[0].seed().unwrap()).send().await.unwrap();
    assert_eq!(first[0].bytes(), again[0].bytes());
}

#[tokio::test]
async fn addresses_asked_for_are_bytes_that_can_be_saved() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("star.png");
    let images = client().images().generate("a star").size(size!("32x32")).steps(1).send().await.unwrap();
    assert_eq!(images[0].url(), None);
    images[0].save(&path).await.unwrap();
    assert!(std::fs::read(path).unwrap().starts_with(b"\x89PNG"));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn an_edit_keeps_the_sources_size_and_strength_counts() {
    let client = Client::demo().unwrap();
    let source =
        client.images().generate("a large red square").size(size!("80x48")).seed(1).inline().send().await.unwrap();
    let source_bytes = source[0].bytes().clone();
    let original = decoded(&source_bytes);
    let distance = |bytes: &[u8]| -> u64 {
        let picture = decoded(bytes);
        assert_eq!((picture.width(), picture.height()), (80, 48));
        picture.rgb().iter().zip(original.rgb()).map(|(a, b)| u64::from(a.abs_diff(*b))).sum()
    };
    let edit = |strength: f32| {
        let request = client.images().edit(Input::bytes(source_bytes.clone())).prompt("a blue circle");
        request.strength(strength).steps(10).seed(5).inline().send()
    };
    let (weak, strong) = (edit(0.1).await.unwrap(), edit(1.0).await.unwrap());
    assert_eq!((weak.metadata().steps, strong.metadata().steps), (Some(1), Some(10)));
    assert!(distance(weak[0].bytes()) < distance(strong[0].bytes()));
}

#[tokio::test]
async fn progress_tells_loading_prompt_steps_and_decoding_in_order() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let keep = seen.clone();
    let request = client().images().generate("a star").size(size!("32x32")).steps(2);
    request.on_progress(move |progress| keep.lock().unwrap().push(progress)).send().await.unwrap();
    let step = |step| Progress::Step { image: 0, step, steps: 2 };
    assert_eq!(
        *seen.lock().unwrap(),
        [Progress::Loading, Progress::EncodingPrompt, step(1), step(2), Progress::Decoding { image: 0 }]
    );
}

#[tokio::test(flavor = "current_thread")]
async fn the_runtime_goes_on_while_images_are_made() {
    let client = client();
    let work = tokio::spawn({
        let request = client.images().generate("a star").steps(30);
        async move { request.send().await }
    });
    let mut ticks = 0;
    while !work.is_finished() {
        tokio::time::sleep(Duration::from_millis(2)).await;
        ticks += 1;
    }
    work.await.unwrap().unwrap();
    assert!(ticks >= 5, "the only runtime thread ran {ticks} times");
}

#[tokio::test]
async fn dropping_the_future_stops_the_work() {
    let client = client();
    // Minutes of work, which the next request would have to wait for.
    let request = client.images().generate("a star").size(size!("192x192")).steps(1000).n(count!(10)).send();
    assert!(tokio::time::timeout(Duration::from_millis(300), request).await.is_err());
    let started = Instant::now();
    client.images().generate("a star").size(size!("32x32")).steps(1).send().await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn a_deadline_ends_the_work_with_a_time_out() {
    let request = client().images().generate("a star").steps(1000).n(count!(10)).timeout(Duration::from_millis(300));
    let error = request.send().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(!error.maybe_billed());
}

#[tokio::test]
async fn a_panic_in_a_progress_function_fails_its_own_request_only() {
    let client = client();
    let request = || client.images().generate("a star").size(size!("32x32")).steps(1);
    let error = request().on_progress(|_| panic!("of the caller's own")).send().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Compute);
    assert!(error.to_string().contains("of the caller's own"), "{error}");
    request().send().await.unwrap();
}

#[tokio::test]
async fn what_is_made_here_costs_nothing() {
    let images = client().images().generate("a star").size(size!("32x32")).steps(1).send().await.unwrap();
    assert_eq!(images.metadata().cost.as_ref().unwrap().amount, 0.0);
}

#[tokio::test]
async fn an_estimate_is_free() {
    let spec = client().images().generate("a star").into_spec();
    let estimate = client().backend().estimate(Request::Generate(spec), RequestContext::default()).await.unwrap();
    assert_eq!(estimate.total.amount, 0.0);
}

#[tokio::test]
async fn a_prompt_that_was_cut_is_told() {
    let prompt = "a small red star at the top left ".repeat(20);
    let request = client().images().generate(prompt).size(size!("32x32")).steps(1);
    let images = request.sampling(Sampling { steps: Some(1), ..Sampling::default() }).send().await.unwrap();
    let warnings = &images.metadata().warnings;
    assert!(warnings.iter().any(|warning| warning.contains("CLIP-L") && warning.contains("red star")), "{warnings:?}");
}

#[test]
fn a_client_is_cheap_to_clone_and_can_cross_threads() {
    fn shared<T: Clone + Send + Sync + 'static>(_: &T) {}
    shared::<Client>(&client());
}

#[cfg(feature = "testing")]
#[tokio::test]
async fn the_local_backend_keeps_every_promise_of_the_trait() {
    use lumenfall::backend::{EditSpec, GenerateSpec};
    use lumenfall::testing::{PIXEL, conformance};

    const MODEL: &str = "stable-diffusion-3.5-medium";
    let mut generate = GenerateSpec::new(MODEL, "a star");
    generate.options.size = Some(lumenfall::Size::pixels(32, 32).unwrap());
    generate.options.sampling.steps = Some(1);
    let mut edit = EditSpec::new(MODEL, Input::bytes(PIXEL));
    edit.options.sampling.steps = Some(1);
    let client = client();
    assert_eq!(conformance(client.backend(), generate, edit).await, Vec::<String>::new());
}
