use lumenfall::{Client, Input, resolution, size};

fn request(client: &Client) {
    let _ = client.images().edit(Input::path("source.png")).resolution(resolution!("1K")).size(size!("1024x1024"));
}

fn main() {}
