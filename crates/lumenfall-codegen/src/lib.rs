//! Generates typed request builders for `lumenfall` from a model's parameter schema.
//!
//! In a `build.rs`, [`build`] generates the typed API of a custom model:
//!
//! ```no_run
//! fn main() -> Result<(), lumenfall_codegen::Error> {
//!     lumenfall_codegen::build("schemas/sketcher.json")
//! }
//! ```
//!
//! The crate includes the generated file:
//!
//! ```ignore
//! pub mod sketcher {
//!     include!(concat!(env!("OUT_DIR"), "/sketcher.rs"));
//! }
//! let request = client.images_for::<sketcher::Sketcher>().generate("a lighthouse");
//! ```
//!
//! # Schemas
//!
//! A schema lists the model's parameters, their supported values, the modes in which they exist, and which parameters
//! exclude or require each other. `schemas/stable-diffusion-3.5-medium.json` in this repository is an example.
//!
//! A schema is a JSON object. Keys other than those below are errors, because a misspelled `maximum` would otherwise remove
//! a limit. No text may contain control characters, or characters that change the direction of text; a `description` may
//! contain line breaks and tabs.
//!
//! | key | type | meaning |
//! |---|---|---|
//! | `id` | string, required | The model's id in the API. The Rust names are derived from it: `sketcher-1.5` becomes the type `Sketcher15` in the file `sketcher_1_5.rs`. |
//! | `name` | string, required | The display name. |
//! | `creator` | string | The organization that created the model, for the documentation. |
//! | `family` | string | The model family. The generated code does not contain it. |
//! | `modes` | array, required | `text_to_image`, `image_edit` or both. |
//! | `max_resolution` | object | The largest image: `width` and `height` in pixels, both required and at least 1. Limits a parameter with the format `size`. |
//! | `providers` | array of objects | The providers that run the model; see below. |
//! | `parameters` | array of objects, required | The parameters; see below. |
//!
//! ## Providers
//!
//! | key | type | meaning |
//! |---|---|---|
//! | `slug` | string, required | The provider's name in the API: lower-case letters, digits and hyphens. It becomes a type for `pin(..)`. |
//! | `name` | string, required | The display name. |
//! | `model` | string | The provider's own name of the model. |
//! | `modes` | array, required | The modes that the provider offers, of those of the model. |
//! | `price` | object | The published price: `usd` (number, 0 or more) and `per` (`image` or `megapixel`), both required. |
//!
//! ## Parameters
//!
//! | key | type | allowed for | meaning |
//! |---|---|---|---|
//! | `name` | string, required | all | The name in the API, in snake_case. A Rust keyword becomes a raw identifier, such as `r#type`; `self`, `super`, `crate` and names of methods of every builder, such as `send`, are errors. |
//! | `type` | string, required | all | `string`, `integer`, `number`, `boolean` or `file`. |
//! | `description` | string, required | all | A sentence for the documentation. |
//! | `modes` | object, required | all | `required` or `optional` for each mode that has the parameter: `{ "text_to_image": "required", "image_edit": "optional" }`. |
//! | `group` | string | all | A group in a user interface. The generated code does not contain it. |
//! | `default` | value of the type | all but `file` | The value that the API uses if the parameter is not set. It must satisfy the rules of the parameter. |
//! | `enum` | array of strings | `string` | The supported values. Each becomes a variant of an enum. If other parameters require one of the values, or the parameter is `response_format`, each also becomes a type in a module that is named after the parameter. |
//! | `format` | string | `string` | `size` (`1024x1024` or `16:9`), `aspect_ratio` (`16:9`) or `resolution_tier` (`1K`). Not together with `enum` or `max_length`. |
//! | `max_length` | integer, at least 1 | `string` | The maximum number of characters. Not together with `enum` or `format`. |
//! | `minimum`, `maximum` | number | `integer`, `number` | The smallest and the largest supported value. |
//! | `repeatable` | boolean | `file` | Whether several files can be sent. The default is `false`. |
//! | `media_types` | array of strings | `file` | The supported file formats, for the documentation. |
//! | `overrides` | array of strings | optional parameters | Optional parameters that cannot be combined with this one. List the rule for one of the two parameters only. |
//! | `requires` | object | optional parameters | For each other parameter with an `enum`, the values that it must have: `{ "output_format": ["jpeg", "webp"] }`. Requirements must not form a cycle. |
//!
//! The arguments of `generate` and `edit` are the required parameters, in an order that does not depend on the schema: the
//! image, the prompt, and the others alphabetically. Optional parameters are setters.
//!
//! ## Types in Rust
//!
//! | `type` | argument of the setter |
//! |---|---|
//! | `string` | Any string type, or a literal that is checked at compile time. |
//! | `string` with `enum` | A variant of the enum, such as `parameters::Style::Ink`, or `text.parse()?` at run time. If each value has a type, also that type, such as `output_format::Webp`. |
//! | `string` with `format` | A checked `Size`, `AspectRatio` or `Resolution`. |
//! | `integer` | A checked `u32` if both bounds are given and fit into it, else `i64`. `seed` is a `u64`; `n`, `output_compression`, `num_inference_steps` and `steps` are always `u32`. |
//! | `number` | A checked `f64`. |
//! | `boolean` | `bool` |
//! | `file` | An image: `lumenfall::Input`, a path, or the bytes of a file. If it is `repeatable`, also several of them. |
//!
//! These parameters have a fixed type, because requests have a field for each: `prompt`, `user`, `negative_prompt` (`string`),
//! `image` (`file`), `mask` (`file`, not `repeatable`), `size`, `aspect_ratio`, `resolution` (`string` with the format
//! `size`, `aspect_ratio` or `resolution_tier`), `response_format` (`enum` of `url` and `b64_json`, optional in every mode),
//! `output_format` (`enum` of `png`, `jpeg`, `gif`, `webp` and `avif`), `n`, `output_compression`, `seed`,
//! `num_inference_steps` or `steps` (`integer`), `guidance_scale` or `guidance`, and `strength` (`number`). Other parameters cannot be files.
//!
//! # Errors
//!
//! Messages name the file, the parameter and the JSON path: ``sketcher.json: parameter `level`: `minimum` 3 is greater than
//! `maximum` 2 (at `parameters[2].minimum`)``.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod default;
mod emit;
mod error;
mod model;
mod names;
mod problem;
mod schema;

