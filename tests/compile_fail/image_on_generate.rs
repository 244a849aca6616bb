use lumenfall::{Client, Input};

fn request(client: &Client) {
    let _ = client.images().generate("a lighthouse").image(Input::path("source.png"));
}

fn main() {}
