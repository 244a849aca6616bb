use lumenfall::Client;

fn request(client: &Client) {
    let _ = client.images().generate("a lighthouse").n(2);
}

fn main() {}
