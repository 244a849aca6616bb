use lumenfall::Client;

fn request(client: &Client) {
    let _ = client.images().generate("a lighthouse").output_format("tiff");
}

fn main() {}
