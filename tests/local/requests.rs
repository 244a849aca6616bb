//! Requests that the local backend completes, and requests that are cancelled.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lumenfall::OutputFormat::Jpeg;
use lumenfall::backend::{GenerateSpec, Progress};
use lumenfall::{Client, ErrorKind, Image, Images, Inline, Input};
use lumenfall_diffusion::RgbImage;
use tokio::sync::Notify;

use crate::{client, spec};

async fn generate(client: &Client, change: impl FnOnce(&mut GenerateSpec)) -> Images<Inline> {
    client.images().generate_spec(spec(change)).inline().send().await.unwrap()
}

fn decode(image: &Image<Inline>) -> RgbImage {
    RgbImage::decode(image.bytes()).unwrap()
}

fn size(image: &Image<Inline>) -> (u32, u32) {
    (decode(image).width(), decode(image).height())
}

#[tokio::test]
async fn images_have_the_requested_size_and_format_and_cost_nothing() {
    let client = client();
    // An aspect ratio keeps the area of the default size, 96x96.
    for (requested, expected) in [("48x32", (48, 32)), ("4:1", (192, 48))] {
        let images = generate(&client, |spec| {
            spec.options.size = Some(requested.parse().unwrap());
            (spec.options.output_format, spec.options.output_compression) = (Some(Jpeg), Some(40));
        })
        .await;
        assert_eq!((images[0].format(), size(&images[0])), (Some(Jpeg), expected));
        let metadata = images.metadata();
        assert_eq!((&*metadata.backend, metadata.steps), ("local", Some(1)));
        assert_eq!(metadata.cost.as_ref().unwrap().amount(), 0.0);
    }
    let estimate = client.images().generate_spec(spec(|_| {})).estimate().await.unwrap();
    assert_eq!(estimate.total.amount(), 0.0);
}

#[tokio::test]
async fn each_image_reports_the_seed_that_reproduces_it() {
    let client = client();
    let with_seed = |seed| generate(&client, move |spec| spec.options.sampling.seed = seed);
    let three = generate(&client, |spec| (spec.options.sampling.seed, spec.options.n) = (Some(40), Some(3))).await;
    assert_eq!(three.iter().map(|image| image.seed()).collect::<Vec<_>>(), [Some(40), Some(41), Some(42)]);
    assert_ne!(three[0].bytes(), three[1].bytes());
    assert_eq!(three[2].bytes(), with_seed(Some(42)).await[0].bytes());

    let (first, second) = (with_seed(None).await, with_seed(None).await);
    assert_ne!(first[0].seed(), second[0].seed(), "the default seed is random");
    assert_eq!(first[0].bytes(), with_seed(first[0].seed()).await[0].bytes());
}

#[tokio::test]
async fn an_edit_keeps_the_size_and_its_strength_determines_the_difference() {
    let client = Client::demo().unwrap();
    let source = generate(&client, |spec| spec.options.size = Some("80x48".parse().unwrap())).await;
    let mut differences = Vec::new();
    for (strength, steps) in [(0.1, 1), (1.0, 10)] {
        let edit = client.images().edit(Input::bytes(source[0].bytes().clone())).prompt("a blue circle");
        let images = edit.strength(strength).steps(10).seed(5).inline().send().await.unwrap();
        assert_eq!((size(&images[0]), images.metadata().steps), ((80, 48), Some(steps)));
        let (edited, original) = (decode(&images[0]), decode(&source[0]));
        let pairs = edited.pixels().iter().zip(original.pixels());
        differences.push(pairs.map(|(a, b)| u64::from(a.abs_diff(*b))).sum::<u64>());
    }
    assert!(differences[0] < differences[1], "{differences:?}");
}