use std::path::Path;

pub use error::Error;
use problem::Problem;

/// The generated code of one model.
#[derive(Clone, Debug)]
pub struct Module {
    /// The model's id, such as `stable-diffusion-3.5-medium`.
    pub id: String,
    /// The model's display name, such as `Stable Diffusion 3.5 Medium`.
    pub title: String,
    /// The module's name, such as `stable_diffusion_3_5_medium`.
    pub name: String,
    /// The module's source code.
    pub code: String,
}

/// Generates the code for the model whose schema is `json`. Errors and the first line of the code name the schema as
/// `file`.
///
/// ```
/// let json = r#"{
///     "id": "sketcher", "name": "Sketcher", "modes": ["text_to_image"],
///     "parameters": [{
///         "name": "prompt", "type": "string", "description": "What to draw",
///         "modes": { "text_to_image": "required" }
///     }]
/// }"#;
/// let module = lumenfall_codegen::generate("sketcher.json", json)?;
/// assert_eq!(module.name, "sketcher");
/// assert!(module.code.contains("pub fn generate"));
/// # Ok::<(), lumenfall_codegen::Error>(())
/// ```
///
/// # Errors
/// Returns an error that names `file` if the schema is malformed or contradicts itself.
pub fn generate(file: &str, json: &str) -> Result<Module, Error> {
    write(file, json, false)
}

/// Like [`generate`], but compiler messages recommend the short macros (`size!`, `count!`, …), which exist for the
/// default model only.
///
/// # Errors
/// The same as [`generate`].
pub fn generate_default(file: &str, json: &str) -> Result<Module, Error> {
    write(file, json, true)
}

