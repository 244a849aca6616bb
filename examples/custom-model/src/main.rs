//! Enlarges an image with a model that is not part of `lumenfall`.
//!
//! `LUMENFALL_API_KEY=… cargo run -p custom-model -- small.png large.png`

use std::path::PathBuf;

use lumenfall::{Client, Error, literal};

/// The typed API that `build.rs` generates from `schemas/upscaler.json`.
#[warn(clippy::pedantic)]
pub mod upscaler {
    include!(concat!(env!("OUT_DIR"), "/upscaler.rs"));
}

use upscaler::Upscaler;
use upscaler::parameters::{OutputFormat, ScaleFactor};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let mut arguments = std::env::args().skip(1);
    let (Some(source), Some(target)) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: custom-model SOURCE TARGET");
        return Ok(());
    };
    let images = Client::from_env()?
        .images_for::<Upscaler>()
        .edit(PathBuf::from(source), literal!(ScaleFactor, 4))
        .output_format(OutputFormat::Webp)
        .inline()
        .send()
        .await?;
    for image in &images {
        image.save(&target).await?;
    }
    Ok(())
}
