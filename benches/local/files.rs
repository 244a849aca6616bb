//! Measures a model in files: the time to open it, the times of a request, and the peak of memory, compared with other programs.
//!
//! Each measurement runs in a process of its own, because the peak of memory is that of a process.

use std::collections::HashMap;
use std::error::Error;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use lumenfall_diffusion::bench::{Times, measure as measure_request};
use lumenfall_diffusion::{LoadOptions, MemoryBudget, ModelFiles, ModelSummary, Pipeline};

use crate::RUNS;
use crate::model_peers::ModelPeer;
use crate::report::{Goal, Report};

type Values = HashMap<String, f64>;

/// Adds the rows of a model.
pub(crate) fn measure(path: &str, size: u32, report: &mut Report) -> Result<(), Box<dyn Error>> {
    let opened = (0..RUNS).map(|_| values(&mut command(&["measure-open", path])?)).collect::<Result<Vec<_>, _>>()?;
    let all = |name: &str| opened.iter().map(|values| get(values, name)).collect::<Vec<_>>();
    report.add(Goal::new("open", "ms", all("open").into_iter().map(|seconds| 1000.0 * seconds).collect(), 100.0));
    report.add(Goal::new("open, peak memory", "MB", all("peak").into_iter().map(|bytes| bytes / 1e6).collect(), 30.0));

    let text = size.to_string();
    // The first run encodes and stores the empty prompt, which the second one finds. It also reads the files, which may then stay
    // in the page cache.
    let cache = tempfile::tempdir()?;
    let request = |budget: &[&str]| {
        let mut command = command(&[&["measure-request", path, &text], budget].concat())?;
        values(command.env("LUMENFALL_CACHE", cache.path()))
    };
    let (first, ours) = (request(&[])?, request(&[])?);
    let image = format!("{size}x{size}, 2 steps with guidance");
    for (what, name) in REQUEST_TIMES {
        report.add(Goal::value(format!("{what}, {image}"), "s", get(&ours, name)));
    }
    let encoders = format!("text encoders in the first run with a model, {image}");
    report.add(Goal::value(encoders, "s", get(&first, "text")));
    let (peak, our_peak) = (format!("peak memory, {image}"), gib(&first).max(gib(&ours)));
    let pipeline = Pipeline::open(&ModelFiles::find(path)?, &LoadOptions::default())?;
    let summary = pipeline.summary(size, size)?;
    report.add(match memory_goal(&summary)? {
        Some(limit) => Goal::new(&peak, "GiB", vec![our_peak], limit),
        None => Goal::value(&peak, "GiB", our_peak),
    });
    let least = summary.least_memory as f64 / GIB;
    let tight = request(&[&least.to_string()])?;
    report.add(Goal::new(format!("{peak}, with the least budget"), "GiB", vec![gib(&tight)], least));
    report.add(Goal::value(format!("denoiser step, {image}, with the least budget"), "s", get(&tight, "step")));
    for peer in ModelPeer::of(path)? {
        let name = peer.name;
        let theirs = values(&mut peer.command(&text)?)?;
        for (what, value, limit) in peer.limits {
            let row = match *value {
                "peak" => Goal::new(&peak, "GiB", vec![our_peak], *limit).relative_to(name, vec![gib(&theirs)]),
                "image" => {
                    let what = format!("{what}, {size}x{size}, computed from a step");
                    Goal::new(what, "s", vec![image_seconds(&ours)], *limit)
                        .relative_to(name, vec![image_seconds(&theirs)])
                }
                value => {
                    let what = format!("{what}, {image}");
                    Goal::new(what, "s", vec![get(&ours, value)], *limit).relative_to(name, vec![get(&theirs, value)])
                }
            };
            report.add(row);
        }
    }
    Ok(())
}

/// The times of a request: their names in the table and in the output of processes.
const REQUEST_TIMES: [(&str, &str); 5] = [
    ("start to first denoiser step", "before_steps"),
    ("text encoders", "text"),
    ("denoiser step", "step"),
    ("VAE decode", "decode"),
    ("whole image", "total"),
];

/// Returns the time of an image of 28 steps, from the time of a step.
fn image_seconds(values: &Values) -> f64 {
    get(values, "before_steps") + 28.0 * get(values, "step") + get(values, "decode")
}

const GIB: f64 = (1u64 << 30) as f64;

fn gib(values: &Values) -> f64 {
    get(values, "peak") / GIB
}

/// Returns the goal of the peak of memory in GiB, which depends on the format of most tensors of the denoiser.
fn memory_goal(model: &ModelSummary) -> Result<Option<f64>, Box<dyn Error>> {
    let denoiser = model.parts.first().ok_or("the model has no parts")?;
    Ok(["Q4_K", "Q8_0", "F16"].into_iter().zip([3.0, 4.0, 7.0]).find_map(|(format, limit)| {
        // Quantised files also contain other formats.
        denoiser.formats.contains_key(format).then_some(limit)
    }))
}

/// Prints the time to open a model and the peak of memory.
pub(crate) fn print_open(path: &Path) -> Result<(), Box<dyn Error>> {
    let start = Instant::now();
    let pipeline = Pipeline::open(&ModelFiles::find(path)?, &LoadOptions::default())?;
    let open = start.elapsed().as_secs_f64();
    print(&[("open", open), ("peak", peak_memory()?)]);
    drop(pipeline);
    Ok(())
}

/// Prints the times of a request and the peak of memory, with a budget if `gib` is one.
pub(crate) fn print_request(path: &Path, size: &str, gib: Option<&str>) -> Result<(), Box<dyn Error>> {
    let memory = gib.map_or(Ok(MemoryBudget::Available), |gib| gib.parse().map(MemoryBudget::GiB))?;
    let Times { text, step, decode, before_steps, total, .. } = measure_request(path, size.parse()?, memory)?;
    let times = [("text", text), ("step", step), ("decode", decode), ("before_steps", before_steps), ("total", total)];
    print(&times.map(|(name, time)| (name, time.as_secs_f64())));
    print(&[("peak", peak_memory()?)]);
    Ok(())
}

fn print(values: &[(&str, f64)]) {
    values.iter().for_each(|(name, value)| println!("{name} {value}"));
}

/// Returns this program with other arguments.
fn command(arguments: &[&str]) -> Result<Command, Box<dyn Error>> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(arguments);
    Ok(command)
}

/// Runs a program and returns the values that it prints.
fn values(command: &mut Command) -> Result<Values, Box<dyn Error>> {
    let output = command.output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).trim().into());
    }
    let lines = String::from_utf8(output.stdout)?;
    let pairs = lines.lines().filter_map(|line| line.split_once(' '));
    Ok(pairs.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?))).collect())
}

fn get(values: &Values, name: &str) -> f64 {
    values.get(name).copied().unwrap_or(f64::NAN)
}

/// Returns the peak of this process' memory in bytes.
fn peak_memory() -> Result<f64, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")
        .map_err(|error| format!("cannot read the peak of memory: {error}; this benchmark needs Linux"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("/proc/self/status has no VmHWM")?;
    Ok(1024.0 * line.trim().trim_end_matches(" kB").parse::<f64>()?)
}
