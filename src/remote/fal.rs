//! fal.ai, without the gateway: text to image through its queue.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use reqwest::{Method, Url};
use serde_json::{Map, Value, json};

use super::job::{self, Places, Step};
use super::key::Secrets;
use super::transport::Transport;
use super::{clean, download, fields, provider};
use crate::backend::{
    Backend, BoxFuture, ByteStream, Capabilities, Content, EditSpec, Estimate, GenerateSpec, ImageData, Metadata,
    Options, Output, Progress, Request, RequestContext,
};
use crate::error::{Error, ErrorKind};
use crate::images::{AspectRatio, OutputFormat, ResponseFormat, Sampling, Size, fetch};

/// The provider's own id of the model.
const MODEL: [&str; 2] = ["fal-ai", "stable-diffusion-v35-medium"];

/// Stable Diffusion 3.5 Medium at fal.ai. Text to image only.
///
/// A request is put into fal's queue once and asked about until it has ended; it is submitted again only where nothing can
/// have come of it, since each submission is billed. Dropping the call cancels the job. What fal does not take (a mask, WebP, a
/// resolution tier, …) is refused by name.
///
/// ```no_run
/// use lumenfall::Client;
/// use lumenfall::remote::ClientBuilder;
///
/// let client = Client::new(ClientBuilder::from_fal_env().fal()?); // FAL_KEY
/// # Ok::<(), lumenfall::Error>(())
/// ```
#[derive(Clone)]
pub struct FalBackend {
    transport: Arc<Transport>,
    interval: Duration,
}

impl FalBackend {
    pub(super) fn new(transport: Arc<Transport>) -> Self {
        Self { transport, interval: job::INTERVAL }
    }

    /// How often the queue is asked about a job; every second by default.
    #[must_use]
    pub fn poll_interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    async fn run(&self, spec: GenerateSpec, context: RequestContext) -> Result<Output, Error> {
        context.check_deadline()?;
        let time = self.transport.begin(context.deadline);
        let deadline = time.deadline;
        let asked = spec.options.response_format;
        let input = input(spec)?;

        let submit = self.transport.address(&MODEL);
        let (job, submitted) = job::submit(&self.transport, &PLACES, submit, &input, time).await?;
        let told = |error: Error| submitted.told(error);
        let secrets = &self.transport.secrets;
        job.wait(self.interval, deadline, &context, |status| step(&status, secrets)).await.map_err(told)?;

        // The runner's own failure comes as a 500, and will come again.
        let passes = |error: &Error| job::passing(error) && error.status() != Some(500);
        let address = job_address(&self.transport, &submitted.id, &[]);
        let result = job::ask(&self.transport, &address, self.interval, deadline, passes).await;
        let mut output = result.and_then(|result| read(&result)).map_err(told)?;
        output.metadata.request_id = Some(submitted.name.clone());
        output.metadata.lost_bills = submitted.lost_bills;
        if asked == Some(ResponseFormat::B64Json) {
            output = fetch::all(self, output, Some(deadline)).await.map_err(told)?;
        }
        output.metadata.elapsed = time.started.elapsed();
        Ok(output)
    }
}

const PLACES: Places = Places {
    id: "request_id",
    status: |transport, id| job_address(transport, id, &["status"]),
    cancel: |transport, id| (Method::PUT, job_address(transport, id, &["cancel"])),
};

fn job_address(transport: &Transport, id: &str, tail: &[&str]) -> Url {
    transport.address(&[MODEL.as_slice(), ["requests", id].as_slice(), tail].concat())
}

/// fal's names of what is set in a spec.
const OWN: [&str; 8] = [
    "prompt",
    "image_size",
    "output_format",
    "num_images",
    "seed",
    "num_inference_steps",
    "guidance_scale",
    "negative_prompt",
];

/// The request in fal's words. No `..`: what is added to a spec must be sent or refused.
fn input(spec: GenerateSpec) -> Result<Map<String, Value>, Error> {
    let GenerateSpec { model, prompt, options } = spec;
    provider::check_model("fal", &model, &options)?;
    let Options {
        provider: _,
        size,
        aspect_ratio,
        resolution,
        response_format: _,
        output_format,
        output_compression,
        n,
        user,
        sampling,
        extra,
    } = options;
    let Sampling { seed, steps, guidance, negative_prompt, strength, skip_layer_guidance } = sampling;
    provider::refuse(
        "fal",
        &[
            ("resolution", resolution.is_some()),
            ("output_compression", output_compression.is_some()),
            ("user", user.is_some()),
            ("strength", strength.is_some()),
            ("skip_layer_guidance", skip_layer_guidance.is_some()),
        ],
    )?;
    let mut input = Map::from_iter([("prompt".to_owned(), prompt.into())]);
    let mut set = |name: &str, value: Option<Value>| input.extend(value.map(|value| (name.to_owned(), value)));
    let image_size = match (size, aspect_ratio) {
        (Some(Size::Pixels { width, height }), _) => Some(json!({ "width": width, "height": height })),
        (Some(Size::Ratio(ratio)), _) => Some(preset("size", ratio)?.into()),
        (None, Some(ratio)) => Some(preset("aspect_ratio", ratio)?.into()),
        (None, None) => None,
    };
    let format = match output_format {
        None => None,
        Some(OutputFormat::Png) => Some("png"),
        Some(OutputFormat::Jpeg) => Some("jpeg"),
        Some(_) => return Err(provider::unsupported("fal", "output_format", "it writes PNG and JPEG")),
    };
    set("image_size", image_size);
    set("output_format", format.map(Into::into));
    set("num_images", n.map(Into::into));
    set("seed", seed.map(Into::into));
    set("num_inference_steps", steps.map(Into::into));
    set("guidance_scale", guidance.map(|value| fields::decimal("guidance", value)).transpose()?.map(Into::into));
    set("negative_prompt", negative_prompt.map(Into::into));
    provider::add_extra(&mut input, extra, &OWN)?;
    Ok(input)
}

