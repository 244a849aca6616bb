//! Every parameter of the schema is either computed by the local backend or refused by its name before any work.
//!
//! The README shows the table that this test prints.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use lumenfall::backend::{EditSpec, Request};
use lumenfall::images::typed::{CONTROLS, Kind, Parameter, Presence};
use lumenfall::stable_diffusion_3_5_medium::SCHEMA;
use lumenfall::{Client, Input};
use lumenfall_diffusion::{FileFormat, RgbImage};
use serde_json::{Value, json};

use crate::inpainting::mask;
use crate::{client, spec};

/// Returns values of a parameter, and how the table calls them.
fn samples(parameter: &Parameter) -> Vec<(String, Value)> {
    let named =
        |values: &[Value]| values.iter().map(|value| (value.to_string().replace('"', ""), value.clone())).collect();
    match (parameter.name, parameter.kind) {
        ("negative_prompt", _) => vec![("text".into(), json!("blue"))],
        (_, Kind::Text { .. }) => vec![("text".into(), json!("a star"))],
        (_, Kind::Choice(values)) => named(&values.iter().map(|value| json!(value)).collect::<Vec<_>>()),
        (_, Kind::Size) => {
            vec![
                ("multiples of 16".into(), json!("96x64")),
                ("other sizes".into(), json!("100x64")),
                ("ratios".into(), json!("3:2")),
            ]
        }
        (_, Kind::AspectRatio) => vec![("ratios".into(), json!("3:2"))],
        (_, Kind::Resolution) => vec![("tiers up to the model's maximum size".into(), json!("1K"))],
        ("steps", _) => vec![("1 to 1000".into(), json!(2)), ("more".into(), json!(1001))],
        ("seed", _) => vec![("all values".into(), json!(u64::MAX))],
        ("guidance", _) => vec![("all values".into(), json!(3.5))],
        ("strength", _) => vec![("all values".into(), json!(1.0))],
        ("n", _) => vec![("all values".into(), json!(2))],
        ("output_compression", _) => vec![("all values".into(), json!(50))],
        ("image", _) => vec![("one image".into(), json!(1)), ("several images".into(), json!(2))],
        ("mask", _) => vec![("one mask".into(), json!(1))],
        (name, kind) => panic!("the test has no value of `{name}`, a {kind:?}"),
    }
}

/// Returns a request with a parameter, in a mode that has it.
fn request(parameter: &Parameter, value: &Value) -> Request {
    let image = || {
        let image = RgbImage::new(32, 32, vec![128; 32 * 32 * 3]).unwrap();
        Input::bytes(image.encode(FileFormat::Png).unwrap())
    };
    let plain = spec(|spec| spec.options.sampling.steps = Some(1));
    let mut request = match parameter.text_to_image {
        Presence::Absent => {
            let count = if parameter.name == "image" { value.as_u64().unwrap_or(1) } else { 1 };
            let images = (0..count).map(|_| image()).collect::<Vec<_>>();
            let mut edit = EditSpec::new(plain.model, images).with_prompt("a star").with_options(plain.options);
            edit.options.size = None;
            edit.mask = (parameter.name == "mask").then(|| mask(32, 32));
            Request::Edit(edit)
        }
        _ => Request::Generate(plain),
    };
    if parameter.name == "output_compression" {
        request.set("output_format", "jpeg").unwrap();
    }
    if parameter.excludes.contains(&"size") {
        request.set("size", Value::Null).unwrap();
    }
    if !matches!(parameter.kind, Kind::File { .. }) {
        request.set(parameter.name, value.clone()).unwrap();
    }
    request
}

/// Returns whether a request is computed. If not, its error names the parameter.
async fn is_computed(client: &Client, parameter: &Parameter, value: &Value) -> bool {
    let request = request(parameter, value);
    request.validate().unwrap();
    let events = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&events);
    let sent = client.request(request).inline().on_progress(move |_| {
        counter.fetch_add(1, Ordering::Relaxed);
    });
    match sent.send().await {
        Ok(images) => !images.is_empty(),
        // The model of the tests is smaller than every tier.
        Err(error) if parameter.name == "resolution" => error.parameter() == Some("size"),
        Err(error) => {
            assert_eq!(error.parameter(), Some(parameter.name), "{error}");
            // `Loading` and `EncodingPrompt` may precede.
            assert!(events.load(Ordering::Relaxed) <= 1, "{}: the request was computed", parameter.name);
            false
        }
    }
}

#[tokio::test]
async fn the_readme_shows_what_the_local_backend_computes_of_the_schema() {
    let client = client();
    let mut table = String::from("| parameter | computed | refused by name |\n|---|---|---|\n");
    for parameter in SCHEMA.parameters.iter().chain(&CONTROLS) {
        let (mut computed, mut refused) = (Vec::new(), Vec::new());
        for (name, value) in samples(parameter) {
            let is_computed = is_computed(&client, parameter, &value).await;
            if is_computed { computed.push(name) } else { refused.push(name) }
        }
        // The documentation describes the crate with this feature.
        if !cfg!(feature = "avif") && refused == ["avif"] {
            refused.clear();
            computed.push("avif (feature `avif`)".into());
        } else if let Some(avif) = computed.iter_mut().find(|name| *name == "avif") {
            *avif = "avif (feature `avif`)".into();
        }
        table += &format!("| `{}` | {} | {} |\n", parameter.name, computed.join(", "), refused.join(", "));
    }
    let readme = include_str!("../../README.md");
    assert!(readme.contains(&table), "the README must show this table:\n{table}");
}
