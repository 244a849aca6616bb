//! The build time of a crate that depends on the client only.

use std::collections::BTreeSet;
use std::error::Error;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::report::{Goal, Report};

/// The number of builds of each client.
const RUNS: usize = 3;

struct Side {
    name: &'static str,
    dependency: String,
}

pub(crate) fn compare(report: &mut Report) -> Result<(), Box<dyn Error>> {
    let ours = format!("lumenfall = {{ path = {:?} }}", concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    let theirs = r#"async-openai = { version = "=0.43.0", features = ["image"] }"#.to_owned();
    let sides = [Side { name: "ours", dependency: ours }, Side { name: "async-openai", dependency: theirs }];
    let folder = tempfile::tempdir()?;
    let mut seconds = [Vec::new(), Vec::new()];
    let mut crates = Vec::new();
    for side in &sides {
        let package = folder.path().join(side.name);
        std::fs::create_dir_all(package.join("src"))?;
        std::fs::write(package.join("src/lib.rs"), "")?;
        let manifest = format!(
            "[workspace]\n[package]\nname = \"user\"\nedition = \"2024\"\n[dependencies]\n{}\n",
            side.dependency
        );
        std::fs::write(package.join("Cargo.toml"), manifest)?;
        crates.push(vec![count(&package)? as f64]);
    }
    for _ in 0..RUNS {
        for (side, seconds) in sides.iter().zip(&mut seconds) {
            seconds.push(build(&folder.path().join(side.name))?);
        }
    }
    println!("clean builds, default features: ours {:.1?} s, async-openai {:.1?} s", seconds[0], seconds[1]);
    let [ours, theirs] = seconds;
    report.add(Goal::new("clean build (debug)", "s", ours, 1.0).relative_to("async-openai, `image`", theirs));
    let [ours, theirs] = <[_; 2]>::try_from(crates).map_err(|_| "a side is missing")?;
    report.add(Goal::new("crates in the build", "", ours, 1.0).relative_to("async-openai, `image`", theirs));
    Ok(())
}

/// Returns the number of crates in the build of the package, without the package itself.
fn count(package: &Path) -> Result<usize, Box<dyn Error>> {
    let output = Command::new("cargo")
        .args(["tree", "--edges", "normal,build", "--prefix", "none", "--format", "{p}"])
        .current_dir(package)
        .stderr(Stdio::inherit())
        .output()?;
    let names: BTreeSet<&str> = std::str::from_utf8(&output.stdout)?
        .lines()
        .map(|line| line.trim_end_matches(" (*)"))
        .filter(|line| !line.is_empty() && !line.starts_with("user "))
        .collect();
    if names.is_empty() { Err("cargo tree printed nothing".into()) } else { Ok(names.len()) }
}

/// Builds the package in an empty target folder and returns the seconds. `count` has downloaded the sources.
fn build(package: &Path) -> Result<f64, Box<dyn Error>> {
    let target = package.join("target");
    if target.exists() {
        std::fs::remove_dir_all(&target)?;
    }
    let started = Instant::now();
    let status = Command::new("cargo")
        .args(["build", "--quiet", "--locked"])
        .env("CARGO_TARGET_DIR", &target)
        .current_dir(package)
        .status()?;
    let seconds = started.elapsed().as_secs_f64();
    if status.success() { Ok(seconds) } else { Err(format!("{} does not build", package.display()).into()) }
}
