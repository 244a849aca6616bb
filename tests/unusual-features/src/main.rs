//! Uses lumenfall together with reqwest without TLS and with serde_json with numbers of arbitrary precision. The process fails if a promise
//! is broken.

use lumenfall::backend::Request;
use lumenfall::remote::{FalBuilder, Remote, RemoteBuilder, ReplicateBuilder};

/// A type of reqwest in the public API would make each of its major versions one of lumenfall. So without the feature
/// `reqwest-client` there is no method `http_client`, which would be called instead of this one, and return another type.
trait NoHttpClient: Sized {
    fn http_client(self, _: reqwest::Client) {}
}

impl NoHttpClient for RemoteBuilder {}
impl NoHttpClient for FalBuilder {}
impl NoHttpClient for ReplicateBuilder {}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // This would panic if lumenfall enabled TLS in reqwest without a cryptography provider.
    let client = reqwest::Client::new();
    let remote = Remote::builder().api_key("key").build()?;
    println!("{client:?}\n{remote:?}");
    let () = RemoteBuilder::default().http_client(client.clone());
    let () = FalBuilder::default().http_client(client.clone());
    let () = ReplicateBuilder::default().http_client(client);

    // Flattened and untagged types cannot read numbers of arbitrary precision.
    let stored = r#"{"generate":{"model":"stable-diffusion-3.5-medium","prompt":"a lighthouse","options":{"n":2,
        "sampling":{"seed":18446744073709551615,"guidance":4.5},"extra":{"level":0.1}}}}"#;
    let request: Request = serde_json::from_str(stored)?;
    assert_eq!(serde_json::from_str::<Request>(&serde_json::to_string(&request)?)?, request);
    assert_eq!(request.options().sampling.seed, Some(u64::MAX));
    Ok(())
}
