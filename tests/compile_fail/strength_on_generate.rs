use lumenfall::Client;

fn request(client: &Client) {
    let _ = client.images().generate("a lighthouse").strength(0.5);
}

fn main() {}
