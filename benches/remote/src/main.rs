//! The remote backend beside its peers, in one run: `cargo xtask bench remote`.
//!
//! Where memory is measured, each client is a process of its own. All talk to one server on this machine and take turns,
//! so that a machine whose speed drifts slows all of them. openai-python is run by the python that
//! `LUMENFALL_BENCH_PYTHON` names (`python3` where it is not set), which needs `openai`.

mod build;
mod process;
#[path = "../../report.rs"]
mod report;

use std::error::Error;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Instant;

use futures_util::future::try_join_all;
use remote_bench::server;
use remote_bench::subject::{NAMES, Subject};
use serde::Deserialize;

use process::{Measure, Process};
use report::{Goal, Report, median};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// How often each client reads the large answer, and how often it makes `SMALL_CALLS` small calls.
const LARGE_RUNS: usize = 21;
const SMALL_RUNS: usize = 11;
const SMALL_CALLS: usize = 10_000;
/// How many of them before it is another client's turn.
const SMALL_TURN: usize = 100;
/// How many of them are under way at a time.
const IN_FLIGHT: [usize; 2] = [1, 10];

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
    for in_flight in IN_FLIGHT {
        small_calls(in_flight, &mut report)?;
    }
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

/// Many small calls, so many of them at a time.
///
/// The clients and their server share one core and take turns after a few calls each. What is compared is the work of a
/// call: where the system puts the thread of a server makes more of a difference than all that.
fn small_calls(in_flight: usize, report: &mut Report) -> Result<()> {
    let measured = std::thread::spawn(move || {
        let core = core_affinity::get_core_ids().and_then(|cores| cores.first().copied());
        if !core.is_some_and(core_affinity::set_for_current) {
            return Err("this system does not let a thread stay on one core".into());
        }
        take_turns(in_flight)
    });
    let seconds = measured.join().map_err(|_| "the small calls broke off")?;
    let seconds = seconds.map_err(|error: remote_bench::Failure| format!("small calls: {error}"))?;
    let what = format!("{SMALL_CALLS} small calls, {in_flight} at a time");
    println!("{what}:");
    for (name, seconds) in NAMES.iter().zip(&seconds) {
        println!("  {name}: {seconds:.3?} s");
    }
    let [ours, async_openai, bare] = seconds.as_slice() else { return Err("a client is missing".into()) };
    report.add(Goal::new(&what, "s", ours.clone(), 1.05).beside("reqwest with serde", bare.clone()));
    report.add(Goal::new(&what, "s", ours.clone(), 1.0).beside("async-openai", async_openai.clone()));
    Ok(())
}

/// The seconds of each client in each run.
fn take_turns(in_flight: usize) -> std::result::Result<Vec<Vec<f64>>, remote_bench::Failure> {
    let (address, _) = server::start()?;
    let base = format!("http://{address}/v1");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let subjects: Vec<Subject> =
        NAMES.iter().map(|name| Subject::new(name, &base)).collect::<std::result::Result<_, _>>()?;
    let mut seconds = vec![Vec::new(); subjects.len()];
    // The first run connects and warms up.
    for run in 0..=SMALL_RUNS {
        let mut sums = vec![0.0; subjects.len()];
        for _ in 0..SMALL_CALLS / SMALL_TURN {
            for (subject, sum) in subjects.iter().zip(&mut sums) {
                let started = Instant::now();
                runtime.block_on(turn(subject, in_flight))?;
                *sum += started.elapsed().as_secs_f64();
            }
        }
        if run > 0 {
            seconds.iter_mut().zip(sums).for_each(|(seconds, sum)| seconds.push(sum));
        }
    }
    Ok(seconds)
}

/// The calls of one client until it is another's turn.
async fn turn(subject: &Subject, in_flight: usize) -> std::result::Result<(), remote_bench::Failure> {
    let one_by_one = |_| async {
        for _ in 0..SMALL_TURN / in_flight {
            subject.small().await?;
        }
        Ok(())
    };
    try_join_all((0..in_flight).map(one_by_one)).await.map(drop)
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
