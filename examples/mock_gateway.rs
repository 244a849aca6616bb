//! Serves a mock gateway for programs in any language, until its standard input ends. It prints the base URL and the API key,
//! and at the end a line for each image request.
//!
//! ```sh
//! cargo run --example mock_gateway --features testing
//! ```

use lumenfall::testing::MockGateway;

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let gateway = MockGateway::start().await?;
    println!("{} {}", gateway.base_url(), gateway.key());
    tokio::io::copy(&mut tokio::io::stdin(), &mut tokio::io::sink()).await?;
    for request in gateway.received() {
        let fields = serde_json::to_string(&request.fields)?;
        println!("{} {fields} files={}", request.endpoint, request.files.join(","));
    }
    Ok(())
}
