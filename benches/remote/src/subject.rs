//! The compared clients, each used as its documentation shows, but without idle connections.

use std::path::Path;

use async_openai::config::OpenAIConfig;
use async_openai::types::images::{CreateImageRequest, CreateImageRequestArgs, Image, ImageResponseFormat};
use base64::Engine as _;
use bytes::Bytes;
use lumenfall::remote::Remote;
use lumenfall::{Client, Input};
use serde::{Deserialize, Serialize};

use crate::Failure;
use crate::server::LARGE;

const MODEL: &str = "stable-diffusion-3.5-medium";

/// A client under comparison.
pub enum Subject {
    Ours(Client),
    AsyncOpenai(async_openai::Client<OpenAIConfig>),
    /// The best hand-written client: reqwest, serde, and one pass of base64.
    Bare(reqwest::Client, String),
}

/// The names of the clients.
pub const NAMES: [&str; 3] = ["ours", "async-openai", "reqwest"];

#[derive(Serialize)]
struct Call<'a> {
    model: &'a str,
    prompt: &'a str,
    response_format: &'a str,
}

#[derive(Deserialize)]
struct Response {
    data: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    url: String,
}

impl Subject {
    /// Creates the client `name` for a server.
    pub fn new(name: &str, base: &str) -> Result<Self, Failure> {
        Ok(match name {
            "ours" => Self::Ours(Client::new(Remote::builder().api_key("key").base_url(base).build()?)),
            "async-openai" => {
                let config = OpenAIConfig::new().with_api_base(base).with_api_key("key");
                Self::AsyncOpenai(async_openai::Client::with_config(config).with_http_client(http_client()?))
            }
            "reqwest" => Self::Bare(http_client()?, format!("{base}/images/generations")),
            other => return Err(format!("there is no client {other:?}").into()),
        })
    }

    /// Requests an image and reads its URL.
    pub async fn small(&self) -> Result<usize, Failure> {
        match self {
            Self::Ours(client) => {
                let images = client.images().generate("a red circle").send().await?;
                Ok(images[0].url().ok_or("the response contains no URL")?.len())
            }
            Self::AsyncOpenai(client) => {
                let response = client.images().generate(request("a red circle", ImageResponseFormat::Url)?).await?;
                match response.data.first().map(AsRef::as_ref) {
                    Some(Image::Url { url, .. }) => Ok(url.len()),
                    _ => Err("the response contains no URL".into()),
                }
            }
            Self::Bare(client, url) => {
                let call = Call { model: MODEL, prompt: "a red circle", response_format: "url" };
                let response = client.post(url).bearer_auth("key").json(&call).send().await?.error_for_status()?;
                let response: Response = response.json().await?;
                Ok(response.data.first().ok_or("there is no image")?.url.len())
            }
        }
    }

    /// Requests ten images as bytes and decodes them.
    pub async fn large(&self) -> Result<Vec<Bytes>, Failure> {
        match self {
            Self::Ours(client) => {
                let images = client.images().generate(LARGE).inline().send().await?;
                Ok(images.iter().map(|image| image.bytes().clone()).collect())
            }
            Self::AsyncOpenai(client) => {
                let response = client.images().generate(request(LARGE, ImageResponseFormat::B64Json)?).await?;
                let decode = |image: &Image| match image {
                    Image::B64Json { b64_json, .. } => {
                        Ok(base64::engine::general_purpose::STANDARD.decode(&**b64_json)?.into())
                    }
                    Image::Url { .. } => Err("the response contains a URL in place of bytes".into()),
                };
                response.data.iter().map(|image| decode(image)).collect()
            }
            Self::Bare(client, url) => {
                let call = Call { model: MODEL, prompt: LARGE, response_format: "b64_json" };
                let response = client.post(url).bearer_auth("key").json(&call).send().await?.error_for_status()?;
                let body = response.bytes().await?;
                // This searches for the images without parsing JSON, which is a lower bound for any client.
                let field = br#""b64_json":""#;
                memchr::memmem::find_iter(&body, field)
                    .map(|at| {
                        let text = &body[at + field.len()..];
                        let end = memchr::memchr(b'"', text).ok_or("the string is not terminated")?;
                        Ok(base64_simd::STANDARD.decode_to_vec(&text[..end])?.into())
                    })
                    .collect()
            }
        }
    }

    /// Sends the file as the image of an edit. This goal has no peer.
    pub async fn upload(&self, path: &Path) -> Result<usize, Failure> {
        let Self::Ours(client) = self else { return Err("only ours uploads".into()) };
        Ok(client.images().edit(Input::path(path)).send().await?.len())
    }

    /// Requests an image and downloads it to `path`.
    pub async fn download(&self, path: &Path) -> Result<usize, Failure> {
        let Self::Ours(client) = self else { return Err("only ours downloads".into()) };
        let images = client.images().generate("a red circle").send().await?;
        images[0].save(path).await?;
        Ok(std::fs::metadata(path)?.len() as usize)
    }
}

/// Opens a connection for each request, as ours does: the comparison is about everything else.
fn http_client() -> reqwest::Result<reqwest::Client> {
    reqwest::Client::builder().pool_max_idle_per_host(0).build()
}

fn request(prompt: &str, format: ImageResponseFormat) -> Result<CreateImageRequest, Failure> {
    let model = async_openai::types::images::ImageModel::Other(MODEL.into());
    Ok(CreateImageRequestArgs::default().model(model).prompt(prompt).response_format(format).build()?)
}
