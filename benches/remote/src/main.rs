//! Compares the remote backend with other clients in one run: `cargo xtask bench remote`.
//!
//! All clients use one loopback server and take turns, so that a change of the machine's speed affects all of them. To
//! measure memory, each client runs in a separate process. openai-python runs with the interpreter in
//! `LUMENFALL_BENCH_PYTHON` (default `python3`), which needs the package `openai`.

mod build;
mod process;
#[path = "../../report.rs"]
mod report;

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use futures_util::future::try_join_all;
use remote_bench::server;
use remote_bench::subject::{NAMES, Subject};

use process::{Measure, Process};
use report::{Goal, Report, median};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The number of large responses per client, and of runs of `SMALL_CALLS` small calls.
const LARGE_RUNS: usize = 21;
const SMALL_RUNS: usize = 11;
const SMALL_CALLS: usize = 10_000;
/// The number of small calls before the next client's turn.
const SMALL_TURN: usize = 100;
/// The numbers of concurrent calls.
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
    large_response(&base, body, &mut report)?;
    files(&base, &mut report)?;
    for in_flight in IN_FLIGHT {
        small_calls(in_flight, &mut report)?;
    }
    build::compare(&mut report)?;
    println!("{report}");
    if let Some(path) = json {
        report.write_json(path)?;
    }
    Ok(report.is_met())
}

/// Ten images in one response: the memory of the first one, then the time.
fn large_response(base: &str, body: usize, report: &mut Report) -> Result<()> {
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
    println!("one response of {:.1} MB with {} images:", body as f64 / 1e6, server::IMAGES);
    for ((client, growth), seconds) in clients.iter().zip(&growth).zip(&seconds) {
        let (name, milliseconds) = (&client.name, median(seconds.clone()));
        println!("  {name}: {milliseconds:.1} ms, peak memory {:.2} of the body", growth / body as f64);
    }
    let [ours, async_openai, bare, ..] = seconds.as_slice() else { return Err("a client is missing".into()) };
    let megabytes = |bytes: f64| bytes / 1e6;
    let mine = growth.first().copied().unwrap_or(f64::NAN);
    let size = vec![megabytes(body as f64)];
    report.add(Goal::new("large response, peak memory", "MB", vec![megabytes(mine)], 1.3).relative_to("its body", size));
    let what = "large response, time to decoded bytes";
    report.add(Goal::new(what, "ms", ours.clone(), 0.6).relative_to("async-openai", async_openai.clone()));
    report.add(Goal::new(what, "ms", ours.clone(), 1.2).relative_to("reqwest and one pass of base64", bare.clone()));
    Ok(())
}

/// A large file in each direction.
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
        report.add(Goal::new(format!("{command} of 200 MB, memory increase"), "MB", vec![growth / 1e6], 4.0));
    }
    Ok(())
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| "the path of the temporary folder is not UTF-8".into())
}

/// Many small calls, `in_flight` of them at a time.
///
/// The clients and the server share one core: the placement of the server's thread would make more difference than the
/// clients do.
fn small_calls(in_flight: usize, report: &mut Report) -> Result<()> {
    let measured = std::thread::spawn(move || {
        let core = core_affinity::get_core_ids().and_then(|cores| cores.first().copied());
        if !core.is_some_and(core_affinity::set_for_current) {
            return Err("this system cannot pin a thread to a core".into());
        }
        take_turns(in_flight)
    });
    let seconds = measured.join().map_err(|_| "the thread of the small calls panicked")?;
    let seconds = seconds.map_err(|error: remote_bench::Failure| format!("small calls: {error}"))?;
    let what = format!("{SMALL_CALLS} small calls, {in_flight} at a time");
    println!("{what}:");
    for (name, seconds) in NAMES.iter().zip(&seconds) {
        println!("  {name}: {seconds:.3?} s");
    }
    let [ours, async_openai, bare] = seconds.as_slice() else { return Err("a client is missing".into()) };
    report.add(Goal::new(&what, "s", ours.clone(), 1.15).relative_to("reqwest with serde", bare.clone()));
    report.add(Goal::new(&what, "s", ours.clone(), 1.1).relative_to("async-openai", async_openai.clone()));
    Ok(())
}

/// Returns the seconds of each client in each run.
fn take_turns(in_flight: usize) -> std::result::Result<Vec<Vec<f64>>, remote_bench::Failure> {
    let (address, _) = server::start()?;
    let base = format!("http://{address}/v1");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let subjects: Vec<Subject> =
        NAMES.iter().map(|name| Subject::new(name, &base)).collect::<std::result::Result<_, _>>()?;
    let mut seconds = vec![Vec::new(); subjects.len()];
    // The first run opens the connections and is not counted.
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

/// One turn of a client.
async fn turn(subject: &Subject, in_flight: usize) -> std::result::Result<(), remote_bench::Failure> {
    let one_by_one = |_| async {
        for _ in 0..SMALL_TURN / in_flight {
            subject.small().await?;
        }
        Ok(())
    };
    try_join_all((0..in_flight).map(one_by_one)).await.map(drop)
}