#[tokio::test]
async fn progress_is_reported_in_order() {
    let events = Arc::new(Mutex::new(Vec::new()));
    let record = events.clone();
    let request = client().images().generate_spec(spec(|spec| spec.options.sampling.steps = Some(2)));
    request.on_progress(move |event| record.lock().unwrap().push(event)).send().await.unwrap();
    let mut events = events.lock().unwrap();
    let mut sigmas = Vec::new();
    for event in events.iter_mut() {
        if let Progress::Step { sigma, remaining, .. } = event {
            sigmas.push(std::mem::take(sigma));
            assert!(*remaining > Duration::ZERO, "the image has not been decoded");
            *remaining = Duration::ZERO;
        }
    }
    let step = |step| Progress::Step { image: 0, step, steps: 2, sigma: 0.0, remaining: Duration::ZERO };
    let expected = [Progress::Loading, Progress::EncodingPrompt, step(1), step(2), Progress::Decoding { image: 0 }];
    assert_eq!(*events, expected);
    // The second of two sigmas of Stable Diffusion 3.5.
    assert!((sigmas[0] - 0.0089286).abs() < 1e-6 && sigmas[1] == 0.0, "{sigmas:?}");
}

#[tokio::test]
async fn a_request_that_waits_for_another_reports_that_it_is_queued() {
    let client = client();
    let send = |steps| {
        let events = Arc::new(Mutex::new(Vec::new()));
        let record = events.clone();
        let request = client.images().generate_spec(spec(|spec| spec.options.sampling.steps = Some(steps)));
        let request = request.on_progress(move |event| record.lock().unwrap().push(event));
        async move {
            request.send().await.unwrap();
            events.lock().unwrap().iter().filter(|event| **event == Progress::Queued { position: None }).count()
        }
    };
    assert_eq!(tokio::join!(send(20), send(1)), (0, 1));
    assert_eq!(send(1).await, 0);
}

#[tokio::test(flavor = "current_thread")]
async fn the_runtime_is_not_blocked_and_a_dropped_request_stops() {
    let client = client();
    let events = Arc::new((AtomicU32::new(0), Notify::new()));
    let counter = events.clone();
    let request = client.images().generate_spec(spec(|spec| spec.options.sampling.steps = Some(1000)));
    let request = request.on_progress(move |_| {
        counter.0.fetch_add(1, Ordering::Relaxed);
        counter.1.notify_one();
    });
    tokio::select! {
        result = request.send() => panic!("the request ended: {result:?}"),
        // This runs during the computation, on the only thread of the runtime.
        () = events.1.notified() => {}
    }
    // The next request has to wait until the dropped one has stopped.
    generate(&client, |_| {}).await;
    assert!(events.0.load(Ordering::Relaxed) < 1000);
}

#[tokio::test(start_paused = true)]
async fn a_request_fails_when_its_deadline_passes() {
    let request = client().images().generate_spec(spec(|spec| spec.options.sampling.steps = Some(1000)));
    let error = request.timeout(Duration::from_secs(60)).send().await.unwrap_err();
    assert_eq!((error.kind(), error.maybe_billed()), (ErrorKind::Timeout, false));
}

/// The callback blocks the task that awaits the first request, but not the thread that computes it.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_progress_callback_can_wait_for_another_request() {
    let client = client();
    let sizes = Arc::new(Mutex::new(Vec::new()));
    let (other, record, runtime) = (client.clone(), Arc::clone(&sizes), tokio::runtime::Handle::current());
    let request = client.images().generate_spec(spec(|_| {})).on_progress(move |_| {
        let nested = other.images().generate_spec(spec(|_| {})).inline().send();
        let images = tokio::task::block_in_place(|| runtime.block_on(nested)).unwrap();
        record.lock().unwrap().push(size(&images[0]));
    });
    tokio::spawn(request.send()).await.unwrap().unwrap();
    assert_eq!(*sizes.lock().unwrap(), [(32, 32); 4]);
}

