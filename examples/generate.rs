//! Generates two images through the gateway, after it shows their price.
//!
//! ```sh
//! LUMENFALL_API_KEY=… cargo run --example generate -- "a lighthouse in a storm"
//! ```

use lumenfall::{Client, Error, Webp, count, percent, size};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let prompt = std::env::args().nth(1).unwrap_or_else(|| "a lighthouse in a storm".into());
    let client = Client::from_env()?;
    let request = client
        .images()
        .generate(prompt)
        .size(size!("1024x1024"))
        .output_format(Webp)
        .output_compression(percent!(80))
        .n(count!(2));

    let price = request.clone().estimate().await?.total;
    println!("price: {price}");

    let images = request.send().await?;
    for (index, image) in images.iter().enumerate() {
        let path = format!("image-{index}.webp");
        image.save(&path).await?;
        println!("{path}");
    }
    println!("provider: {:?}, cost: {:?}", images.metadata().provider, images.metadata().cost);
    Ok(())
}
