//! Enlarges an image with a model that `lumenfall` itself knows nothing of.
//!
//! `LUMENFALL_API_KEY=… cargo run -p custom-model -- small.png large.png`

use lumenfall::{Client, Error, Input, literal};

/// The typed API that `build.rs` made of `schemas/upscaler.json`.
pub mod upscaler {
    include!(concat!(env!("OUT_DIR"), "/upscaler.rs"));
}

use upscaler::{Upscaler, output_format::Webp, parameters::ScaleFactor};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let mut arguments = std::env::args().skip(1);
    let (Some(from), Some(to)) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: custom-model <from> <to>");
        return Ok(());
    };
    let images = Client::from_env()?
        .images_for::<Upscaler>()
        .edit(Input::path(from), literal!(ScaleFactor, 4))
        .output_format(Webp)
        .inline()
        .send()
        .await?;
    for image in &images {
        image.save(&to).await?;
    }
    Ok(())
}
