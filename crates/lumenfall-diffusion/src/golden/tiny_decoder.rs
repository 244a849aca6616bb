//! Compares the tiny decoder with the values of `tools/tiny_decoder_golden.py`, and checks what happens with other files.

use std::path::Path;
use std::sync::Mutex;

use safetensors::tensor::TensorView;

use super::*;
use crate::checkpoint::tiny_decoder;
use crate::error::{Error, Result};
use crate::models::TinyDecoder;
use crate::parameters::{Decoder, Preview};

fn path(name: &str) -> PathBuf {
    folder().join("tiny_decoder").join(name).with_extension("safetensors")
}

fn open(path: &Path) -> Result<TinyDecoder> {
    TinyDecoder::open(tiny_decoder::open(path, 16)?)
}

#[test]
fn output_equals_that_of_diffusers_in_both_layouts() {
    let golden = Golden::open("tiny_decoder/values");
    let decode = |name| open(&path(name)).unwrap().decode(&golden.first("latent"), &never_cancelled).unwrap();
    let decoded = decode("diffusers");
    assert_close(&decoded, &channels_last(&golden.first("decoded")), COMPONENT_TOLERANCE);
    assert_eq!(decoded.values(), decode("original").values());
}

/// Writes the tensors of a golden file that `change` returns.
fn changed(folder: &Path, name: &str, change: impl Fn(&str) -> Option<(String, Option<Vec<usize>>)>) -> PathBuf {
    let bytes = std::fs::read(path(name)).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let kept: Vec<_> = tensors
        .iter()
        .filter_map(|(name, tensor)| {
            let (name, shape) = change(name)?;
            let shape = shape.unwrap_or_else(|| tensor.shape().to_vec());
            let len = 2 * shape.iter().product::<usize>();
            Some((name, TensorView::new(Dtype::F16, shape, &tensor.data()[..len]).unwrap()))
        })
        .collect();
    let path = folder.join("changed.safetensors");
    safetensors::serialize_to_file(kept, None, &path).unwrap();
    path
}

#[test]
fn files_with_another_prefix_are_read_and_other_models_refused() {
    let folder = tempfile::tempdir().unwrap();
    let prefixed = changed(folder.path(), "original", |name| Some((format!("taesd_decoder.{name}"), None)));
    open(&prefixed).unwrap();
    let vae = super::folder().join("model/vae/diffusion_pytorch_model.safetensors");
    let refused = |path: &Path| open(path).unwrap_err().to_string();
    assert!(refused(&vae).ends_with("contains no tiny decoder, but a VAE; download TAESD3 (madebyollin/taesd3)"));

    let four = |name: &str| Some((name.to_owned(), (name == "1.weight").then(|| vec![8, 4, 3, 3])));
    let error = refused(&changed(folder.path(), "original", four));
    assert!(error.contains("`1.weight` has the shape [8, 4, 3, 3]"), "{error}");
    assert!(error.contains("decodes latents of 4 channels, but those of the model have 16"), "{error}");

    let encoder = |name: &str| name.starts_with("encoder").then(|| (name.to_owned(), None));
    let error = refused(&changed(folder.path(), "diffusers", encoder));
    assert!(error.contains("contains only the encoder"), "{error}");

    let incomplete = |name: &str| (name != "8.conv.2.bias").then(|| (name.to_owned(), None));
    let error = refused(&changed(folder.path(), "original", incomplete));
    assert!(error.contains("`7.conv.2.bias` is missing"), "{error}");

    let empty = |name: &str| Some((name.to_owned(), (name == "1.weight").then(|| vec![0, 16, 3, 3])));
    let error = refused(&changed(folder.path(), "original", empty));
    assert!(error.contains("so the file is corrupt"), "{error}");
}

#[test]
fn it_draws_previews_of_full_size_and_images_on_request() {
    let plain = pipeline(&files());
    let options = LoadOptions { tiny_decoder: Some(path("original")), device: Device::Cpu, ..LoadOptions::default() };
    let pipeline = Pipeline::open(&files(), &options).unwrap();
    let request = Parameters { width: Some(48), height: Some(32), steps: Some(2), ..Parameters::new("a red circle") };
    let draw = |decoder| {
        let latents = Mutex::new(Vec::new());
        let previews = Mutex::new(Vec::new());
        let on_latent = |latent: &[f32]| latents.lock().unwrap().push(latent.to_vec());
        let on_preview = |preview: Preview<'_>| previews.lock().unwrap().push(preview.image.clone());
        let callbacks = Callbacks::none().with_latents(&on_latent).with_previews(1, &on_preview);
        let output = pipeline.generate(&Parameters { decoder, ..request.clone() }, callbacks).unwrap();
        (output.images[0].clone(), latents.into_inner().unwrap().pop().unwrap(), previews.into_inner().unwrap())
    };
    let (image, latent, previews) = draw(Decoder::Tiny);
    let latent = Tensor::new(latent, &[16, 4, 6]).unwrap();
    let decoded = open(&path("original")).unwrap().decode(&latent, &never_cancelled).unwrap();
    assert!(image == RgbImage::from_tensor(&decoded).unwrap());
    assert_eq!(previews.iter().map(|image| (image.width(), image.height())).collect::<Vec<_>>(), [(48, 32)]);
    assert!(draw(Decoder::Vae).0 == plain.generate(&request, Callbacks::none()).unwrap().images[0]);

    let tiny = Parameters { decoder: Decoder::Tiny, ..request };
    let error = plain.generate(&tiny, Callbacks::none()).unwrap_err();
    assert!(matches!(&error, Error::Parameter { parameter: "decoder", .. }), "{error}");
}
