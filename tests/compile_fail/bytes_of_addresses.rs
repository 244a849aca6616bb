use lumenfall::{Client, Error};

async fn request(client: &Client) -> Result<(), Error> {
    let images = client.images().generate("a lighthouse").send().await?;
    let _ = images[0].bytes();
    Ok(())
}

fn main() {}
