//! Requests that are stored with serde and read again.

// Clippy does not recognise helper functions as part of tests.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use lumenfall::backend::{EditSpec, GenerateSpec, Options, Progress, Request};
use lumenfall::{Input, OutputFormat, ResponseFormat, Sampling, SkipLayerGuidance};
use serde_json::{Value, json};

const MODEL: &str = "stable-diffusion-3.5-medium";

/// An edit in which every field is set.
fn edit() -> EditSpec {
    let mut spec = EditSpec::new(MODEL, vec![Input::path("source.png"), Input::bytes(&b"\x89PNG\r\n\x1a\n"[..])]);
    spec.mask = Some(Input::path("mask.png"));
    spec.prompt = Some("add a starry night sky".into());
    let sampling = Sampling::default()
        .with_seed(u64::MAX)
        .with_steps(20)
        .with_guidance(4.5)
        .with_negative_prompt("rain")
        .with_strength(0.6)
        .with_skip_layer_guidance(SkipLayerGuidance::default());
    spec.options = Options::default()
        .with_provider("replicate")
        .with_size("1024x768".parse().unwrap())
        .with_aspect_ratio("16:9".parse().unwrap())
        .with_resolution("1K".parse().unwrap())
        .with_response_format(ResponseFormat::B64Json)
        .with_output_format(OutputFormat::Jpeg)
        .with_output_compression(80)
        .with_n(2)
        .with_user("ada")
        .with_sampling(sampling)
        .with_extra("safety_tolerance", json!({ "level": 2.5 }));
    spec
}

/// The documented form. It must not change: programs have stored it.
fn stored() -> Value {
    json!({ "edit": {
        "model": MODEL,
        "images": [{ "path": "source.png" }, { "bytes": "iVBORw0KGgo=" }],
        "mask": { "path": "mask.png" },
        "prompt": "add a starry night sky",
        "options": {
            "provider": "replicate",
            "size": "1024x768",
            "aspect_ratio": "16:9",
            "resolution": "1K",
            "response_format": "b64_json",
            "output_format": "jpeg",
            "output_compression": 80,
            "n": 2,
            "user": "ada",
            "sampling": {
                "seed": u64::MAX,
                "steps": 20,
                "guidance": 4.5,
                "negative_prompt": "rain",
                "strength": 0.6,
                "skip_layer_guidance": { "layers": [7, 8, 9], "scale": 2.5, "start": 0.01, "stop": 0.2 }
            },
            "extra": { "safety_tolerance": { "level": 2.5 } }
        }
    } })
}

#[test]
fn the_documented_form_is_read_and_written() {
    let request = Request::Edit(edit());
    assert_eq!(serde_json::from_value::<Request>(stored()).unwrap(), request);
    let text = serde_json::to_string(&request).unwrap();
    assert_eq!(text, stored_text(), "fields keep their order and their names");
    assert_eq!(serde_json::from_str::<Request>(&text).unwrap(), request);

    let minimal = Request::Generate(GenerateSpec::new(MODEL, "a lighthouse"));
    let text = format!(r#"{{"generate":{{"model":"{MODEL}","prompt":"a lighthouse"}}}}"#);
    assert_eq!(serde_json::from_str::<Request>(&text).unwrap(), minimal);
}

/// `stored()` as text, in the order of the fields.
fn stored_text() -> String {
    let options = r#"{"provider":"replicate","size":"1024x768","aspect_ratio":"16:9","resolution":"1K","#.to_owned()
        + r#""response_format":"b64_json","output_format":"jpeg","output_compression":80,"n":2,"user":"ada","#
        + r#""sampling":{"seed":18446744073709551615,"steps":20,"guidance":4.5,"negative_prompt":"rain","strength":0.6,"#
        + r#""skip_layer_guidance":{"layers":[7,8,9],"scale":2.5,"start":0.01,"stop":0.2}},"#
        + r#""extra":{"safety_tolerance":{"level":2.5}}}"#;
    format!(
        r#"{{"edit":{{"model":"{MODEL}","images":[{{"path":"source.png"}},{{"bytes":"iVBORw0KGgo="}}],"mask":{{"path":"mask.png"}},"prompt":"add a starry night sky","options":{options}}}}}"#
    )
}

#[test]
fn unknown_and_misplaced_keys_are_rejected_by_name() {
    let spec = json!({ "model": MODEL, "prompt": "a lighthouse" });
    let cases: [(&str, Value); 5] = [
        ("promt", json!({ "model": MODEL, "prompt": "a", "promt": "b" })),
        ("size", json!({ "model": MODEL, "prompt": "a", "size": "1024x1024" })),
        ("sizes", json!({ "model": MODEL, "prompt": "a", "options": { "sizes": "1024x1024" } })),
        ("cfg", json!({ "model": MODEL, "prompt": "a", "options": { "sampling": { "cfg": 4.5 } } })),
        (
            "layer",
            json!({ "model": MODEL, "prompt": "a",
            "options": { "sampling": { "skip_layer_guidance": { "layer": [7] } } } }),
        ),
    ];
    assert!(serde_json::from_value::<GenerateSpec>(spec).is_ok());
    for (name, json) in cases {
        let error = serde_json::from_value::<Request>(json!({ "generate": json })).unwrap_err().to_string();
        assert!(error.contains(&format!("unknown field `{name}`")), "{error}");
    }
    let error = serde_json::from_value::<Input>(json!({ "bytes": "not Base64!" })).unwrap_err().to_string();
    assert!(error.contains("not valid Base64"), "{error}");
}

#[test]
fn binary_formats_keep_every_field() {
    let generate = GenerateSpec::new(MODEL, "a lighthouse").with_options(edit().options);
    for request in [Request::Edit(edit()), generate.into(), GenerateSpec::new(MODEL, "").into()] {
        let bytes = postcard::to_stdvec(&request).unwrap();
        assert_eq!(postcard::from_bytes::<Request>(&bytes).unwrap(), request);
    }
    let sampling = edit().options.sampling;
    let bytes = postcard::to_stdvec(&sampling).unwrap();
    assert_eq!(postcard::from_bytes::<Sampling>(&bytes).unwrap(), sampling);
}

#[test]
fn the_wait_before_a_retry_is_a_number_of_seconds() {
    let progress = Progress::Retrying { attempt: 2, wait: Duration::from_millis(1500) };
    let json = json!({ "event": "retrying", "attempt": 2, "wait_seconds": 1.5 });
    assert_eq!(serde_json::to_value(progress).unwrap(), json);
}
