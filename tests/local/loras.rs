//! LoRAs of the local backend.

use std::collections::BTreeMap;

use lumenfall::backend::{EditSpec, Request};
use lumenfall::local::{Local, LocalOptions, Recipe, Sampler, Schedule};
use lumenfall::{Backend, Client, ErrorKind, Input, Sampling};
use lumenfall_diffusion::RgbImage;

use crate::spec;

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/crates/lumenfall-diffusion/tests/golden");

fn open(strength: f32) -> Local {
    let lora = format!("{GOLDEN}/lora/rslora.safetensors");
    Local::builder(format!("{GOLDEN}/model")).lora_with_strength("ink", lora, strength).open().unwrap()
}

async fn draw(local: Local) -> Vec<u8> {
    let spec = spec(|spec| spec.options.sampling.seed = Some(1));
    Client::new(local).images().generate_spec(spec).inline().send().await.unwrap()[0].bytes().to_vec()
}

#[tokio::test]
async fn a_lora_changes_the_images_and_the_fingerprint() {
    let plain = || Local::open(format!("{GOLDEN}/model")).unwrap();
    let fingerprints = [plain(), open(1.0), open(0.5)].map(|local| local.fingerprint().to_owned());
    assert!(fingerprints[0] != fingerprints[1] && fingerprints[1] != fingerprints[2]);
    assert_ne!(open(1.0).identity(), open(0.5).identity());
    let without = draw(plain().metadata(false)).await;
    assert_eq!(draw(open(0.0).metadata(false)).await, without);
    assert_ne!(draw(open(1.0).metadata(false)).await, without);
}

#[tokio::test]
async fn each_request_chooses_the_strengths() {
    let client = Client::new(open(0.5).metadata(false));
    let request = |strengths: &[(&str, f32)]| {
        let loras: BTreeMap<_, _> = strengths.iter().map(|(name, strength)| ((*name).to_owned(), *strength)).collect();
        let spec = spec(|spec| {
            spec.options.sampling.seed = Some(1);
            spec.options.local = LocalOptions::default().with_loras(loras);
        });
        client.images().generate_spec(spec).inline().send()
    };
    let full = request(&[("ink", 1.0)]).await.unwrap();
    assert_eq!(*full[0].bytes(), draw(open(1.0).metadata(false)).await);
    assert_eq!(*request(&[]).await.unwrap()[0].bytes(), draw(open(0.5).metadata(false)).await);
    let error = request(&[("oil", 1.0)]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    assert!(error.to_string().contains("no LoRA `oil`; the model has `ink`"), "{error}");
}

#[tokio::test]
async fn a_recipe_names_loras_with_strengths_that_the_request_left_out() {
    let client = Client::new(open(0.5));
    let images = client.images().generate_spec(spec(|_| {})).inline().send().await.unwrap();
    let expected = Some(BTreeMap::from([("ink".to_owned(), 0.5)]));
    assert_eq!(images.metadata().parameters.as_ref().unwrap().local.loras, expected);
    let recipe = Recipe::from_bytes(images[0].bytes()).unwrap();
    assert_eq!(recipe.request.options().local.loras, expected);
    assert!(client.images().repeat(recipe).unwrap().send().await.unwrap()[0].bytes() == images[0].bytes());
}

#[tokio::test]
async fn a_fixed_lora_has_one_strength() {
    let path = format!("{GOLDEN}/lora/rslora.safetensors");
    let fixed = || Local::builder(format!("{GOLDEN}/model")).fixed_lora("ink", &path, 0.5).open().unwrap();
    assert_ne!(fixed().fingerprint(), open(0.5).fingerprint(), "the images differ by rounding");
    let client = Client::new(fixed());
    let request = |strength: f32| {
        let spec = spec(|spec| {
            spec.options.sampling.seed = Some(1);
            spec.options.local = LocalOptions::default().with_loras([("ink".to_owned(), strength)].into());
        });
        client.images().generate_spec(spec).inline().send()
    };
    let error = request(1.0).await.unwrap_err();
    assert_eq!((error.kind(), error.parameter()), (ErrorKind::InvalidRequest, Some("loras")));
    assert!(error.to_string().contains("the strength 1 for `ink`"), "{error}");
    let pixels = |file: &[u8]| RgbImage::decode(file).unwrap().pixels().to_vec();
    let (actual, expected) = (pixels(request(0.5).await.unwrap()[0].bytes()), pixels(&draw(open(0.5)).await));
    assert!(actual.iter().zip(&expected).all(|(a, b)| a.abs_diff(*b) <= 1), "the images differ");
}

#[tokio::test]
async fn an_edit_with_all_kinds_of_local_options_is_repeated_from_its_file() {
    let lora = |name: &str| format!("{GOLDEN}/lora/{name}.safetensors");
    let local =
        Local::builder(format!("{GOLDEN}/model")).lora("ink", lora("peft")).fixed_lora("oil", lora("dora"), 0.5);
    let client = Client::new(local.open().unwrap());
    let source = draw(open(0.0)).await;
    let image = RgbImage::decode(&source).unwrap();
    let (width, height) = (image.width(), image.height());
    let mut mask = Vec::new();
    let mut encoder = png::Encoder::new(&mut mask, width, height);
    encoder.set_color(png::ColorType::GrayscaleAlpha);
    let alpha = |pixel: u32| if pixel % width < width / 2 { 0 } else { 255 };
    let pixels: Vec<u8> = (0..width * height).flat_map(|pixel| [0, alpha(pixel)]).collect();
    encoder.write_header().unwrap().write_image_data(&pixels).unwrap();

    let mut edit = EditSpec::new(spec(|_| {}).model, Input::bytes(source));
    edit.mask = Some(Input::bytes(mask));
    edit.prompt = Some("a moon".into());
    edit.options.sampling =
        Sampling::default().with_seed(3).with_steps(4).with_strength(0.9).with_negative_prompt("rain");
    let options = LocalOptions::default().with_sampler(Sampler::Dpmpp2m).with_schedule(Schedule::Karras);
    let options = options.with_guidance_rescale(0.7).with_loras([("ink".to_owned(), 0.7)].into());
    edit.options.local = options;
    let edited = client.images().edit_spec(edit.clone()).inline().send().await.unwrap();
    let drawn = RgbImage::decode(edited[0].bytes()).unwrap();
    let pixels = drawn.pixels().chunks(3).zip(image.pixels().chunks(3)).zip(0..);
    assert!(pixels.clone().all(|((drawn, source), pixel)| alpha(pixel) == 0 || drawn == source));
    assert!(pixels.clone().any(|((drawn, source), _)| drawn != source));

    let recipe = Recipe::from_bytes(edited[0].bytes()).unwrap();
    let mut draft = client.images().repeat(recipe).unwrap();
    let Request::Edit(spec) = draft.spec_mut() else { panic!("{draft:?}") };
    let all = BTreeMap::from([("ink".to_owned(), 0.7), ("oil".to_owned(), 0.5)]);
    assert_eq!(spec.options.local, edit.options.local.with_loras(all));
    (spec.images, spec.mask) = (edit.images, edit.mask);
    assert!(draft.send().await.unwrap()[0].bytes() == edited[0].bytes());
}

#[test]
fn a_file_that_is_not_a_lora_is_an_error_of_the_model() {
    let vae = format!("{GOLDEN}/model/vae/diffusion_pytorch_model.safetensors");
    let error = Local::builder(format!("{GOLDEN}/model")).lora("vae", vae).open().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Model);
    assert!(error.to_string().contains("tensors that do not belong to a LoRA"), "{error}");
}
