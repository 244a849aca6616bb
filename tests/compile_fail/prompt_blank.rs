use lumenfall::{Client, prompt};

fn request(client: &Client) {
    let _ = client.images().generate(prompt!("  "));
}

fn main() {}
