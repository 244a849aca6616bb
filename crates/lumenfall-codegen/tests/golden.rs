//! Tests the generated code and the errors for invalid schemas.
#![allow(clippy::expect_used, clippy::panic, reason = "a test may panic")]

use std::fs;
use std::path::Path;

use lumenfall_codegen::generate;
use serde_json::{Value, json};

#[test]
fn generated_code_matches_the_golden_files() {
    for name in ["dreamer", "keywords", "sketcher", "upscaler"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
        let json = fs::read_to_string(folder.join(format!("{name}.json"))).unwrap();
        let golden = fs::read_to_string(folder.join(format!("{name}.rs"))).unwrap();
        let module = generate(&format!("tests/golden/{name}.json"), &json).unwrap();
        assert!(module.code == golden, "{name}.rs is out of date; run `cargo xtask codegen`");
    }
}

/// Returns a valid schema.
fn schema() -> Value {
    json!({
        "id": "m", "name": "M", "modes": ["text_to_image"],
        "providers": [{ "slug": "p", "name": "P", "modes": ["text_to_image"] }],
        "parameters": [
            { "name": "prompt", "type": "string", "description": "d", "modes": { "text_to_image": "required" } },
            { "name": "style", "type": "string", "enum": ["a", "b"], "description": "d", "modes": { "text_to_image": "optional" } },
            { "name": "level", "type": "integer", "description": "d", "modes": { "text_to_image": "optional" } }
        ]
    })
}

