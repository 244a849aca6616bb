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
        (problem(|s| s["parameters"][1]["default"] = "c".into()), "parameters[1]: parameter `style`: its default is"),
        (problem(|s| s["parameters"][2]["name"] = "gen".into()), "parameters[2]: parameter `gen`"),
        (problem(|s| s["parameters"][2]["name"] = "async".into()), "parameters[2]: parameter `async`"),
        (problem(|s| s["parameters"][2]["maximum"] = "9".into()), "parameters[2].maximum"),
        (problem(|s| s["parameters"][2]["default"] = "9".into()), "parameter `level`: its default is \"9\""),
        (problem(|s| s["parameters"][2]["default"] = 0.5.into()), "a whole number"),
        (
            problem(|s| {
                s["parameters"][2]["maximum"] = 8.into();
                s["parameters"][2]["default"] = 9.into();
            }),
            "to 8",
        ),
        (
            problem(|s| {
                s["parameters"][0]["max_length"] = 2.into();
                s["parameters"][0]["default"] = "abc".into();
            }),
            "text of at most 2 characters",
        ),
        (
            problem(|s| {
                s["parameters"][2] = json!({ "name": "size", "type": "string", "format": "size", "description": "d",
                    "default": "1024*1024", "modes": { "text_to_image": "optional" } });
            }),
            "its default is \"1024*1024\"",
        ),
        (problem(|s| s["parameters"][2]["description"] = "a\u{202E}b".into()), "`parameters[2].description` contains"),
        (problem(|s| s["parameters"][1]["enum"][1] = "b\u{2066}".into()), "`parameters[1].enum[1]` contains"),
        (problem(|s| s["name"] = "M\u{0}".into()), "`name` contains"),
        (
            problem(|s| {
                s["parameters"][1]["requires"] = json!({ "paper": ["x"] });
                let paper = json!({ "name": "paper", "type": "string", "enum": ["x"], "description": "d",
                    "requires": { "style": ["a"] }, "modes": { "text_to_image": "optional" } });
                s["parameters"].as_array_mut().expect("the parameters").push(paper);
            }),
            "parameter `style`: it requires itself through others",
        ),
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

/// Reordering a schema must not reorder arguments of the same type, which the compiler would not notice.
#[test]
fn required_parameters_are_arguments_in_a_fixed_order() {
    let parameter = |name: &str, kind: &str| json!({ "name": name, "type": kind, "description": "d", "modes": { "image_edit": "required" } });
    let mut count = parameter("count", "integer");
    (count["minimum"], count["maximum"]) = (1.into(), 4.into());
    let parameters = [parameter("style", "string"), count, parameter("prompt", "string"), parameter("image", "file")];
    for order in [[0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2]] {
        let parameters = order.map(|index| parameters[index].clone());
        let schema = json!({ "id": "m", "name": "M", "modes": ["image_edit"], "parameters": parameters });
        let code = generate("m.json", &schema.to_string()).unwrap().code;
        let start = code.find("pub fn edit(").unwrap();
        let signature = &code[start..start + code[start..].find('{').unwrap()];
        let names = ["image:", "prompt:", "count:", "style:"].map(|name| signature.find(name).unwrap());
        assert!(names.is_sorted(), "{signature}");
        assert!(code.contains("pub struct Count(u32)"), "a range that fits has the type u32");
    }
}
