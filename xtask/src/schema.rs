//! `cargo xtask schema pull`: the schemas as the gateway serves them now.

use std::process::Command;

/// Updates `schemas/`. The program that does it is a package of its own: it stands on the generated files, and this one
/// must build without them.
pub(crate) fn pull(models: &[&str]) -> Result<(), String> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../schemas");
    let status = Command::new(env!("CARGO"))
        .args(["run", "--quiet", "--package", "schema-pull", "--", folder])
        .args(models)
        .status()
        .map_err(|problem| format!("cannot start cargo: {problem}"))?;
    if status.success() { Ok(()) } else { Err("the schemas were not pulled".into()) }
}
