//! `cargo xtask bench` runs a benchmark of the repository. `cargo xtask make-weights` writes models for it.

use std::ffi::OsStr;
use std::process::Command;

/// The package is outside the workspace, so that only this command builds the peers.
const REMOTE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../benches/remote");

/// Runs a benchmark. Further arguments, such as `--json FILE`, are passed to it.
pub(crate) fn run(name: &str, further: &[&str]) -> Result<(), String> {
    let failed = || format!("the benchmark {name} missed a goal or failed");
    match name {
        "denoiser" | "formats" | "lora" | "vae" => local(&[vec![name], further.to_vec()].concat(), failed),
        "local" => match further {
            [folder, further @ ..] => local(&[vec![name, &absolute(folder)?], further.to_vec()].concat(), failed),
            [] => Err("specify the folder of a model: cargo xtask bench local FOLDER".into()),
        },
        "first-block-cache" => match further {
            [folder] => local(&[name, &absolute(folder)?], failed),
            _ => local(&[name], failed),
        },
        "gpu" => match further {
            [folder, further @ ..] => {
                let bench = ["bench", "--quiet", "--features", "gpu", "--bench", "local", "--", "gpu"];
                let folder = absolute(folder)?;
                succeed(env!("CARGO"), bench.iter().chain(&[folder.as_str()]).chain(further), failed)
            }
            [] => Err("specify the folder of a model: cargo xtask bench gpu FOLDER".into()),
        },
        "connections" => succeed(env!("CARGO"), ["bench", "--quiet", "--bench", "connections"], failed),
        "remote" => {
            let (manifest, target) = (format!("{REMOTE}/Cargo.toml"), format!("{REMOTE}/target"));
            let build = ["build", "--quiet", "--release", "--manifest-path", &manifest, "--target-dir", &target];
            succeed(env!("CARGO"), build, failed)?;
            succeed(format!("{target}/release/remote-bench"), further, failed)
        }
        _ => Err(format!(
            "unknown benchmark {name:?}; the benchmarks are denoiser, formats, lora, vae, local, first-block-cache, gpu, \
             remote and connections"
        )),
    }
}

/// Writes a model with random weights to a folder.
pub(crate) fn make_weights(format: &str, folder: &str, options: &[&str]) -> Result<(), String> {
    let folder = absolute(folder)?;
    let command = vec!["make-weights", format, &folder];
    local(&[command, options.to_vec()].concat(), || "the weights were not written".into())
}

/// Runs the benchmark of the native pipeline with arguments.
fn local(arguments: &[&str], failed: impl Fn() -> String) -> Result<(), String> {
    let bench = ["bench", "--quiet", "--features", "local", "--bench", "local", "--"];
    succeed(env!("CARGO"), bench.iter().chain(arguments), failed)
}

/// Returns an absolute path. Cargo runs benchmarks in the folder of their package.
fn absolute(path: &str) -> Result<String, String> {
    let absolute = std::path::absolute(path).map_err(|error| format!("{path}: {error}"))?;
    absolute.into_os_string().into_string().map_err(|path| format!("{} is not UTF-8", path.display()))
}

fn succeed<S: AsRef<OsStr>>(
    program: impl AsRef<OsStr>,
    arguments: impl IntoIterator<Item = S>,
    failed: impl Fn() -> String,
) -> Result<(), String> {
    let program = program.as_ref();
    let status = Command::new(program)
        .args(arguments)
        .status()
        .map_err(|error| format!("cannot start {}: {error}", program.display()))?;
    if status.success() { Ok(()) } else { Err(failed()) }
}
