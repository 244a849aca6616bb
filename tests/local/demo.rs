//! The demonstration model draws what the prompt describes.
//!
//! This is a sample: `tools/evaluate.py` grades the model with several hundred images.

use lumenfall::local::{Local, PartKind};
use lumenfall::{Cancellation, Client, ErrorKind, Sampling};
use lumenfall_diffusion::RgbImage;

async fn draw(client: &Client, prompt: &str, sampling: Sampling) -> RgbImage {
    let images = client.images().generate(prompt).sampling(sampling).inline().send().await.unwrap();
    RgbImage::decode(images[0].bytes()).unwrap()
}

#[tokio::test]
async fn images_are_those_that_the_readme_shows() {
    // The README's image contains two rows of four images of 128x128 pixels, 8 pixels apart.
    let readme = RgbImage::decode(include_bytes!("../../docs/demo.png")).unwrap();
    let client = Client::demo().unwrap();
    for (column, row, prompt) in [
        (0, 0, "a red circle on a white background"),
        (1, 0, "a green letter R on a black background"),
        (0, 1, "a purple letter A above an orange letter B on a cream background"),
        (1, 1, "a small red star and a large yellow moon on a navy background"),
    ] {
        let image = draw(&client, prompt, Sampling::default().with_seed(0)).await;
        assert_eq!((image.width(), image.height()), (128, 128));
        let differences = image.pixels().iter().enumerate().map(|(i, value)| {
            let (x, y, channel) = (i / 3 % 128 + column * 136, i / 3 / 128 + row * 136, i % 3);
            readme.pixels()[(y * readme.width() as usize + x) * 3 + channel].abs_diff(*value)
        });
        let mean = differences.map(f64::from).sum::<f64>() / image.pixels().len() as f64;
        assert!(mean < 1.0, "{prompt}: the mean difference is {mean}");
    }
}

#[tokio::test]
async fn a_negative_prompt_avoids_a_colour() {
    let client = Client::demo().unwrap();
    for (negative_prompt, expected) in [(None, 3), (Some("brown".to_owned()), 0)] {
        let mut brown = 0;
        for seed in [1, 3, 6] {
            let mut sampling = Sampling::default().with_seed(seed);
            sampling.negative_prompt = negative_prompt.clone();
            let image = draw(&client, "a circle on a white background", sampling).await;
            let is_brown = |pixel: &&[u8; 3]| (100..160).contains(&pixel[0]) && pixel[1] < 100 && pixel[2] < 60;
            let pixels = image.pixels().as_chunks::<3>().0;
            brown += u32::from(pixels.iter().filter(is_brown).count() > pixels.len() / 20);
        }
        assert_eq!(brown, expected, "negative prompt {negative_prompt:?}");
    }
}

#[tokio::test]
async fn the_image_depends_neither_on_the_number_of_threads_nor_on_embedding() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/crates/lumenfall-diffusion/demo");
    let with_threads = |threads| Client::new(Local::builder(folder).threads(threads).open().unwrap());
    let mut files = Vec::new();
    for client in [with_threads(1), with_threads(2), with_threads(3), with_threads(5), Client::demo().unwrap()] {
        let images = client.images().generate("a yellow star").seed(9).steps(6).inline().send().await.unwrap();
        files.push(images[0].bytes().clone());
    }
    assert!(files.iter().all(|file| *file == files[0]));
}

#[test]
fn the_parts_of_the_demonstration_model_cannot_be_replaced() {
    let error = Local::demo_builder().part(PartKind::Vae, "vae.safetensors").open().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Model);
    assert!(error.to_string().contains("has its own VAE and cannot use vae.safetensors"), "{error}");
}

#[tokio::test]
async fn a_cancelled_request_is_free() {
    let cancellation = Cancellation::new();
    let canceller = cancellation.clone();
    let request = Client::demo().unwrap().images().generate("a red circle").cancel_with(&cancellation);
    let error = request.on_progress(move |_| canceller.cancel()).send().await.unwrap_err();
    assert_eq!((error.kind(), error.maybe_billed()), (ErrorKind::Cancelled, false));
}
