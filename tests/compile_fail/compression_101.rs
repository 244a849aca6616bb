use lumenfall::{Client, Webp, percent};

fn request(client: &Client) {
    let _ = client.images().generate("a lighthouse").output_format(Webp).output_compression(percent!(101));
}

fn main() {}
