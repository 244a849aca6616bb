//! Compares the native pipeline with torch: `cargo xtask bench denoiser`, `cargo xtask bench vae`.
//!
//! Both compute the same model at full width with random weights in f32. Their runs alternate, so that a change of the
//! machine's speed affects both. The peer is `tools/bench_torch.py`. The environment variable `LUMENFALL_BENCH_PYTHON` sets the
//! Python interpreter (default: `python3`), which needs the packages in `tools/requirements.txt`.

mod peer;
#[path = "../report.rs"]
mod report;

use std::error::Error;
use std::process::ExitCode;
use std::time::Instant;

use lumenfall_diffusion::bench::{Decoder, Denoiser};

use peer::Peer;
use report::{Goal, Report};

const RUNS: usize = 5;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match run(&arguments) {
        Ok(report) => {
            println!("{report}");
            if report.is_met() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &[String]) -> Result<Report, Box<dyn Error>> {
    let (names, json) = match arguments {
        [names @ .., flag, path] if flag == "--json" => (names, Some(path)),
        names => (names, None),
    };
    let mut report = Report::default();
    for name in names {
        match name.as_str() {
            "denoiser" => {
                let model = Denoiser::new(4, 512)?;
                let peer = Peer::start(&["denoiser", "--blocks", "4", "--size", "512"])?;
                report.add(compare("denoiser, 4 of 24 blocks, 512x512", 1.25, peer, || model.run())?);
            }
            "vae" => {
                let model = Decoder::new(512)?;
                let peer = Peer::start(&["vae", "--size", "512"])?;
                report.add(compare("VAE decode, 512x512", 1.5, peer, || model.run())?);
            }
            other => return Err(format!("unknown benchmark {other:?}; use denoiser or vae").into()),
        }
    }
    if let Some(path) = json {
        report.write_json(path)?;
    }
    Ok(report)
}

/// Measures alternating runs of ours and the peer, after a warm-up run of each.
fn compare(
    what: &str,
    limit: f64,
    mut peer: Peer,
    ours: impl Fn() -> lumenfall_diffusion::Result<()>,
) -> Result<Goal, Box<dyn Error>> {
    ours()?;
    let (mut our_seconds, mut peer_seconds) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let started = Instant::now();
        ours()?;
        our_seconds.push(started.elapsed().as_secs_f64());
        peer_seconds.push(peer.run()?);
    }
    eprintln!("{what}: ours {our_seconds:.2?} s, torch {peer_seconds:.2?} s");
    Ok(Goal::new(what, "s", our_seconds, limit).relative_to("torch f32", peer_seconds))
}
