use lumenfall::{Client, Input};

fn request(client: &Client) {
    let _ = client.images().generate("a lighthouse").mask(Input::path("mask.png"));
}

fn main() {}
