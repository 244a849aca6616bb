use lumenfall::{Client, Png, Webp, percent};

fn request(client: &Client) {
    let _ = client
        .images()
        .generate("a lighthouse")
        .output_format(Webp)
        .output_compression(percent!(80))
        .output_format(Png);
}

fn main() {}
