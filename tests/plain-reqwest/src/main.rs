//! Creates a plain HTTP client in a program that also uses lumenfall. It would panic if lumenfall enabled TLS in reqwest
//! without a cryptography provider.

fn main() {
    let client = reqwest::Client::new();
    let remote = lumenfall::remote::Remote::builder().api_key("key").build();
    println!("{client:?}\n{remote:?}");
}
