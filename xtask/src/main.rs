//! Development tasks: `cargo xtask <command>`.

mod bench;
mod codegen;
mod schema;

use std::process::ExitCode;

const USAGE: &str = "usage: cargo xtask codegen [--check]
       cargo xtask schema pull|diff [MODEL...]
       cargo xtask make-weights f32|f16|bf16|fp8|f16-gguf|q8_0|q4_k FOLDER [--no-t5]
       cargo xtask bench denoiser|formats|lora|vae|remote|connections [--json FILE]
       cargo xtask bench local FOLDER [--size PIXELS] [--json FILE]
       cargo xtask bench first-block-cache [FOLDER]
       cargo xtask bench gpu FOLDER [--device INDEX] [--size PIXELS] [--steps NUMBER] [--memory GIB]";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match arguments.as_slice() {
        ["codegen"] => codegen::write(),
        ["codegen", "--check"] => codegen::check(),
        ["schema", command @ ("pull" | "diff"), models @ ..] => schema::run(command, models),
        ["make-weights", format, folder, options @ ..] => bench::make_weights(format, folder, options),
        ["bench", name, further @ ..] => bench::run(name, further),
        _ => Err(USAGE.into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
