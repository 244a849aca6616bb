use lumenfall::Client;

fn request(client: &Client) {
    let _ = client.images().edit("source.png");
}

fn main() {}
