//! Measures a model in files on a GPU: `cargo xtask bench gpu`, for `tools/gpu-check.sh`.

use std::error::Error;
use std::path::Path;

use lumenfall_diffusion::bench::measure_gpu;
use lumenfall_diffusion::{MemoryBudget, devices};

/// Prints the name of a GPU, the times of images in seconds, and the peak of the GPU's memory in GiB.
pub(crate) fn print(path: &Path, options: &[&str]) -> Result<(), Box<dyn Error>> {
    let (mut index, mut size, mut steps, mut memory) = (0, 1024, 28, MemoryBudget::default());
    let (options, rest) = options.as_chunks();
    for [name, value] in options {
        match *name {
            "--device" => index = value.parse()?,
            "--size" => size = value.parse()?,
            "--steps" => steps = value.parse()?,
            "--memory" => memory = MemoryBudget::GiB(value.parse()?),
            _ => {
                let usable = "--device INDEX, --size PIXELS, --steps NUMBER or --memory GIB";
                return Err(format!("unknown option {name}; use {usable}").into());
            }
        }
    }
    if let [option] = rest {
        return Err(format!("the option {option} has no value").into());
    }
    let devices = devices();
    let device =
        devices.get(index).ok_or_else(|| format!("there is no GPU {index}; `lumenfall devices` lists them"))?;
    println!("name {} ({}, {})", device.name, device.api, device.driver);
    let times = measure_gpu(path, index, size, steps, memory)?;
    let rows = [("first", times.first), ("text", times.text), ("step", times.step), ("decode", times.decode)];
    for (name, time) in rows.into_iter().chain([("total", times.total)]) {
        println!("{name} {:.3}", time.as_secs_f64());
    }
    println!("peak {:.2}", times.peak as f64 / f64::from(1 << 30));
    Ok(())
}
