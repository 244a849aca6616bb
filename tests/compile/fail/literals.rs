use lumenfall::{Client, Webp, count, percent, prompt, size};

fn compression_101(client: &Client) {
    let _ = client.images().generate("a lighthouse").output_format(Webp).output_compression(percent!(101));
}

fn n_0(client: &Client) {
    let _ = client.images().generate("a lighthouse").n(count!(0));
}

fn n_11(client: &Client) {
    let _ = client.images().generate("a lighthouse").n(count!(11));
}

fn prompt_blank(client: &Client) {
    let _ = client.images().generate(prompt!("  "));
}

fn prompt_over_1000(client: &Client) {
    let _ = client.images().generate(prompt!(
        "a lighthouse in fog a lighthouse in fog a lighthouse in fog a lighthouse in fog a lighthouse in fog a lighthouse in fog a lighthouse in fog a lighthouse in fog a lighthouse in fog a lighthouse in fog a lighthouse in fog a lighthouse in fog a lighthouse in fog a lighthouse in fog a lighthouse in fog a lighthouse in fog a lighthouse in fog a lighthouse in fog a lighthouse in fog a lighthouse in fog a lighthouse in fog a lighthouse in fog a lighthouse in fog a lighthouse in fog a lighthouse in fog a lighthouse in fog a lighthouse in fog a lighthouse in fog a lighthouse in fog a lighthouse in fog a lighthouse in fog a lighthouse in fog a lighthouse in fog a lighthouse in fog a lighthouse in fog a lighthouse in fog a lighthouse in fog a lighthouse in fog a lighthouse in fog a lighthouse in fog a lighthouse in fog a lighthouse in fog a lighthouse in fog a lighthouse in fog a lighthouse in fog a lighthouse in fog a lighthouse in fog a lighthouse in fog a lighthouse in fog a lighthouse in fog !"
    ));
}

fn size_2048x2048(client: &Client) {
    let _ = client.images().generate("a lighthouse").size(size!("2048x2048"));
}

fn size_malformed(client: &Client) {
    let _ = client.images().generate("a lighthouse").size(size!("1024*1024"));
}

fn main() {}
