use lumenfall::{Client, resolution, size};

fn request(client: &Client) {
    let _ = client.images().generate("a lighthouse").size(size!("1024x1024")).resolution(resolution!("1K"));
}

fn main() {}