/// fal's name of the shape that `parameter` asks for.
fn preset(parameter: &str, ratio: AspectRatio) -> Result<&'static str, Error> {
    match (ratio.width(), ratio.height()) {
        (1, 1) => Ok("square_hd"),
        (4, 3) => Ok("landscape_4_3"),
        (3, 4) => Ok("portrait_4_3"),
        (16, 9) => Ok("landscape_16_9"),
        (9, 16) => Ok("portrait_16_9"),
        _ => Err(provider::unsupported("fal", parameter, "it takes 1:1, 4:3, 3:4, 16:9 and 9:16, or a size in pixels")),
    }
}

fn step(status: &Value, secrets: &Secrets) -> Result<Step<()>, Error> {
    Ok(match status.get("status").and_then(Value::as_str) {
        Some("COMPLETED") => Step::Done(()),
        Some("IN_QUEUE") => {
            let position = status.get("queue_position").and_then(Value::as_u64);
            Step::Going(Progress::Queued { position: position.and_then(|position| position.try_into().ok()) })
        }
        // Not documented, but nothing comes after such a word.
        Some(end @ ("FAILED" | "ERROR" | "CANCELLED" | "CANCELED")) => {
            let why = status.get("error").and_then(Value::as_str).unwrap_or("no reason was given");
            let message = format!("the job ended as {end}: {}", clean::message(why, secrets));
            return Err(Error::new(ErrorKind::Upstream, message));
        }
        _ => Step::Going(Progress::Running),
    })
}

fn read(result: &Value) -> Result<Output, Error> {
    let list = |name: &str| result.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let seed = result.get("seed").and_then(Value::as_u64);
    let addresses = list("images").iter().filter_map(|image| image.get("url")?.as_str());
    let images: Vec<_> = addresses
        .enumerate()
        .map(|(i, url)| ImageData {
            content: Content::Address(url.to_owned()),
            revised_prompt: None,
            // It tells one seed, and how the others follow from it is not documented.
            seed: seed.filter(|_| i == 0),
        })
        .collect();
    if images.is_empty() {
        return Err(Error::new(ErrorKind::InvalidResponse, "fal answered without an image"));
    }
    let flagged = list("has_nsfw_concepts").iter().enumerate().filter(|(_, flag)| flag.as_bool() == Some(true));
    let warnings =
        flagged.map(|(i, _)| format!("fal's safety checker flagged image {}; it may be black", i + 1)).collect();
    let metadata = Metadata {
        backend: "fal".into(),
        provider: Some("fal".into()),
        model: Some(MODEL.join("/")),
        warnings,
        ..Metadata::default()
    };
    Ok(Output::new(images, metadata))
}

/// Of each image, as fal makes it.
fn megapixels(spec: &GenerateSpec) -> f64 {
    let options = &spec.options;
    let (width, height) = match (options.size, options.aspect_ratio) {
        (Some(Size::Pixels { width, height }), _) => (width, height),
        (Some(Size::Ratio(ratio)), _) | (None, Some(ratio)) if ratio.width() == ratio.height() => (1024, 1024),
        // Every other preset has a long side of 1024, and this is the largest of them.
        _ => (1024, 768),
    };
    f64::from(width) * f64::from(height) / 1e6
}

fn no_edits<T>() -> Result<T, Error> {
    Err(Error::new(ErrorKind::Unsupported, "fal makes images from text only; edit through Replicate or the gateway"))
}

impl Backend for FalBackend {
    fn name(&self) -> &str {
        "fal"
    }

    fn identity(&self) -> String {
        self.transport.identity("fal")
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            generate: true,
            estimate: true,
            addresses: true,
            output_formats: vec![OutputFormat::Png, OutputFormat::Jpeg],
            ..Capabilities::none()
        }
    }

    fn generate<'a>(&'a self, spec: GenerateSpec, context: RequestContext) -> BoxFuture<'a, Result<Output, Error>> {
        Box::pin(self.run(spec, context))
    }

    fn edit<'a>(&'a self, _: EditSpec, _: RequestContext) -> BoxFuture<'a, Result<Output, Error>> {
        Box::pin(async { no_edits() })
    }

    /// By the published price a megapixel, without asking; fal may count whole megapixels.
    fn estimate<'a>(&'a self, request: Request, _: RequestContext) -> BoxFuture<'a, Result<Estimate, Error>> {
        Box::pin(async move {
            let Request::Generate(spec) = request else { return no_edits() };
            let total = provider::price("fal", spec.options.n, megapixels(&spec))?;
            input(spec)?;
            Ok(Estimate { provider: Some("fal".into()), model: Some(MODEL.join("/")), ..Estimate::new(total) })
        })
    }

    fn fetch<'a>(&'a self, address: &'a str) -> BoxFuture<'a, Result<ByteStream, Error>> {
        Box::pin(download::fetch(&self.transport, address))
    }
}

impl fmt::Debug for FalBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FalBackend").field("base_url", &clean::address(&self.transport.base)).finish_non_exhaustive()
    }
}