/// Generates the code for the schema at `path` from a `build.rs`. Writes it to `OUT_DIR`, to a file that is named after the
/// model's id, such as `sketcher.rs`.
///
/// # Errors
/// The same as [`generate`], and an error if a file cannot be read or written.
pub fn build(path: impl AsRef<Path>) -> Result<(), Error> {
    let path = path.as_ref();
    let name = path.display().to_string();
    println!("cargo::rerun-if-changed={name}");
    let failed = |problem: &dyn std::fmt::Display| Error::new(&name, problem);
    let json = std::fs::read_to_string(path).map_err(|problem| failed(&problem))?;
    let module = generate(&name, &json)?;
    let folder =
        std::env::var_os("OUT_DIR").ok_or_else(|| failed(&"`OUT_DIR` is not set; call `build` in a build.rs"))?;
    std::fs::write(Path::new(&folder).join(format!("{}.rs", module.name)), module.code)
        .map_err(|problem| failed(&problem))
}

/// Returns the code of the `mod.rs` that declares the generated modules and looks up a schema by model id.
pub fn index(modules: &[Module]) -> String {
    let mut code = String::from(
        "// Generated by lumenfall-codegen from the files in schemas/; do not edit.\n\n\
         //! One module per model, generated from its parameter schema.\n\n",
    );
    for module in modules {
        code.push_str(&format!("/// {}.\n#[rustfmt::skip]\npub mod {};\n\n", module.title, module.name));
    }
    code.push_str(
        "use crate::images::typed::Schema;\n\n/// Returns the schema of the model `id`, if this crate contains it.\n\
         pub fn schema(id: &str) -> Option<&'static Schema> {\n    match id {\n",
    );
    for module in modules {
        code.push_str(&format!("        {:?} => Some(&{}::SCHEMA),\n", module.id, module.name));
    }
    code.push_str("        _ => None,\n    }\n}\n");
    code
}

fn write(file: &str, json: &str, shorthands: bool) -> Result<Module, Error> {
    let model = parse(json).map_err(|problem| Error::new(file, problem))?;
    let items = emit::module(&model, shorthands);
    let syntax = syn::parse2(items).map_err(|problem| Error::new(file, problem))?;
    let code = format!(
        "// Generated by lumenfall-codegen from {}; do not edit.\n\n{}",
        file.replace(names::is_control, " "),
        spaced(&prettyplease::unparse(&syntax))
    );
    Ok(Module { name: names::snake(&model.id), id: model.id, title: model.name, code })
}

fn parse(json: &str) -> Result<model::Model, Problem> {
    let value: Option<serde_json::Value> = serde_json::from_str(json).ok();
    let mut reader = serde_json::Deserializer::from_str(json);
    let schema = serde_path_to_error::deserialize(&mut reader);
    let schema = schema.map_err(|error| Problem::of_form(&error, value.as_ref()))?;
    reader.end().map_err(|error| Problem::from(error.to_string()))?;
    let value = value.ok_or("the file is not valid JSON")?;
    problem::reject_control_characters(&value)?;
    model::check(schema, value.to_string())
}

/// Inserts blank lines between items, because the printer does not.
fn spaced(code: &str) -> String {
    let mut spaced = String::new();
    let mut before = "";
    for line in code.lines() {
        let indent = |line: &str| line.len() - line.trim_start().len();
        let starts_item = ["///", "#[", "pub ", "impl", "fn ", "::lumenfall::shared_methods"]
            .iter()
            .any(|start| line.trim_start().starts_with(start));
        let ends_item = before.ends_with(';') || before.ends_with('}');
        let is_list = before.ends_with("{}") && !line.trim_start().starts_with("///");
        if starts_item && ends_item && !is_list && indent(before) == indent(line) {
            spaced.push('\n');
        }
        spaced.push_str(line);
        spaced.push('\n');
        before = line;
    }
    spaced
}
