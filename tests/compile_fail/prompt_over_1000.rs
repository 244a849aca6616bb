use lumenfall::{Client, prompt};

fn request(client: &Client) {
    let _ = client.images().generate(prompt!(
        "a lighthouse in fog a lighthouse in fog a lighthouse in fog a lighthouse in fog a lighthouse in fog a lighthouse in fog a lighthouse in fog a lighthouse in fog a lighthouse in fog a lighthouse in fog a lighthouse in fog a lighthouse in fog a lighthouse in fog a lighthouse in fog a lighthouse in fog a lighthouse in fog a lighthouse in fog a lighthouse in fog a lighthouse in fog a lighthouse in fog a lighthouse in fog a lighthouse in fog a lighthouse in fog a lighthouse in fog a lighthouse in fog a lighthouse in fog a lighthouse in fog a lighthouse in fog a lighthouse in fog a lighthouse in fog a lighthouse in fog a lighthouse in fog a lighthouse in fog a lighthouse in fog a lighthouse in fog a lighthouse in fog a lighthouse in fog a lighthouse in fog a lighthouse in fog a lighthouse in fog a lighthouse in fog a lighthouse in fog a lighthouse in fog a lighthouse in fog a lighthouse in fog a lighthouse in fog a lighthouse in fog a lighthouse in fog a lighthouse in fog a lighthouse in fog !"
    ));
}

fn main() {}
