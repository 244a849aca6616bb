//! Measures the native pipeline: `cargo xtask bench denoiser`, `formats`, `lora`, `vae` and `local`. Writes models with random weights:
//! `cargo xtask make-weights`. Prints the table of `cargo xtask bench first-block-cache`.
//!
//! `denoiser` and `vae` compare with torch. Both compute the same model at full width with random weights in f32. Their runs
//! alternate, so that a change of the machine's speed affects both. The peer is `tools/bench_torch.py`. The environment
//! variable `LUMENFALL_BENCH_PYTHON` sets the Python interpreter (default: `python3`), which needs the packages in
//! `tools/requirements.txt`. `LUMENFALL_BENCH_SD_CLI` is the program of stable-diffusion.cpp, for `local`.

mod files;
mod first_block_cache;
#[cfg(feature = "gpu")]
mod gpu;
mod model_peers;
mod peer;
#[path = "../report.rs"]
mod report;

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use lumenfall_diffusion::bench::{Decoder, Denoiser, ModelFormat, Product, make_weights};

use peer::Peer;
use report::{Goal, Report};

const RUNS: usize = 5;

const DENOISER: &str = "denoiser, 4 of 24 blocks, 512x512";

/// The default width and height of the image of `local`.
const SIZE: u32 = 512;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match arguments.as_slice() {
        ["make-weights", format, folder, options @ ..] if matches!(options, [] | ["--no-t5"]) => {
            make(format, folder, options.is_empty()).map(|()| true)
        }
        // The commands of the processes that `local` starts.
        ["measure-open", path] => files::print_open(Path::new(path)).map(|()| true),
        #[cfg(feature = "gpu")]
        ["gpu", path, options @ ..] => gpu::print(Path::new(path), options).map(|()| true),
        ["measure-request", path, size, gib @ ..] => {
            files::print_request(Path::new(path), size, gib.first().copied()).map(|()| true)
        }
        ["first-block-cache"] => first_block_cache::print(None).map(|()| true),
        ["first-block-cache", path] => first_block_cache::print(Some(path)).map(|()| true),
        [names @ .., "--json", path] => run(names).and_then(|report| {
            println!("{report}");
            report.write_json(path)?;
            Ok(report.is_met())
        }),
        names => run(names).map(|report| {
            println!("{report}");
            report.is_met()
        }),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

fn make(format: &str, folder: &str, with_t5: bool) -> Result<(), Box<dyn Error>> {
    Ok(make_weights(format.parse()?, Path::new(folder), with_t5)?)
}

fn run(arguments: &[&str]) -> Result<Report, Box<dyn Error>> {
    let mut report = Report::default();
    match arguments {
        ["denoiser"] => {
            let model = Denoiser::new(4, 512, ModelFormat::F32)?;
            let mut torch = Peer::start(&["denoiser", "--blocks", "4", "--size", "512"])?;
            report.add(compare(DENOISER, 0.95, || Ok(model.run()?), "torch f32", || torch.run())?);
            drop(torch);
            let product = Product::new();
            let alone = || {
                let started = Instant::now();
                product.run();
                Ok(started.elapsed().as_secs_f64() * model.operations() / Product::OPERATIONS)
            };
            report.add(compare(DENOISER, 1.0 / 0.88, || Ok(model.run()?), "at the rate of matrix products", alone)?);
        }
        ["formats"] => {
            let f32 = Denoiser::new(4, 512, ModelFormat::F32)?;
            for (name, format) in [
                ("f16", ModelFormat::F16),
                ("bf16", ModelFormat::Bf16),
                ("fp8", ModelFormat::Fp8),
                ("Q8_0", ModelFormat::Q8_0),
                ("Q4_K", ModelFormat::Q4K),
            ] {
                let model = Denoiser::new(4, 512, format)?;
                let what = format!("{DENOISER}, {name} weights");
                report.add(compare(&what, 1.1, || Ok(model.run()?), "f32 weights", || timed(|| Ok(f32.run()?)))?);
            }
        }
        ["lora"] => {
            let model = Denoiser::with_loras(4, 512, ModelFormat::F16, 2, 32)?;
            let with = |strength| {
                model.set_strength(strength);
                Ok(model.run()?)
            };
            let what = format!("{DENOISER}, f16 weights, two LoRAs of rank 32");
            report.add(compare(&what, 1.08, || with(1.0), "without LoRAs", || timed(|| with(0.0)))?);
        }
        ["vae"] => {
            let model = Decoder::new(512)?;
            let mut torch = Peer::start(&["vae", "--size", "512", "--channels-last"])?;
            let what = "VAE decode, 512x512";
            report.add(compare(what, 0.5, || Ok(model.run()?), "torch f32, channels-last", || torch.run())?);
        }
        ["local", path] => files::measure(path, SIZE, &mut report)?,
        ["local", path, "--size", size] => files::measure(path, size.parse()?, &mut report)?,
        _ => {
            return Err("unknown benchmark; use denoiser, formats, lora, vae, local FOLDER [--size PIXELS], or \
                        first-block-cache [FOLDER]"
                .into());
        }
    }
    Ok(report)
}

/// Measures alternating runs of ours and the peer, after a warm-up run of each. The peer returns its time in seconds.
fn compare(
    what: &str,
    limit: f64,
    ours: impl Fn() -> Result<(), Box<dyn Error>>,
    name: &str,
    mut peer: impl FnMut() -> Result<f64, Box<dyn Error>>,
) -> Result<Goal, Box<dyn Error>> {
    ours()?;
    peer()?;
    let (mut our_seconds, mut peer_seconds) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        our_seconds.push(timed(&ours)?);
        peer_seconds.push(peer()?);
    }
    eprintln!("{what}: ours {our_seconds:.2?} s, {name} {peer_seconds:.2?} s");
    Ok(Goal::new(what, "s", our_seconds, limit).relative_to(name, peer_seconds))
}

/// Returns the time of a run in seconds.
fn timed(run: impl FnOnce() -> Result<(), Box<dyn Error>>) -> Result<f64, Box<dyn Error>> {
    let started = Instant::now();
    run()?;
    Ok(started.elapsed().as_secs_f64())
}
