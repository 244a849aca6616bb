use lumenfall::{Client, count};

fn request(client: &Client) {
    let _ = client.images().generate("a lighthouse").n(count!(0));
}

fn main() {}
