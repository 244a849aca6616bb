//! Generates or edits an image with any server that has the OpenAI images API, so that the same program runs on one machine, on
//! a cluster behind one URL, or with a hosted service.
//!
//! ```sh
//! cargo run --example any_server --features testing -- --server vllm-omni --url http://127.0.0.1:8000/v1 \
//!     --model stabilityai/stable-diffusion-3.5-medium --steps 28 --seed 7 "a lighthouse in a storm"
//! ```
//!
//! Other options are parameters of the request, such as `--size 512x512`. `--image` makes it an edit, and `--mask` is its mask.
//! The key, if the server needs one, is in the environment variable `SERVER_KEY`. A parameter that the server does not support is
//! reported before anything is sent.

use std::path::{Path, PathBuf};

use lumenfall::backend::{EditSpec, GenerateSpec, Request};
use lumenfall::images::Any;
use lumenfall::remote::{Remote, Server};
use lumenfall::stable_diffusion_3_5_medium::SCHEMA;
use lumenfall::{Client, Input};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let key = std::env::var("SERVER_KEY").ok();
    for path in run(&arguments, key.as_deref(), Path::new(".")).await? {
        println!("{}", path.display());
    }
    Ok(())
}

/// Sends the request that the arguments describe, and returns the files in `folder`.
async fn run(
    arguments: &[String],
    key: Option<&str>,
    folder: &Path,
) -> Result<Vec<PathBuf>, Box<dyn std::error::Error>> {
    let mut builder = Remote::builder();
    builder = if let Some(key) = key { builder.api_key(key) } else { builder.without_key() };
    let (mut image, mut mask, mut prompt, mut parameters) = (None, None, String::new(), Vec::new());
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let Some(name) = argument.strip_prefix("--") else {
            prompt.clone_from(argument);
            continue;
        };
        let value = arguments.next().ok_or("each option has a value, such as `--server vllm-omni`")?;
        match name {
            "server" => builder = builder.server(value.parse::<Server>()?),
            "url" => builder = builder.base_url(value),
            "model" => builder = builder.model_name(value),
            "image" => image = Some(Input::path(value)),
            "mask" => mask = Some(Input::path(value)),
            name => parameters.push((name.replace('-', "_"), value)),
        }
    }
    let mut request: Request = match image {
        None => GenerateSpec::new(SCHEMA.id, prompt).into(),
        Some(image) => {
            let mut spec = EditSpec::new(SCHEMA.id, image).with_prompt(prompt);
            spec.mask = mask;
            spec.into()
        }
    };
    for (name, value) in parameters {
        // Numbers are numbers; everything else is text.
        let number = value.parse::<serde_json::Number>();
        request.set(&name, number.map_or_else(|_| value.as_str().into(), serde_json::Value::Number))?;
    }
    let client = Client::new(builder.build()?);
    let images = client.request(request).delivered_as::<Any>().send().await?;
    Ok(images.save_all(folder, "image").await?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use lumenfall::testing::MockGateway;
    use lumenfall::{Error, ErrorKind};

    /// Runs the program against a mock gateway, with these options.
    async fn sent(options: &str) -> (Result<usize, Box<dyn std::error::Error>>, MockGateway) {
        let gateway = MockGateway::start().await.expect("a port");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut arguments: Vec<String> = options.split(' ').map(str::to_owned).collect();
        arguments.extend(["--url".into(), gateway.base_url(), "a lighthouse".into()]);
        let saved = run(&arguments, Some(gateway.key()), folder.path()).await;
        (saved.map(|paths| paths.iter().filter(|path| path.exists()).count()), gateway)
    }

    #[tokio::test]
    async fn one_program_sends_what_each_server_expects() {
        for (server, steps) in [("gateway", "num_inference_steps"), ("koboldcpp", "steps"), ("localai", "step")] {
            let (saved, gateway) = sent(&format!("--server {server} --steps 20 --size 512x512")).await;
            assert_eq!(saved.expect("images"), 1, "{server}");
            let fields = &gateway.received()[0].fields;
            assert_eq!((&fields[steps], &fields["size"]), (&20.into(), &"512x512".into()), "{server}");
        }
        let (saved, gateway) = sent("--server openai --steps 20").await;
        let error = saved.expect_err("OpenAI has no steps").downcast::<Error>().expect("an error of this crate");
        assert_eq!((error.kind(), error.parameter()), (ErrorKind::Unsupported, Some("steps")));
        assert!(gateway.received().is_empty());
    }
}
