use lumenfall::{Client, Gif, percent};

fn request(client: &Client) {
    let _ = client.images().generate("a lighthouse").output_format(Gif).output_compression(percent!(80));
}

fn main() {}
