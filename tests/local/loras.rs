//! LoRAs of the local backend.

use std::collections::BTreeMap;

use lumenfall::local::{Local, LocalOptions};
use lumenfall::{Backend, Client, ErrorKind};

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

#[test]
fn a_file_that_is_not_a_lora_is_an_error_of_the_model() {
    let vae = format!("{GOLDEN}/model/vae/diffusion_pytorch_model.safetensors");
    let error = Local::builder(format!("{GOLDEN}/model")).lora("vae", vae).open().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Model);
    assert!(error.to_string().contains("tensors that do not belong to a LoRA"), "{error}");
}
