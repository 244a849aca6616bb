//! `cargo xtask schema`: compares `schemas/` with the schemas that the gateway serves.

use std::process::Command;

/// Runs `pull` or `diff` in the package `xtask-schema`, which depends on the generated files. This package must not.
pub(crate) fn run(command: &str, models: &[&str]) -> Result<(), String> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../schemas");
    let status = Command::new(env!("CARGO"))
        .args(["run", "--quiet", "--package", "xtask-schema", "--", folder, command])
        .args(models)
        .status()
        .map_err(|error| format!("cannot start cargo: {error}"))?;
    match (status.success(), command) {
        (true, _) => Ok(()),
        (false, "diff") => Err("the schemas differ, or they could not be compared".into()),
        (false, _) => Err("the schemas were not updated".into()),
    }
}
