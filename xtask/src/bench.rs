//! `cargo xtask bench`: runs a benchmark of the repository, which compares lumenfall with other software.

use std::ffi::OsStr;
use std::process::Command;

/// The package is outside the workspace, so that only this command builds the peers.
const REMOTE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../benches/remote");

/// Runs a benchmark. Further arguments, such as `--json FILE`, are passed to it.
pub(crate) fn run(name: &str, further: &[&str]) -> Result<(), String> {
    match name {
        "denoiser" | "vae" => {
            let arguments = ["bench", "--quiet", "--features", "local", "--bench", "local", "--", name];
            succeed(env!("CARGO"), arguments.iter().chain(further), name)
        }
        "connections" => succeed(env!("CARGO"), ["bench", "--quiet", "--bench", "connections"], name),
        "remote" => {
            let (manifest, target) = (format!("{REMOTE}/Cargo.toml"), format!("{REMOTE}/target"));
            let build = ["build", "--quiet", "--release", "--manifest-path", &manifest, "--target-dir", &target];
            succeed(env!("CARGO"), build, name)?;
            succeed(format!("{target}/release/remote-bench"), further, name)
        }
        _ => Err(format!("unknown benchmark {name:?}; the benchmarks are denoiser, vae, remote and connections")),
    }
}

fn succeed<S: AsRef<OsStr>>(
    program: impl AsRef<OsStr>,
    arguments: impl IntoIterator<Item = S>,
    name: &str,
) -> Result<(), String> {
    let program = program.as_ref();
    let status = Command::new(program)
        .args(arguments)
        .status()
        .map_err(|error| format!("cannot start {}: {error}", program.display()))?;
    if status.success() { Ok(()) } else { Err(format!("the benchmark {name} missed a goal or failed")) }
}
