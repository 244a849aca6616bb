use lumenfall::{Client, Png, percent};

fn request(client: &Client) {
    let _ = client.images().generate("a lighthouse").output_format(Png).output_compression(percent!(80));
}

fn main() {}
