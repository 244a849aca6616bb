use lumenfall::{Client, percent};

fn request(client: &Client) {
    let _ = client.images().generate("a lighthouse").output_compression(percent!(80));
}

fn main() {}
