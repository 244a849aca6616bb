//! Enlarges an image with a model that is not part of `lumenfall`, through a layer of this program.
//!
//! `LUMENFALL_API_KEY=… cargo run -p custom-model -- small.png large.png`

use std::path::PathBuf;

use lumenfall::images::{Images, Inline};
use lumenfall::remote::Remote;
use lumenfall::{Client, Error, literal};

mod audit;

/// The typed API that `build.rs` generates from `schemas/upscaler.json`.
#[warn(clippy::pedantic)]
pub mod upscaler {
    include!(concat!(env!("OUT_DIR"), "/upscaler.rs"));
}

use audit::Audit;
use upscaler::Upscaler;
use upscaler::parameters::{OutputFormat, ScaleFactor};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let mut arguments = std::env::args().skip(1);
    let (Some(source), Some(target)) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: custom-model SOURCE TARGET");
        return Ok(());
    };
    let client = Client::new(Audit::new(Remote::from_env()?, |line| eprintln!("{line}")));
    for image in &enlarge(&client, PathBuf::from(source)).await? {
        image.save(&target).await?;
    }
    Ok(())
}

async fn enlarge(client: &Client, source: PathBuf) -> Result<Images<Inline>, Error> {
    let request = client.images_for::<Upscaler>().edit(source, literal!(ScaleFactor, 4));
    request.output_format(OutputFormat::Webp).inline().send().await
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use lumenfall::testing::{MockBackend, PIXEL};

    use super::*;

    static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

    #[tokio::test]
    async fn the_layer_records_each_request() {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("small.png");
        std::fs::write(&source, PIXEL).unwrap();
        let mock = MockBackend::for_schema(&upscaler::SCHEMA);
        let client = Client::new(Audit::new(mock.clone(), |line| LINES.lock().unwrap().push(line)));
        enlarge(&client, source).await.unwrap();
        assert_eq!(mock.requests()[0].options().extra["scale_factor"], 4);
        assert_eq!(*LINES.lock().unwrap(), [format!("{}: 1 images", mock.requests()[0].model())]);
    }
}
