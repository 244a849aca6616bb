//! Makes an image on this machine, offline, with the small demonstration model that comes with the crate:
//!
//! ```text
//! cargo run --release --features local --example quickstart -- "a red circle on a white background"
//! ```
//!
//! `--seed 7` makes another image of the same prompt, `--model ~/models/stable-diffusion-3.5-medium` uses the real model.

use std::path::PathBuf;

use lumenfall::backend::Progress;
use lumenfall::{Client, Error};

struct Arguments {
    prompt: String,
    seed: Option<u64>,
    model: Option<PathBuf>,
}

#[tokio::main]
async fn main() {
    let result = match read(std::env::args().skip(1)) {
        Ok(arguments) => make(arguments).await.map_err(|error| error.to_string()),
        Err(usage) => Err(usage),
    };
    if let Err(message) = result {
        eprintln!("{message}");
        std::process::exit(1);
    }
}

async fn make(Arguments { prompt, seed, model }: Arguments) -> Result<(), Error> {
    let client = match &model {
        Some(folder) => Client::local(folder)?,
        None => Client::demo()?,
    };
    let images = client
        .images()
        .generate(prompt)
        .seed(seed.unwrap_or(0))
        .on_progress(|progress| {
            if let Progress::Step { step, steps, .. } = progress {
                eprint!("\rstep {step} of {steps}");
            }
        })
        .inline()
        .send()
        .await?;
    eprintln!();
    let path = match seed {
        Some(seed) => format!("quickstart-{seed}.png"),
        None => "quickstart.png".into(),
    };
    let [image] = &*images else {
        return Ok(());
    };
    image.save(&path).await?;
    let about = images.metadata();
    println!(
        "{path}: seed {}, {} steps, {:.1} s",
        image.seed().unwrap_or_default(),
        about.steps.unwrap_or_default(),
        about.elapsed.as_secs_f64()
    );
    for warning in &about.warnings {
        println!("note: {warning}");
    }
    Ok(())
}

fn read(mut arguments: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let usage = || "usage: quickstart [--seed NUMBER] [--model FOLDER] PROMPT".to_owned();
    let (mut prompt, mut seed, mut model) = (None, None, None);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--seed" => seed = Some(arguments.next().and_then(|seed| seed.parse().ok()).ok_or_else(usage)?),
            "--model" => model = Some(arguments.next().ok_or_else(usage)?.into()),
            _ if prompt.is_none() => prompt = Some(argument),
            _ => return Err(usage()),
        }
    }
    Ok(Arguments { prompt: prompt.ok_or_else(usage)?, seed, model })
}
