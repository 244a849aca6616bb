//! Generates the typed API of the model in `schemas/`.

fn main() -> Result<(), lumenfall_codegen::Error> {
    lumenfall_codegen::build("schemas/upscaler.json")
}
