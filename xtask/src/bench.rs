//! `cargo xtask bench`: the repository's benchmarks, each beside its peer.

use std::process::Command;

/// The bench target that holds a benchmark, and the feature it needs.
fn target(name: &str) -> Option<(&'static str, &'static str)> {
    match name {
        "denoiser" | "vae" => Some(("local", "local")),
        _ => None,
    }
}

/// Runs one benchmark; further arguments (`--json FILE`) are passed on.
pub(crate) fn run(name: &str, further: &[&str]) -> Result<(), String> {
    let (target, feature) =
        target(name).ok_or_else(|| format!("there is no benchmark {name:?}; there are denoiser and vae"))?;
    let status = Command::new(env!("CARGO"))
        .args(["bench", "--quiet", "--features", feature, "--bench", target, "--", name])
        .args(further)
        .status()
        .map_err(|error| format!("cannot start cargo: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("the benchmark {name} missed its goal or failed")) }
}
