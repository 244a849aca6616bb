//! The demonstration model draws what the prompt describes.
//!
//! This is a sample: `tools/evaluate.py` grades the model with 384 images.

use lumenfall::local::{LoadOptions, Local};
use lumenfall::{Cancellation, Client, ErrorKind, Sampling};
use lumenfall_diffusion::RgbImage;

async fn draw(client: &Client, prompt: &str, sampling: Sampling) -> RgbImage {
    let images = client.images().generate(prompt).sampling(sampling).inline().send().await.unwrap();
    RgbImage::decode(images[0].bytes()).unwrap()
}

#[tokio::test]
async fn images_are_those_that_the_readme_shows() {
    // The README's image contains four images of 64x64 pixels side by side, at twice their size and 8 pixels apart.
    let readme = RgbImage::decode(include_bytes!("../../docs/demo.png")).unwrap();
    let client = Client::demo().unwrap();
    for (position, prompt, seed) in [
        (1, "a yellow star on a black background", 1),
        (2, "a large blue square on a white background", 2),
        (3, "a pink cross on a black background", 4),
    ] {
        let image = draw(&client, prompt, Sampling::default().with_seed(seed)).await;
        let differences = image.pixels().iter().enumerate().map(|(i, value)| {
            let (x, y, channel) = (i / 3 % 64, i / 3 / 64, i % 3);
            let row = |y: usize| (y * readme.width() as usize + position * 136 + 2 * x) * 3 + channel;
            let shown = [row(2 * y), row(2 * y) + 3, row(2 * y + 1), row(2 * y + 1) + 3];
            let mean = shown.iter().map(|i| f64::from(readme.pixels()[*i])).sum::<f64>() / 4.0;
            (mean - f64::from(*value)).abs()
        });
        let mean = differences.sum::<f64>() / image.pixels().len() as f64;
        assert!(mean < 3.0, "{prompt}: the mean difference is {mean}");
    }
}

#[tokio::test]
async fn a_negative_prompt_avoids_a_colour() {
    let client = Client::demo().unwrap();
    for (negative_prompt, expected) in [(None, 3), (Some("blue".to_owned()), 0)] {
        let mut blue = 0;
        for seed in [1, 2, 6] {
            let mut sampling = Sampling::default().with_seed(seed);
            sampling.negative_prompt = negative_prompt.clone();
            let image = draw(&client, "a circle on a white background", sampling).await;
            let is_blue = |pixel: &&[u8; 3]| pixel[2] > pixel[0].saturating_add(80);
            let pixels = image.pixels().as_chunks::<3>().0;
            blue += u32::from(pixels.iter().filter(is_blue).count() > pixels.len() / 20);
        }
        assert_eq!(blue, expected, "negative prompt {negative_prompt:?}");
    }
}

#[tokio::test]
async fn the_image_depends_neither_on_the_number_of_threads_nor_on_embedding() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/crates/lumenfall-diffusion/demo");
    let with_threads = |threads| {
        let mut options = LoadOptions::default();
        options.threads = Some(threads);
        Client::new(Local::open_with(folder, options).unwrap())
    };
    let mut files = Vec::new();
    for client in [with_threads(1), with_threads(2), with_threads(3), with_threads(5), Client::demo().unwrap()] {
        let images = client.images().generate("a yellow star").seed(9).steps(6).inline().send().await.unwrap();
        files.push(images[0].bytes().clone());
    }
    assert!(files.iter().all(|file| *file == files[0]));
}

#[tokio::test]
async fn a_cancelled_request_is_free() {
    let cancellation = Cancellation::new();
    let canceller = cancellation.clone();
    let request = Client::demo().unwrap().images().generate("a red circle").cancel_with(&cancellation);
    let error = request.on_progress(move |_| canceller.cancel()).send().await.unwrap_err();
    assert_eq!((error.kind(), error.maybe_billed()), (ErrorKind::Cancelled, false));
}
