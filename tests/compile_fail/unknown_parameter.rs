use lumenfall::Client;

fn request(client: &Client) {
    let _ = client.images().generate("a lighthouse").style("ink");
}

fn main() {}
