//! Makes images through the gateway and saves them.
//!
//! ```sh
//! LUMENFALL_API_KEY=… cargo run --example remote -- "a lighthouse in a storm"
//! ```

use lumenfall::{Client, Webp, count, percent, size};

#[tokio::main]
async fn main() -> Result<(), lumenfall::Error> {
    let prompt =
        std::env::args().nth(1).unwrap_or_else(|| "a hand-painted sign that says FRESH SOURDOUGH DAILY".into());
    let client = Client::from_env()?;

    let request = || {
        let request = client.images().generate(prompt.clone()).size(size!("1024x1024")).n(count!(2));
        request.output_format(Webp).output_compression(percent!(80))
    };
    let price = request().estimate().await?.total;
    println!("this will cost about {:.3} {}", price.amount, price.currency);

    let images = request().inline().send().await?;
    for (i, image) in images.iter().enumerate() {
        let path = format!("remote-{i}.webp");
        image.save(&path).await?;
        println!("{path}: {} bytes", image.bytes().len());
    }
    println!("made by {:?} for {:?}", images.metadata().provider, images.metadata().cost);
    Ok(())
}
