use lumenfall::providers::Fal;
use lumenfall::{Client, Error, Gif, Input, Png, Webp, aspect_ratio, percent, resolution, size};

fn compression_with_png(client: &Client) {
    let _ = client.images().generate("a lighthouse").output_format(Png).output_compression(percent!(80));
}

fn compression_with_gif(client: &Client) {
    let _ = client.images().generate("a lighthouse").output_format(Gif).output_compression(percent!(80));
}

fn compression_without_format(client: &Client) {
    let _ = client.images().generate("a lighthouse").output_compression(percent!(80));
}

fn image_on_generate(client: &Client) {
    let _ = client.images().generate("a lighthouse").image(Input::path("source.png"));
}

fn mask_on_generate(client: &Client) {
    let _ = client.images().generate("a lighthouse").mask(Input::path("mask.png"));
}

fn strength_on_generate(client: &Client) {
    let _ = client.images().generate("a lighthouse").strength(0.5);
}

fn fal_pinned_in_edit(client: &Client) {
    let _ = client.images().edit(Input::path("source.png")).pin(Fal);
}

fn missing_image(client: &Client) {
    let _ = client.images().edit();
}

fn missing_prompt(client: &Client) {
    let _ = client.images().generate();
}

fn image_that_is_not_an_input(client: &Client) {
    let _ = client.images().edit("source.png");
}

fn prompt_that_is_not_text(client: &Client) {
    let _ = client.images().generate(7);
}

fn mask_that_is_not_an_input(client: &Client) {
    let _ = client.images().edit(Input::path("source.png")).mask("mask.png");
}

fn n_unchecked(client: &Client) {
    let _ = client.images().generate("a lighthouse").n(2);
}

fn size_unchecked(client: &Client) {
    let _ = client.images().generate("a lighthouse").size("1024x1024");
}

fn unknown_enum_value(client: &Client) {
    let _ = client.images().generate("a lighthouse").output_format("tiff");
}

fn unknown_parameter(client: &Client) {
    let _ = client.images().generate("a lighthouse").style("ink");
}

fn aspect_ratio_after_size(client: &Client) {
    let _ = client.images().generate("a lighthouse").size(size!("1024x1024")).aspect_ratio(aspect_ratio!("16:9"));
}

fn resolution_after_size(client: &Client) {
    let _ = client.images().generate("a lighthouse").size(size!("1024x1024")).resolution(resolution!("1K"));
}

fn size_after_aspect_ratio(client: &Client) {
    let _ = client.images().generate("a lighthouse").aspect_ratio(aspect_ratio!("16:9")).size(size!("1024x1024"));
}

fn size_after_resolution(client: &Client) {
    let _ = client.images().edit(Input::path("source.png")).resolution(resolution!("1K")).size(size!("1024x1024"));
}

fn compression_then_png(client: &Client) {
    let webp = client.images().generate("a lighthouse").output_format(Webp).output_compression(percent!(80));
    let _ = webp.output_format(Png);
}

async fn bytes_of_urls(client: &Client) -> Result<(), Error> {
    let images = client.images().generate("a lighthouse").send().await?;
    let _ = images[0].bytes();
    Ok(())
}

async fn url_of_bytes(client: &Client) -> Result<(), Error> {
    let images = client.images().generate("a lighthouse").inline().send().await?;
    let _ = images[0].url();
    Ok(())
}

fn main() {}
