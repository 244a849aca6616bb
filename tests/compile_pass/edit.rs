//! Edits that the schema allows.

use lumenfall::{Avif, Client, Error, Input, Jpeg, Replicate, percent, size};

async fn everything(client: &Client) -> Result<(), Error> {
    let images = client
        .images()
        .edit(Input::path("source.png"))
        .prompt("add a starry night sky")
        .mask(Input::path("mask.png"))
        .size(size!("1024x1024"))
        .output_format(Jpeg)
        .output_compression(percent!(0))
        .strength(0.6)
        .pin(Replicate)
        .send()
        .await?;
    let _: Option<&str> = images[0].url();
    Ok(())
}

async fn neighbours(client: &Client) -> Result<(), Error> {
    let several = vec![Input::path("a.png"), Input::bytes(vec![0u8])];
    let _ = client.images().edit(several).output_format(Avif).output_compression(percent!(50));
    let _ = client.images().edit([Input::path("a.png"), Input::path("b.png")]);
    let mut spec = client.images().edit(Input::path("a.png")).into_spec();
    spec.prompt = Some("brighter".into());
    let _ = client.images().edit_spec(spec).estimate().await?;
    Ok(())
}