/// tokio does not allow `block_on` within a task, and reports so with a panic.
#[tokio::test]
async fn a_progress_callback_that_blocks_the_runtime_fails_its_request() {
    let client = client();
    let (other, runtime) = (client.clone(), tokio::runtime::Handle::current());
    let request = client.images().generate_spec(spec(|_| {}));
    let request = request.on_progress(move |_| {
        let _ = runtime.block_on(other.images().generate_spec(spec(|_| {})).send());
    });
    let error = request.send().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Compute);
    assert!(error.to_string().starts_with("the progress callback panicked (Cannot start a runtime"), "{error}");
}

#[cfg(feature = "blocking")]
#[test]
fn a_progress_callback_can_wait_for_another_request_in_synchronous_code() {
    use lumenfall::blocking::Wait;

    let client = client();
    let images = Arc::new(Mutex::new(Vec::new()));
    let (other, record) = (client.clone(), Arc::clone(&images));
    let request = client.images().generate_spec(spec(|_| {})).on_progress(move |_| {
        record.lock().unwrap().push(other.images().generate_spec(spec(|_| {})).send().wait().unwrap().len());
    });
    request.send().wait().unwrap();
    assert_eq!(*images.lock().unwrap(), [1; 4]);
}

/// All threads of the pool are blocked, so the pipeline must not need one of them.
#[cfg(feature = "blocking")]
#[test]
fn all_threads_of_a_rayon_pool_can_wait_for_local_requests() {
    use lumenfall::blocking::Wait;

    let client = client();
    let (tasks, images) = (rayon::current_num_threads().max(15) as u32 * 2, AtomicU32::new(0));
    rayon::scope(|scope| {
        for _ in 0..tasks {
            scope.spawn(|_| {
                let request = client.images().generate_spec(spec(|spec| {
                    spec.options.size = Some("16x16".parse().unwrap());
                    spec.options.sampling.guidance = Some(1.0);
                }));
                images.fetch_add(request.send().wait().unwrap().len() as u32, Ordering::Relaxed);
            });
        }
    });
    assert_eq!(images.into_inner(), tasks);
}

#[test]
fn the_timeout_includes_reading_the_source() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(1).build().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("source.png");
    std::fs::write(&path, "an image").unwrap();
    let error = runtime.block_on(async {
        // tokio reads files on its blocking threads.
        let (end, blocked) = std::sync::mpsc::channel::<()>();
        let blocking = tokio::task::spawn_blocking(move || blocked.recv());
        let edit = client().images().edit(Input::path(path)).prompt("a moon").timeout(Duration::from_millis(50));
        let error = tokio::time::timeout(Duration::from_secs(5), edit.send()).await.unwrap().unwrap_err();
        drop(end);
        blocking.await.unwrap().unwrap_err();
        error
    });
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
}

#[tokio::test]
async fn a_panic_in_a_progress_callback_fails_only_its_request() {
    let client = client();
    let request = client.images().generate_spec(spec(|_| {}));
    let error = request.on_progress(|_| panic!("message of the callback")).send().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Compute);
    assert!(error.to_string().contains("message of the callback"), "{error}");
    generate(&client, |_| {}).await;
}

#[tokio::test]
async fn a_truncated_prompt_results_in_a_warning() {
    let images = generate(&client(), |spec| spec.prompt = "a small red star at the top left ".repeat(20)).await;
    let warnings = &images.metadata().warnings;
    assert!(warnings.iter().any(|warning| warning.contains("CLIP-L") && warning.contains("red star")), "{warnings:?}");
}

#[cfg(feature = "testing")]
#[tokio::test]
async fn the_local_backend_passes_the_conformance_suite() {
    let generate = spec(|_| {});
    let mut edit = lumenfall::backend::EditSpec::new(&*generate.model, Input::bytes(lumenfall::testing::PIXEL));
    edit.options.sampling.steps = Some(1);
    assert_eq!(lumenfall::testing::conformance(client().backend(), generate, edit).await, Vec::<String>::new());
}
