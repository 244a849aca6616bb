use lumenfall::Client;

fn request(client: &Client) {
    let _ = client.images().generate("a lighthouse").size("1024x1024");
}

fn main() {}
