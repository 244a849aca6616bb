use lumenfall::{Client, aspect_ratio, size};

fn request(client: &Client) {
    let _ = client.images().generate("a lighthouse").size(size!("1024x1024")).aspect_ratio(aspect_ratio!("16:9"));
}

fn main() {}
