//! The tiny decoder of the local backend.

use lumenfall::local::{Decoder, Local, Recipe};
use lumenfall::{Backend, Client, ErrorKind};

use crate::{client, spec};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/crates/lumenfall-diffusion/tests/golden");

fn open(file: &str) -> Result<Local, lumenfall::Error> {
    Local::builder(format!("{GOLDEN}/model")).tiny_decoder(format!("{GOLDEN}/{file}")).open()
}

#[tokio::test]
async fn a_recipe_names_the_tiny_decoder_and_repeats_the_image() {
    let local = open("tiny_decoder/original.safetensors").unwrap();
    let plain = Local::open(format!("{GOLDEN}/model")).unwrap();
    assert!(local.fingerprint() != plain.fingerprint() && local.identity() != plain.identity());
    let with_tiny = Client::new(local);
    let request = spec(|spec| spec.options.local.decoder = Some(Decoder::Tiny));
    let images = with_tiny.images().generate_spec(request.clone()).inline().send().await.unwrap();
    let recipe = Recipe::from_bytes(images[0].bytes()).unwrap();
    assert_eq!(recipe.request.options().local.decoder, Some(Decoder::Tiny));
    let again = with_tiny.images().repeat(recipe.clone()).unwrap().send().await.unwrap();
    assert!(again[0].bytes() == images[0].bytes());

    let without = client();
    assert_eq!(without.images().repeat(recipe).unwrap_err().kind(), ErrorKind::Unsupported);
    let error = without.images().generate_spec(request).send().await.unwrap_err();
    assert_eq!((error.kind(), error.parameter()), (ErrorKind::InvalidRequest, Some("decoder")), "{error}");
    assert!(error.to_string().contains("`LocalBuilder::tiny_decoder`"), "{error}");
}

#[test]
fn a_file_that_is_not_a_tiny_decoder_is_an_error_of_the_model() {
    let error = open("model/vae/diffusion_pytorch_model.safetensors").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Model);
    assert!(error.to_string().contains("contains no tiny decoder, but a VAE"), "{error}");
}
