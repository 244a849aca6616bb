//! Changes an image through the gateway.
//!
//! ```sh
//! LUMENFALL_API_KEY=… cargo run --example edit -- source.png "add a starry night sky"
//! ```

use lumenfall::{Client, ErrorKind, Input};

#[tokio::main]
async fn main() -> Result<(), lumenfall::Error> {
    let mut arguments = std::env::args().skip(1);
    let source = arguments.next().unwrap_or_else(|| "source.png".into());
    let prompt = arguments.next().unwrap_or_else(|| "Add a starry night sky to this image".into());
    let client = Client::from_env()?;

    match client.images().edit(Input::path(source)).prompt(prompt).send().await {
        Ok(images) => {
            if let Some(image) = images.first() {
                image.save("edited.png").await?;
                println!("edited.png, by {:?}", images.metadata().provider);
            }
            Ok(())
        }
        Err(error) if error.kind() == ErrorKind::ContentPolicy => {
            println!("the service will not make this image: {error}");
            Ok(())
        }
        Err(error) if error.maybe_billed() => {
            println!("look into your account before you try again");
            Err(error)
        }
        Err(error) => Err(error),
    }
}
