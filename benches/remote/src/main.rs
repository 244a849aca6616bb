//! The remote backend beside its peers, in one run: `cargo xtask bench remote`.
//!
//! Each client is a process of its own, so that its memory can be told from the others', and all talk to one server on
//! this machine. They take turns, so that a machine whose speed drifts slows all of them. openai-python is run by the
//! python that `LUMENFALL_BENCH_PYTHON` names (`python3` where it is not set), which needs `openai`.

mod build;
mod process;
#[path = "../../report.rs"]
mod report;

use std::error::Error;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, ExitCode};

use remote_bench::server;
use remote_bench::subject::NAMES;
use serde::Deserialize;

use process::{Measure, Process};
use report::{Goal, Report, median};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// How often each client reads the large answer, and how often it makes `SMALL_CALLS` small calls.
const LARGE_RUNS: usize = 21;
const SMALL_RUNS: usize = 7;
const SMALL_CALLS: usize = 10_000;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match arguments.as_slice() {
        ["client", name, base] => process::serve(name, base).map(|()| true),
        [] => run(None),
        ["--json", path] => run(Some(path)),
        _ => Err("usage: cargo xtask bench remote [--json FILE]".into()),
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

fn run(json: Option<&str>) -> Result<bool> {
    let (address, body) = server::start().map_err(|error| format!("the server cannot start: {error}"))?;
    let base = format!("http://{address}/v1");
    let mut report = Report::default();
    large_answer(&base, body, &mut report)?;
    files(&base, &mut report)?;
    small_calls(&base, &mut report)?;
    allocations(address)?;
    build::compare(&mut report)?;
    println!("{report}");
    if let Some(path) = json {
        report.write_json(path)?;
    }
    Ok(report.held())
}

/// Ten images within one answer: memory of the first one, then time.
fn large_answer(base: &str, body: usize, report: &mut Report) -> Result<()> {
    let mut clients: Vec<Process> = NAMES.iter().map(|name| Process::start(name, base)).collect::<Result<_>>()?;
    clients.push(Process::start_python(base)?);
    let mut growth = Vec::new();
    for client in &mut clients {
        client.run("small 100")?;
        growth.push(client.run("large")?.growth);
    }
    let mut seconds = vec![Vec::new(); clients.len()];
    for _ in 0..LARGE_RUNS {
        for (client, seconds) in clients.iter_mut().zip(&mut seconds) {
            seconds.push(client.run("large")?.seconds * 1000.0);
        }
    }
    println!("one answer of {:.1} MB with {} images:", body as f64 / 1e6, server::IMAGES);
    for ((client, growth), seconds) in clients.iter().zip(&growth).zip(&seconds) {
        let (name, milliseconds) = (&client.name, median(seconds.clone()));
        println!("  {name}: {milliseconds:.1} ms, peak of memory {:.2} of the body", growth / body as f64);
    }
    let [ours, async_openai, bare, ..] = seconds.as_slice() else { return Err("a client is missing".into()) };
    let megabytes = |bytes: f64| bytes / 1e6;
    let mine = growth.first().copied().unwrap_or(f64::NAN);
    let size = vec![megabytes(body as f64)];
    report.add(Goal::new("large answer, peak of memory", "MB", vec![megabytes(mine)], 1.3).beside("its body", size));
    let what = "large answer, time to decoded bytes";
    report.add(Goal::new(what, "ms", ours.clone(), 0.6).beside("async-openai", async_openai.clone()));
    report.add(Goal::new(what, "ms", ours.clone(), 1.2).beside("reqwest and one pass of base64", bare.clone()));
    Ok(())
}

/// A large file in either direction.
fn files(base: &str, report: &mut Report) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let source = folder.path().join("source.png");
    let mut content = vec![7; server::FILE_BYTES];
    content.splice(..8, *b"\x89PNG\r\n\x1a\n");
    std::fs::write(&source, content)?;
    for (command, path) in [("upload", source.as_path()), ("download", &folder.path().join("result.png"))] {
        let mut client = Process::start("ours", base)?;
        client.run("small 100")?;
        let Measure { growth, seconds } = client.run(&format!("{command} {}", text(path)?))?;
        println!("{command} of {} MB: {seconds:.2} s", server::FILE_BYTES / 1_000_000);
        report.add(Goal::new(format!("{command} of 200 MB, growth of memory"), "MB", vec![growth / 1e6], 4.0));
    }
    Ok(())
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| "the temporary folder has no name in UTF-8".into())
}

/// Many small calls, one after the other.
fn small_calls(base: &str, report: &mut Report) -> Result<()> {
    let mut clients: Vec<Process> = NAMES.iter().map(|name| Process::start(name, base)).collect::<Result<_>>()?;
    let mut seconds = vec![Vec::new(); clients.len()];
    for client in &mut clients {
        client.run("small 1000")?;
    }
    for run in 0..SMALL_RUNS {
        // Who comes first changes, so that a drift within a round hits all alike.
        for turn in 0..clients.len() {
            let at = (run + turn) % clients.len();
            let (Some(client), Some(seconds)) = (clients.get_mut(at), seconds.get_mut(at)) else { continue };
            seconds.push(client.run(&format!("small {SMALL_CALLS}"))?.seconds);
        }
    }
    println!("{SMALL_CALLS} small calls:");
    for (client, seconds) in clients.iter().zip(&seconds) {
        println!("  {}: {seconds:.2?} s", client.name);
    }
    let [ours, async_openai, bare] = seconds.as_slice() else { return Err("a client is missing".into()) };
    let what = format!("{SMALL_CALLS} small calls");
    report.add(Goal::new(&what, "s", ours.clone(), 1.05).beside("reqwest with serde", bare.clone()));
    report.add(Goal::new(&what, "s", ours.clone(), 1.0).beside("async-openai", async_openai.clone()));
    Ok(())
}

/// Allocations per small call, as dhat counts them. They are told, not limited.
fn allocations(address: SocketAddr) -> Result<()> {
    #[derive(Deserialize)]
    struct Count {
        blocks: f64,
        bytes: f64,
    }
    println!("allocations per small call:");
    for name in NAMES {
        let program = std::env::current_exe()?.with_file_name("allocations");
        let output = Command::new(&program)
            .args([name, &format!("http://{address}/v1")])
            .output()
            .map_err(|error| format!("cannot start {}: {error}", program.display()))?;
        let count: Count = serde_json::from_slice(&output.stdout)
            .map_err(|_| format!("{name} counted nothing: {}", String::from_utf8_lossy(&output.stderr)))?;
        println!("  {name}: {:.0} blocks, {:.1} kB", count.blocks, count.bytes / 1000.0);
    }
    Ok(())
}