/// Returns the error for a valid schema after `change`.
fn problem(change: impl FnOnce(&mut Value)) -> String {
    let mut schema = schema();
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
        (problem(|s| s["parameters"][2]["name"] = "self".into()), "parameter `self`: the name is a Rust keyword"),
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

/// Returns the part of the message that follows the last "(at".
fn path(message: &str) -> &str {
    message.rsplit_once(" (at `").and_then(|(_, path)| path.strip_suffix("`)")).unwrap_or_default()
}

#[test]
fn errors_name_the_json_path() {
    let keys: [(&str, Value); 8] = [
        ("parameters[2].maximum", json!("9")),
        ("parameters[2].maximum", json!(9.5)),
        ("parameters[2].type", json!("float")),
        ("parameters[2].maximun", json!(9)),
        ("parameters[2].modes.text_to_image", json!("sometimes")),
        ("parameters[2].requires.style[1]", json!(["a", 1])),
        ("parameters[2].requires.style[0]", json!(["c"])),
        ("parameters[2].overrides[1]", json!(["style", "style"])),
    ];
    for (expected, value) in keys {
        let keys: Vec<&str> = expected.trim_end_matches("[0]").trim_end_matches("[1]").split('.').skip(1).collect();
        let message = problem(|schema| {
            let mut place = &mut schema["parameters"][2];
            for key in keys {
                place = &mut place[key];
            }
            *place = value;
        });
        assert_eq!(path(&message), expected, "{message}");
        assert!(message.starts_with("m.json: parameter `level`: "), "{message}");
    }
    for (expected, message) in [
        ("id", problem(|s| s["id"] = 3.into())),
        ("modes[0]", problem(|s| s["modes"] = json!(["video"]))),
        ("providers[0].slug", problem(|s| s["providers"][0]["slug"] = "P Q".into())),
        ("parameters[1].enum[1]", problem(|s| s["parameters"][1]["enum"] = json!(["a-b", "a_b"]))),
    ] {
        assert_eq!(path(&message), expected, "{message}");
    }
    let truncated = generate("m.json", r#"{ "id": "m", "parameters": [{ "name": "level", "maximum": }"#).unwrap_err();
    assert_eq!(path(&truncated.to_string()), "parameters[0].maximum", "{truncated}");
    assert!(truncated.to_string().contains("line 1 column"), "{truncated}");
    assert!(generate("m.json", "{}{}").is_err());
}

#[test]
fn defaults_must_satisfy_the_rules_of_their_parameter() {
    let with = |keys: &Value, default: &Value| {
        let mut schema = schema();
        let level = &mut schema["parameters"][2];
        for (key, value) in keys.as_object().unwrap() {
            level[key] = value.clone();
        }
        level["default"] = default.clone();
        schema["max_resolution"] = json!({ "width": 1024, "height": 512 });
        generate("m.json", &schema.to_string()).map_err(|error| error.to_string())
    };
    let integer = json!({ "minimum": 1, "maximum": 3 });
    let number = json!({ "type": "number", "minimum": 0.5, "maximum": 1 });
    let text = json!({ "type": "string", "max_length": 3 });
    let choice = json!({ "type": "string", "enum": ["a"] });
    let size = json!({ "name": "size", "type": "string", "format": "size" });
    let ratio = json!({ "name": "aspect_ratio", "type": "string", "format": "aspect_ratio" });
    let tier = json!({ "name": "resolution", "type": "string", "format": "resolution_tier" });
    let boolean = json!({ "type": "boolean" });
    let cases = [
        (&integer, json!(2), vec![json!(0), json!(4), json!(1.5), json!("2"), json!([])]),
        (&number, json!(1), vec![json!(0.4), json!(1.1), json!("1"), json!(true)]),
        (&text, json!("äöü"), vec![json!("abcd"), json!(1), json!({})]),
        (&choice, json!("a"), vec![json!("b"), json!(1)]),
        (&size, json!("1024x512"), vec![json!("1024"), json!("0x512"), json!("1024x513"), json!("+1x1"), json!(1024)]),
        (&size, json!("16:9"), vec![json!("16:0"), json!("16:9:1")]),
        (&ratio, json!("16:9"), vec![json!("16x9"), json!("0:1"), json!(1)]),
        (&tier, json!("2K"), vec![json!("2k"), json!("0K"), json!("2"), json!(2)]),
        (&boolean, json!(false), vec![json!("false"), json!(0)]),
    ];
    for (keys, valid, invalid) in cases {
        with(keys, &valid).unwrap_or_else(|error| panic!("{valid} for {keys}: {error}"));
        for default in invalid {
            let message = with(keys, &default).unwrap_err();
            assert_eq!(path(&message), "parameters[2].default", "{default} for {keys}: {message}");
            assert!(message.contains("the default"), "{message}");
        }
    }
}

#[test]
fn cycles_of_requirements_are_rejected() {
    let message = problem(|schema| {
        let values = json!(["a", "b"]);
        for (index, name, other) in [(1, "style", "level"), (2, "level", "paper"), (3, "paper", "style")] {
            schema["parameters"].as_array_mut().unwrap().truncate(index);
            let mut modes_and_values = schema["parameters"][0].clone();
            modes_and_values["modes"]["text_to_image"] = "optional".into();
            modes_and_values["name"] = name.into();
            modes_and_values["enum"] = values.clone();
            modes_and_values["requires"] = json!({ other: ["a"] });
            schema["parameters"].as_array_mut().unwrap().push(modes_and_values);
        }
    });
    assert!(message.contains("parameter `style`: it requires `level`, which requires `paper`, which requires `style`"));
    assert_eq!(path(&message), "parameters[1].requires.level", "{message}");
}

#[test]
fn control_characters_are_rejected_with_their_place() {
    for control in ['\u{202E}', '\u{2066}', '\u{200F}', '\0', '\u{1B}', '\u{85}', '\u{2028}'] {
        let text = format!("a{control}b");
        for (expected, message) in [
            ("name", problem(|s| s["name"] = text.clone().into())),
            ("id", problem(|s| s["id"] = text.clone().into())),
            ("creator", problem(|s| s["creator"] = text.clone().into())),
            ("providers[0].name", problem(|s| s["providers"][0]["name"] = text.clone().into())),
            ("parameters[2].name", problem(|s| s["parameters"][2]["name"] = text.clone().into())),
            ("parameters[1].description", problem(|s| s["parameters"][1]["description"] = text.clone().into())),
            ("parameters[1].enum[1]", problem(|s| s["parameters"][1]["enum"][1] = text.clone().into())),
            ("parameters[0].default", problem(|s| s["parameters"][0]["default"] = text.clone().into())),
        ] {
            assert_eq!(path(&message), expected, "{message}");
            assert!(message.contains(&format!("U+{:04X}", u32::from(control))), "{message}");
            assert!(!message.contains(control), "the message itself contains the character: {message:?}");
        }
    }
    let mut schema: Value = serde_json::from_str(&fs::read_to_string("tests/golden/sketcher.json").unwrap()).unwrap();
    schema["parameters"][0]["description"] = "Text\r\n\twith line breaks */ \"quotes\" {braces} \\u{202E}".into();
    let code = generate("a\nb\u{202E}.json", &schema.to_string()).unwrap().code;
    assert!(
        !code.contains(['\u{202E}', '\r']) && code.starts_with("// Generated by lumenfall-codegen from a b .json;")
    );
}

#[test]
fn keywords_become_raw_identifiers() {
    for keyword in ["as", "async", "await", "dyn", "gen", "try", "type", "match", "static", "abstract"] {
        let mut schema = schema();
        schema["id"] = keyword.into();
        schema["parameters"][1]["name"] = keyword.into();
        schema["parameters"][1]["enum"] = json!(["self", "crate", keyword]);
        let module = generate("m.json", &schema.to_string()).unwrap();
        assert_eq!(module.name, format!("model_{keyword}"));
        assert!(module.code.contains(&format!("pub fn r#{keyword}")), "{}", module.code);
        assert!(!module.code.contains(&format!("`r#{keyword}`")), "{}", module.code);
    }
    for keyword in ["self", "super", "crate"] {
        let message = problem(|schema| schema["parameters"][1]["name"] = keyword.into());
        assert_eq!(path(&message), "parameters[1].name", "{message}");
    }
}

#[test]
fn the_order_of_required_parameters_does_not_depend_on_the_schema() {
    let mut schema = json!({ "id": "m", "name": "M", "modes": ["image_edit"], "parameters": [] });
    for (name, kind) in [("zeal", "boolean"), ("prompt", "string"), ("angle", "boolean"), ("image", "file")] {
        let parameter =
            json!({ "name": name, "type": kind, "description": "d", "modes": { "image_edit": "required" } });
        schema["parameters"].as_array_mut().unwrap().push(parameter);
    }
    let code = generate("m.json", &schema.to_string()).unwrap().code;
    let (_, arguments) = code.split_once("pub fn edit(").unwrap();
    let (arguments, _) = arguments.split_once("->").unwrap();
    let at = |name: &str| arguments.find(&format!("{name}: ")).unwrap();
    assert!(at("image") < at("prompt") && at("prompt") < at("angle") && at("angle") < at("zeal"), "{arguments}");
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

/// The error for an unknown key lists the keys that the generator reads.
#[test]
fn every_key_of_a_schema_is_documented() {
    let source = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    let (_, documentation) = source.split_once("//! # Schemas").unwrap();
    let unknown = |place: fn(&mut Value) -> &mut Value| problem(|schema| place(schema)["unknown"] = 1.into());
    let messages = [
        unknown(|schema| schema),
        unknown(|schema| &mut schema["providers"][0]),
        unknown(|schema| &mut schema["parameters"][2]),
    ];
    let mut count = 0;
    for (message, section) in messages.iter().zip(documentation.split("//! ## ")) {
        let (_, keys) = message.split_once("expected one of ").unwrap();
        let (keys, _) = keys.split_once(" at line").unwrap();
        for key in keys.split(", ") {
            let is_documented = |row: &str| row.split(" | ").nth(1).is_some_and(|cell| cell.contains(key));
            assert!(section.lines().any(is_documented), "{key} is not documented in {section}");
            count += 1;
        }
    }
    assert!(count >= 25, "{count}");
}
