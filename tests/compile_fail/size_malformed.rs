use lumenfall::{Client, size};

fn request(client: &Client) {
    let _ = client.images().generate("a lighthouse").size(size!("1024*1024"));
}

fn main() {}
