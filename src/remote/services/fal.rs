//! fal.ai without the gateway: text to image through its queue.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::HeaderMap;
use reqwest::{Method, Url};
use serde_json::{Map, Value, json};

use super::job::{self, FailedPoll, JobApi, State, Turns};
use super::provider::provider_builder;
use super::requested::Requested;
use super::{fields, provider};
use crate::backend::{
    Backend, BoxFuture, ByteStream, Capabilities, Content, Estimate, GenerateSpec, ImageData, Metadata, Options,
    Output, Parameter, Progress, Request, RequestContext, fetch,
};
use crate::error::{Error, ErrorKind};
use crate::remote::http::download;
use crate::remote::http::settings::{Service, Settings, settings_methods};
use crate::remote::http::transport::Transport;
use crate::remote::response::failure::Failure;
use crate::remote::response::images;
use crate::remote::secrets::Secrets;
use crate::values::{OutputFormat, ResponseFormat, Size};

/// fal's id of the model.
const MODEL: [&str; 2] = ["fal-ai", "stable-diffusion-v35-medium"];

const NAME: &str = "fal";
const SERVICE: Service = Service { base_url: "https://queue.fal.run", key_variable: "FAL_KEY", scheme: "Key" };

/// A backend for Stable Diffusion 3.5 Medium at fal.ai. It supports text to image only.
///
/// A request is submitted to fal's queue and polled until it has ended. It is submitted again only if the failed submission
/// cannot have been executed, because each submission is billed. Dropping the future cancels the job. Parameters that fal
/// does not support (a mask, WebP, a resolution tier, …) are rejected by name.
///
/// ```no_run
/// use lumenfall::Client;
/// use lumenfall::remote::Fal;
///
/// let client = Client::new(Fal::from_env()?); // FAL_KEY
/// # Ok::<(), lumenfall::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Fal {
    transport: Arc<Transport>,
    poll_interval: Duration,
}

provider_builder!(Fal, FalBuilder, "https://queue.fal.run", "FAL_KEY");

impl Fal {
    async fn run(&self, request: Request, context: RequestContext) -> Result<Output, Error> {
        let Request::Generate(spec) = request else { return edits_unsupported() };
        context.check_deadline()?;
        let this = self.for_call(&context)?;
        let time = this.transport.start(context.deadline.map(Into::into));
        let deadline = time.deadline;
        let (response_format, requested) = (spec.options.response_format, Requested::of(&spec.options));
        let parameters = spec.options.of_images();
        let input = input(spec)?;

        let (url, turns) = (this.transport.url(&MODEL), Turns::default());
        let (job, submitted) = job::submit(&this.transport, &JOBS, url, &input, time, &context, &turns).await?;
        let complete = |error: Error| submitted.complete(error);
        let secrets = &this.transport.secrets;
        job.wait(this.poll_interval, deadline, &context, |status| state(&status, secrets)).await.map_err(complete)?;

        let url = job_url(&this.transport, &submitted.id, &[]);
        let result = job::poll(&this.transport, &url, this.poll_interval, deadline, failed_result).await;
        let mut output = result.and_then(|result| read(result, secrets)).map_err(complete)?;
        output.metadata.request_id = Some(submitted.shown_id.clone());
        output.metadata.lost_bills = submitted.lost_bills;
        output.metadata.attempts = submitted.attempts;
        output.metadata.parameters = Some(parameters);
        if response_format == Some(ResponseFormat::B64Json) {
            output = fetch::all(&*this, output, Some(deadline.into())).await.map_err(complete)?;
        }
        requested.compare(&mut output);
        output.metadata.elapsed = time.started.elapsed();
        Ok(output)
    }
}

const JOBS: JobApi = JobApi {
    id: "request_id",
    status: |transport, id| job_url(transport, id, &["status"]),
    cancel: |transport, id| (Method::PUT, job_url(transport, id, &["cancel"])),
};

fn job_url(transport: &Transport, id: &str, tail: &[&str]) -> Url {
    transport.url(&[MODEL.as_slice(), ["requests", id].as_slice(), tail].concat())
}

/// fal's names of the parameters with a typed setter.
const TYPED: [&str; 8] = [
    "prompt",
    "image_size",
    "output_format",
    "num_images",
    "seed",
    "num_inference_steps",
    "guidance_scale",
    "negative_prompt",
];

/// Translates a request into fal's parameters.
fn input(spec: GenerateSpec) -> Result<Map<String, Value>, Error> {
    provider::check(NAME, &spec)?;
    let GenerateSpec { model: _, prompt, options } = spec;
    let mut input = Map::from_iter([("prompt".to_owned(), prompt.into())]);
    for Parameter { name, wire_name, value } in options.parameters() {
        let (fal_name, value) = match name {
            // The images are downloaded if bytes were requested.
            "response_format" => continue,
            "size" | "aspect_ratio" => ("image_size", image_size(&options)?),
            "output_format" if matches!(options.output_format, Some(OutputFormat::Png | OutputFormat::Jpeg)) => {
                (wire_name, value)
            }
            "output_format" => {
                return Err(provider::unsupported(NAME, name, "it supports PNG and JPEG"));
            }
            "n" => ("num_images", value),
            "seed" | "steps" | "guidance" | "negative_prompt" => (wire_name, fields::finite(name, value)?),
            _ => return Err(provider::refused(NAME, name)),
        };
        input.insert(fal_name.to_owned(), value);
    }
    provider::add_extra(&mut input, options.extra, &TYPED)?;
    Ok(input)
}

