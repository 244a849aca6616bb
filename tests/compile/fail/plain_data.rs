use lumenfall::Sampling;
use lumenfall::backend::{EditSpec, GenerateSpec, Options};

fn a_later_version_can_add_fields() {
    let sampling = Sampling { seed: Some(7), ..Sampling::default() };
    let options = Options { sampling, ..Options::default() };
    let _ = GenerateSpec { model: "other".into(), prompt: "a lighthouse".into(), options: options.clone() };
    let _ = EditSpec { model: "other".into(), images: Vec::new(), mask: None, prompt: None, options };
}

fn main() {}
