//! The generator's output, and its words where a schema is broken.
#![allow(clippy::expect_used, reason = "a test may panic")]

use std::fs;
use std::path::Path;

use lumenfall_codegen::generate;
use serde_json::{Value, json};

#[test]
fn output_is_the_golden_file() {
    for name in ["dreamer", "sketcher", "upscaler"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
        let json = fs::read_to_string(folder.join(format!("{name}.json"))).unwrap();
        let golden = fs::read_to_string(folder.join(format!("{name}.rs"))).unwrap();
        let module = generate(&format!("tests/golden/{name}.json"), &json).unwrap();
        assert!(module.code == golden, "{name}.rs is out of date; run `cargo xtask codegen`");
    }
}

/// A schema with one optional parameter, changed by `change`.
fn problem(change: impl FnOnce(&mut Value)) -> String {
    let mut schema = json!({
        "id": "m", "name": "M", "modes": ["text_to_image"],
        "providers": [{ "slug": "p", "name": "P", "modes": ["text_to_image"] }],
        "parameters": [
            { "name": "prompt", "type": "string", "description": "d", "modes": { "text_to_image": "required" } },
            { "name": "style", "type": "string", "enum": ["a", "b"], "description": "d", "modes": { "text_to_image": "optional" } },
            { "name": "level", "type": "integer", "description": "d", "modes": { "text_to_image": "optional" } }
        ]
    });
    generate("m.json", &schema.to_string()).expect("the schema is sound before the change");
    change(&mut schema);
    generate("m.json", &schema.to_string()).expect_err("the change breaks it").to_string()
}

#[test]
fn broken_schemas_are_errors_that_name_file_and_parameter() {
    let cases: Vec<(String, &str)> = vec![
        (generate("m.json", "{").unwrap_err().to_string(), "EOF"),
        (problem(|s| s["parameters"][2]["maximun"] = 3.into()), "maximun"),
        (problem(|s| s["id"] = "".into()), "`id`"),
        (problem(|s| s["modes"] = json!([])), "`modes` is empty"),
        (problem(|s| s["modes"] = json!(["video"])), "video"),
        (problem(|s| s["max_resolution"] = json!({ "width": 0, "height": 1 })), "max_resolution"),
        (problem(|s| s["providers"][0]["slug"] = "P Q".into()), "provider \"P Q\""),
        (problem(|s| s["providers"][0]["modes"] = json!(["image_edit"])), "provider `p`"),
        (problem(|s| s["parameters"][2]["name"] = "style".into()), "there twice"),
        (problem(|s| s["parameters"][2]["name"] = "type".into()), "parameter `type`"),
        (problem(|s| s["parameters"][2]["name"] = "Level 3".into()), "parameter `Level 3`"),
        (problem(|s| s["parameters"][2]["name"] = "send".into()), "parameter `send`"),
        (problem(|s| s["parameters"][2]["name"] = "size".into()), "parameter `size`: under this name"),
        (problem(|s| s["parameters"][2]["minimum"] = 3.5.into()), "parameter `level`: the bound 3.5"),
        (problem(|s| s["parameters"][1]["minimum"] = 1.into()), "parameter `style`: `minimum` is for numbers only"),
        (problem(|s| s["parameters"][1]["enum"] = json!([])), "parameter `style`: `enum` is empty"),
        (problem(|s| s["parameters"][1]["enum"] = json!(["a-b", "a_b"])), "parameter `style`: value of `enum` `AB`"),
        (problem(|s| s["parameters"][1]["default"] = "c".into()), "parameter `style`: the default"),
        (
            problem(|s| s["parameters"][2]["modes"] = json!({ "image_edit": "optional" })),
            "parameter `level`: the model",
        ),
        (problem(|s| s["parameters"][2]["overrides"] = json!(["nothing"])), "parameter `level`: it names `nothing`"),
        (problem(|s| s["parameters"][2]["overrides"] = json!(["prompt"])), "parameter `level`: it names `prompt`"),
        (
            problem(|s| s["parameters"][2]["requires"] = json!({ "style": ["c"] })),
            "parameter `level`: it requires `style`",
        ),
        (
            problem(|s| {
                s["parameters"][2]["minimum"] = 3.into();
                s["parameters"][2]["maximum"] = 2.into();
            }),
            "parameter `level`: `minimum` 3 is above `maximum` 2",
        ),
    ];
    for (message, part) in cases {
        assert!(message.starts_with("m.json: ") && message.contains(part), "{message:?} lacks {part:?}");
    }
}

/// The inputs of the fuzz target `schema`: a module or an error, never a panic.
#[test]
fn every_schema_that_fuzzing_kept_is_read_or_refused() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/schema");
    let read = fs::read_dir(&folder).unwrap().filter(|entry| {
        let json = fs::read(entry.as_ref().unwrap().path()).unwrap();
        generate("fuzz.json", &String::from_utf8_lossy(&json)).is_ok()
    });
    assert!(read.count() >= 4, "the sound schemas among them are read");
}
