//! Measures a model in files: the time to open it, the times of a request, and the peak of memory.
//!
//! Each measurement runs in a process of its own, because the peak of memory is that of a process.

use std::collections::HashMap;
use std::error::Error;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use lumenfall_diffusion::bench::{Times, measure as measure_request};
use lumenfall_diffusion::{LoadOptions, ModelFiles, Pipeline};

use crate::RUNS;
use crate::report::{Goal, Report};

type Values = HashMap<String, f64>;

/// Adds the rows of a model.
pub(crate) fn measure(path: &str, size: u32, report: &mut Report) -> Result<(), Box<dyn Error>> {
    let opened = (0..RUNS).map(|_| child(&["measure-open", path])).collect::<Result<Vec<_>, _>>()?;
    let all = |name: &str| opened.iter().map(|values| get(values, name)).collect::<Vec<_>>();
    report.add(Goal::new("open", "ms", all("open").into_iter().map(|seconds| 1000.0 * seconds).collect(), 100.0));
    report.add(Goal::new("open, peak memory", "MB", all("peak").into_iter().map(|bytes| bytes / 1e6).collect(), 30.0));

    let size = size.to_string();
    let values = child(&["measure-request", path, &size])?;
    let image = format!("{size}x{size}, 2 steps with guidance");
    for (what, name) in [
        ("start to first denoiser step", "before_steps"),
        ("text encoders", "text"),
        ("denoiser step", "step"),
        ("VAE decode", "decode"),
        ("whole image", "total"),
    ] {
        report.add(Goal::value(format!("{what}, {image}"), "s", get(&values, name)));
    }
    let (what, peak) = (format!("peak memory, {image}"), get(&values, "peak") / f64::from(1 << 30));
    report.add(match memory_goal(path)? {
        Some(limit) => Goal::new(what, "GiB", vec![peak], limit),
        None => Goal::value(what, "GiB", peak),
    });
    Ok(())
}

/// Returns the goal of the peak of memory in GiB, which depends on the format of most tensors of the denoiser.
fn memory_goal(path: &str) -> Result<Option<f64>, Box<dyn Error>> {
    let pipeline = Pipeline::open(&ModelFiles::find(path)?, &LoadOptions::default())?;
    let side = pipeline.default_side();
    let denoiser = pipeline.summary(side, side)?.parts.into_iter().next().ok_or("the model has no parts")?;
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

/// Prints the times of a request and the peak of memory.
pub(crate) fn print_request(path: &Path, size: &str) -> Result<(), Box<dyn Error>> {
    let Times { text, step, decode, before_steps, total, .. } = measure_request(path, size.parse()?)?;
    let times = [("text", text), ("step", step), ("decode", decode), ("before_steps", before_steps), ("total", total)];
    print(&times.map(|(name, time)| (name, time.as_secs_f64())));
    print(&[("peak", peak_memory()?)]);
    Ok(())
}

fn print(values: &[(&str, f64)]) {
    values.iter().for_each(|(name, value)| println!("{name} {value}"));
}

/// Runs this program with other arguments and returns the values that it prints.
fn child(arguments: &[&str]) -> Result<Values, Box<dyn Error>> {
    let output = Command::new(std::env::current_exe()?).args(arguments).output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).trim().into());
    }
    let lines = String::from_utf8(output.stdout)?;
    let pairs = lines.lines().filter_map(|line| line.split_once(' '));
    pairs.map(|(name, value)| Ok((name.to_owned(), value.parse()?))).collect()
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
