use lumenfall::{Client, size};

fn request(client: &Client) {
    let _ = client.images().generate("a lighthouse").size(size!("2048x2048"));
}

fn main() {}
