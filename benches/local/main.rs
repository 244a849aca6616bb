//! The native pipeline beside torch, in one run: `cargo xtask bench denoiser`, `cargo xtask bench vae`.
//!
//! Both sides compute the same model at full width with random weights in f32, in turn, so that a machine whose speed
//! drifts slows both. The peer is `tools/bench_torch.py`, run by the python that `LUMENFALL_BENCH_PYTHON` names (`python3`
//! where it is not set), which needs `tools/requirements.txt`.

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
            if report.held() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
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
            other => return Err(format!("there is no benchmark {other:?}; there are denoiser and vae").into()),
        }
    }
    if let Some(path) = json {
        report.write_json(path)?;
    }
    Ok(report)
}

/// Both sides in turn, after one run of each that does not count.
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
    Ok(Goal::new(what, "s", our_seconds, limit).beside("torch f32", peer_seconds))
}
