//! Edits an image through the gateway.
//!
//! ```sh
//! LUMENFALL_API_KEY=… cargo run --example edit -- source.png "add a starry night sky"
//! ```

#![allow(clippy::indexing_slicing, reason = "`Images` is never empty")]

use lumenfall::{Client, Error, ErrorKind, Input};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let mut arguments = std::env::args().skip(1);
    let source = arguments.next().unwrap_or_else(|| "source.png".into());
    let prompt = arguments.next().unwrap_or_else(|| "add a starry night sky".into());
    let client = Client::from_env()?;

    match client.images().edit(Input::path(source)).prompt(prompt).send().await {
        Ok(images) => {
            images[0].save("edited.png").await?;
            println!("edited.png");
            Ok(())
        }
        Err(error) if error.kind() == ErrorKind::ContentPolicy => {
            println!("The service refused the prompt or the image: {error}");
            Ok(())
        }
        Err(error) => {
            if error.maybe_billed() {
                println!("The request may have been billed. Check your account before you send it again.");
            }
            Err(error)
        }
    }
}