/// Returns the size in pixels, or the name of the preset with the requested aspect ratio.
fn image_size(options: &Options) -> Result<Value, Error> {
    let (parameter, ratio) = match (options.size, options.aspect_ratio) {
        (Some(Size::Pixels { width, height }), _) => return Ok(json!({ "width": width, "height": height })),
        (Some(Size::Ratio(ratio)), _) => ("size", Some(ratio)),
        (None, ratio) => ("aspect_ratio", ratio),
    };
    match ratio.map(|ratio| (ratio.width(), ratio.height())) {
        Some((1, 1)) => Ok("square_hd".into()),
        Some((4, 3)) => Ok("landscape_4_3".into()),
        Some((3, 4)) => Ok("portrait_4_3".into()),
        Some((16, 9)) => Ok("landscape_16_9".into()),
        Some((9, 16)) => Ok("portrait_16_9".into()),
        _ => {
            let remedy = "it supports 1:1, 4:3, 3:4, 16:9 and 9:16, or a size in pixels";
            Err(provider::unsupported(NAME, parameter, remedy))
        }
    }
}

/// Returns what an error response to the request for the result says.
fn failed_result(error: &Error) -> FailedPoll {
    match error.status() {
        _ if error.is_from_job() => FailedPoll::Final,
        // A failure of the runner, which is permanent.
        Some(500) => FailedPoll::Unexpected,
        _ => job::failed_poll(error),
    }
}

fn state(status: &Value, secrets: &Secrets) -> Result<State<()>, Error> {
    let is_error = |name| status.get(name).is_some_and(|error| !error.is_null() && error != "");
    let has_error = is_error("error") || is_error("error_type");
    Ok(match status.get("status").and_then(Value::as_str) {
        Some("COMPLETED") if !has_error => State::Done(()),
        Some("IN_QUEUE") => {
            let position = status.get("queue_position").and_then(Value::as_u64);
            State::Active(Progress::Queued { position: position.and_then(|position| position.try_into().ok()) })
        }
        // Only the first one is documented, but a job cannot continue after the others.
        Some(end @ ("COMPLETED" | "FAILED" | "ERROR" | "CANCELLED" | "CANCELED")) => {
            return Err(job::failed(status, end, secrets));
        }
        _ => State::Active(Progress::Running),
    })
}

fn read(result: Value, secrets: &Secrets) -> Result<Output, Error> {
    let list = |name: &str| result.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let seed = result.get("seed").and_then(Value::as_u64);
    let urls = list("images").iter().filter_map(|image| image.get("url")?.as_str());
    let data: Vec<_> = urls
        .enumerate()
        .map(|(i, url)| ImageData {
            content: Content::Url(url.to_owned()),
            revised_prompt: None,
            // fal reports the seed of the first image, and does not document the seeds of the others.
            seed: seed.filter(|_| i == 0),
        })
        .collect();
    if data.is_empty() {
        return Err(Failure::no_image("the response of fal contains no image", &result, secrets).error);
    }
    let flagged = list("has_nsfw_concepts").iter().enumerate().filter(|(_, flag)| flag.as_bool() == Some(true));
    let warnings =
        flagged.map(|(i, _)| format!("fal's safety checker flagged image {}; it may be black", i + 1)).collect();
    let metadata = Metadata {
        backend: NAME.into(),
        provider: Some(NAME.into()),
        model: Some(MODEL.join("/")),
        warnings,
        service: images::service_fields(result, "images", &["url"]),
        ..Metadata::default()
    };
    Ok(Output::new(data, metadata))
}

/// Returns the megapixels of each image.
fn megapixels(spec: &GenerateSpec) -> f64 {
    let options = &spec.options;
    let (width, height) = match (options.size, options.aspect_ratio) {
        (Some(Size::Pixels { width, height }), _) => (width, height),
        (Some(Size::Ratio(ratio)), _) | (None, Some(ratio)) if ratio.width() == ratio.height() => (1024, 1024),
        // All other presets have a long side of 1024 pixels; this is the largest one.
        _ => (1024, 768),
    };
    f64::from(width) * f64::from(height) / 1e6
}

fn edits_unsupported<T>() -> Result<T, Error> {
    Err(Error::new(ErrorKind::Unsupported, "fal supports text to image only; edit with Replicate or the gateway"))
}

impl Backend for Fal {
    fn name(&self) -> &str {
        NAME
    }

    fn identity(&self) -> String {
        self.transport.identity(NAME)
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            generate: true,
            estimate: true,
            urls: true,
            output_formats: vec![OutputFormat::Png, OutputFormat::Jpeg],
            controls: vec!["seed", "steps", "guidance", "negative_prompt"],
            models: Some(vec![crate::generated::stable_diffusion_3_5_medium::SCHEMA.id.to_owned()]),
            ..Capabilities::none()
        }
    }

    fn send<'a>(&'a self, request: Request, context: RequestContext) -> BoxFuture<'a, Result<Output, Error>> {
        Box::pin(self.run(request, context))
    }

    /// Computes the cost from the published price per megapixel, without a request. fal may round up to whole megapixels.
    fn estimate<'a>(&'a self, request: Request, _: RequestContext) -> BoxFuture<'a, Result<Estimate, Error>> {
        Box::pin(async move {
            let Request::Generate(spec) = request else { return edits_unsupported() };
            let total = provider::price(NAME, spec.options.n, megapixels(&spec))?;
            input(spec)?;
            Ok(Estimate { provider: Some(NAME.into()), model: Some(MODEL.join("/")), ..Estimate::new(total) })
        })
    }

    fn fetch<'a>(&'a self, url: &'a str) -> BoxFuture<'a, Result<ByteStream, Error>> {
        Box::pin(download::fetch(&self.transport, url))
    }
}
