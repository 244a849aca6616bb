//! Tests the generated code and the errors for invalid schemas.
#![allow(clippy::expect_used, reason = "a test may panic")]

use std::fs;
use std::path::Path;

use lumenfall_codegen::generate;
use serde_json::{Value, json};

#[test]
fn generated_code_matches_the_golden_files() {
    for name in ["dreamer", "sketcher", "upscaler"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
        let json = fs::read_to_string(folder.join(format!("{name}.json"))).unwrap();
        let golden = fs::read_to_string(folder.join(format!("{name}.rs"))).unwrap();
        let module = generate(&format!("tests/golden/{name}.json"), &json).unwrap();
        assert!(module.code == golden, "{name}.rs is out of date; run `cargo xtask codegen`");
    }
}

/// Returns the error for a valid schema after `change`.
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
    generate("m.json", &schema.to_string()).expect("the schema is valid before the change");
    change(&mut schema);
    generate("m.json", &schema.to_string()).expect_err("the schema is invalid after the change").to_string()
}

#[test]
fn errors_of_invalid_schemas_name_the_file_and_the_parameter() {
    let cases: Vec<(String, &str)> = vec![
        (generate("m.json", "{").unwrap_err().to_string(), "EOF"),
        (problem(|s| s["parameters"][2]["maximun"] = 3.into()), "maximun"),
        (problem(|s| s["id"] = "".into()), "`id`"),
        (problem(|s| s["modes"] = json!([])), "`modes` is empty"),
        (problem(|s| s["modes"] = json!(["video"])), "video"),
        (problem(|s| s["max_resolution"] = json!({ "width": 0, "height": 1 })), "max_resolution"),
        (problem(|s| s["providers"][0]["slug"] = "P Q".into()), "provider \"P Q\""),
        (problem(|s| s["providers"][0]["modes"] = json!(["image_edit"])), "provider `p`"),
        (problem(|s| s["parameters"][2]["name"] = "style".into()), "parameter `Style` occurs twice"),
        (problem(|s| s["parameters"][2]["name"] = "type".into()), "parameter `type`"),
        (problem(|s| s["parameters"][2]["name"] = "Level 3".into()), "parameter `Level 3`"),
        (problem(|s| s["parameters"][2]["name"] = "send".into()), "parameter `send`"),
        (
            problem(|s| s["parameters"][2]["name"] = "size".into()),
            "parameter `size`: a parameter with this name must be",
        ),
        (problem(|s| s["parameters"][2]["minimum"] = 3.5.into()), "parameter `level`: the bound 3.5"),
        (
            problem(|s| s["parameters"][1]["minimum"] = 1.into()),
            "parameter `style`: `minimum` is allowed for numbers only",
        ),
        (problem(|s| s["parameters"][1]["enum"] = json!([])), "parameter `style`: `enum` is empty"),
        (problem(|s| s["parameters"][1]["enum"] = json!(["a-b", "a_b"])), "parameter `style`: value of `enum` `AB`"),
        (problem(|s| s["parameters"][1]["default"] = "c".into()), "parameter `style`: the default"),
        (
            problem(|s| s["parameters"][2]["modes"] = json!({ "image_edit": "optional" })),
            "parameter `level`: the `modes` of the model",
        ),
        (
            problem(|s| s["parameters"][2]["overrides"] = json!(["nothing"])),
            "parameter `level`: it refers to `nothing`",
        ),
        (problem(|s| s["parameters"][2]["overrides"] = json!(["prompt"])), "parameter `level`: it refers to `prompt`"),
        (
            problem(|s| {
                s["parameters"][1]["name"] = "response_format".into();
                s["parameters"][1]["enum"] = json!(["url", "b64_json"]);
                s["parameters"][2]["requires"] = json!({ "response_format": ["url"] });
            }),
            "parameter `level`: it cannot refer to `response_format`",
        ),
        (
            problem(|s| s["parameters"][2]["requires"] = json!({ "style": ["c"] })),
            "parameter `level`: it requires `style`",
        ),
        (
            problem(|s| {
                s["parameters"][2]["minimum"] = 3.into();
                s["parameters"][2]["maximum"] = 2.into();
            }),
            "parameter `level`: `minimum` 3 is greater than `maximum` 2",
        ),
    ];
    for (message, part) in cases {
        assert!(message.starts_with("m.json: ") && message.contains(part), "{message:?} does not contain {part:?}");
    }
}

#[test]
fn inputs_that_fuzzing_found_do_not_panic() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/schema");
    let read = fs::read_dir(&folder).unwrap().filter(|entry| {
        let json = fs::read(entry.as_ref().unwrap().path()).unwrap();
        generate("fuzz.json", &String::from_utf8_lossy(&json)).is_ok()
    });
    assert!(read.count() >= 4, "the valid schemas among them are accepted");
}

/// A `build.rs` prints the error that `main` returns with `Debug`.
#[test]
fn errors_are_printed_as_text() {
    let error = generate("m.json", "{").unwrap_err();
    assert_eq!(format!("{error:?}"), error.to_string());
}
