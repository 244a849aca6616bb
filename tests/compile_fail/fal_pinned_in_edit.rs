use lumenfall::{Client, Fal, Input};

fn request(client: &Client) {
    let _ = client.images().edit(Input::path("source.png")).pin(Fal);
}

fn main() {}
