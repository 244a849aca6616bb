//! Replicate, without the gateway: predictions, one for each image.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future;
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::job::{self, Places, Step, Submitted};
use super::key::Secrets;
use super::transport::{Time, Transport};
use super::{clean, download, fields, provider};
use crate::backend::{
    Backend, BoxFuture, ByteStream, Capabilities, Content, EditSpec, Estimate, GenerateSpec, ImageData, Metadata,
    Options, Output, Progress, Request, RequestContext,
};
use crate::error::{Bills, Error, ErrorKind};
use crate::images::{Input, OutputFormat, ResponseFormat, Sampling, Size, fetch};

/// The provider's own id of the model.
const MODEL: &str = "stability-ai/stable-diffusion-3.5-medium";

/// Stable Diffusion 3.5 Medium at Replicate: text to image, and image to image.
///
/// Each image is a prediction of its own, submitted once and asked about until it has ended; it is submitted again only where
/// nothing can have come of it. Dropping the call cancels what runs. Where some predictions of a request fail, the images of
/// the others are returned, with a warning. What Replicate does not take is refused by name.
///
/// ```no_run
/// use lumenfall::Client;
/// use lumenfall::remote::ClientBuilder;
///
/// let client = Client::new(ClientBuilder::from_replicate_env().replicate()?); // REPLICATE_API_TOKEN
/// # Ok::<(), lumenfall::Error>(())
/// ```
#[derive(Clone)]
pub struct ReplicateBackend {
    transport: Arc<Transport>,
    interval: Duration,
}

impl ReplicateBackend {
    pub(super) fn new(transport: Arc<Transport>) -> Self {
        Self { transport, interval: job::INTERVAL }
    }

    /// How often a prediction is asked about; every second by default.
    #[must_use]
    pub fn poll_interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    async fn run(&self, request: Request, context: RequestContext) -> Result<Output, Error> {
        context.check_deadline()?;
        let Time { started, deadline } = self.transport.begin(context.deadline);
        let options = request.options();
        let (asked, n, seed) = (options.response_format, options.n.unwrap_or(1), options.sampling.seed);
        let input = input(request).await?;

        let predictions = (0..n).map(|i| {
            // Image i of a request uses seed + i, here as everywhere.
            let seed = seed.map(|seed| seed.wrapping_add(u64::from(i)));
            self.predict(input.clone(), seed, deadline, &context)
        });
        let mut images = Vec::new();
        let mut failures = Vec::new();
        let mut bills = Bills::default();
        let (mut succeeded, mut attempts) = (0, 0);
        let mut id = None;
        for prediction in future::join_all(predictions).await {
            match prediction {
                Ok((made, submitted)) => {
                    images.extend(made);
                    bills.tries = bills.tries.saturating_add(submitted.lost_bills);
                    attempts = attempts.max(submitted.attempts);
                    id = Some(submitted.name);
                    succeeded += 1;
                }
                Err(error) => {
                    bills.add(error.bills());
                    failures.push(error);
                }
            }
        }
        // A bill for each image of the request is one for the request; that of the images that came is no lost one.
        let all = bills.tries.saturating_add(succeeded).div_ceil(n.max(1));
        bills.tries = all.saturating_sub(succeeded.min(1));
        if images.is_empty() {
            let first = failures.into_iter().next();
            let none =
                || Error::new(ErrorKind::InvalidRequest, "n is 0; ask for at least one image").with_parameter("n");
            return Err(first.unwrap_or_else(none).with_bills(bills));
        }
        let metadata = Metadata {
            backend: "replicate".into(),
            provider: Some("replicate".into()),
            model: Some(MODEL.into()),
            lost_bills: bills.tries,
            // Several predictions have no common name.
            request_id: id.filter(|_| n == 1),
            elapsed: started.elapsed(),
            warnings: failures.iter().map(|error| format!("one of the {n} images failed: {error}")).collect(),
            ..Metadata::default()
        };
        let output = Output::new(images, metadata);
        match asked {
            Some(ResponseFormat::B64Json) => {
                let told = |error: Error| error.with_attempts(attempts, started.elapsed());
                fetch::all(self, output, Some(deadline)).await.map_err(told)
            }
            _ => Ok(output),
        }
    }

    async fn predict(
        &self,
        mut input: Map<String, Value>,
        seed: Option<u64>,
        deadline: Instant,
        context: &RequestContext,
    ) -> Result<(Vec<ImageData>, Submitted), Error> {
        input.extend(seed.map(|seed| ("seed".to_owned(), seed.into())));
        let submit: Vec<_> = ["models"].into_iter().chain(MODEL.split('/')).chain(["predictions"]).collect();
        let submit = self.transport.address(&submit);
        let time = self.transport.begin(Some(deadline));
        let input = json!({ "input": input });
        let (job, submitted) = job::submit(&self.transport, &PLACES, submit, &input, time).await?;
        let secrets = &self.transport.secrets;
        let addresses = job.wait(self.interval, deadline, context, |prediction| step(&prediction, secrets)).await;
        let addresses = addresses.map_err(|error| submitted.told(error))?;
        let image = |url| ImageData { content: Content::Address(url), revised_prompt: None, seed };
        Ok((addresses.into_iter().map(image).collect(), submitted))
    }
}

const PLACES: Places = Places {
    id: "id",
    status: |transport, id| transport.address(&["predictions", id]),
    cancel: |transport, id| (Method::POST, transport.address(&["predictions", id, "cancel"])),
};

/// Replicate's names of what is set in a spec.
const OWN: [&str; 8] =
    ["prompt", "image", "negative_prompt", "aspect_ratio", "output_format", "cfg", "prompt_strength", "seed"];

/// What it takes as `cfg`.
const GUIDANCE: std::ops::RangeInclusive<f32> = 1.0..=10.0;

/// A request in Replicate's words, but for the seed. No `..`: what is added to a spec must be sent or refused.
async fn input(request: Request) -> Result<Map<String, Value>, Error> {
    let mut input = Map::new();
    let (model, prompt, options) = match request {
        Request::Generate(GenerateSpec { model, prompt, options }) => {
            provider::refuse("replicate", &[("strength", options.sampling.strength.is_some())])?;
            (model, prompt, options)
        }
        Request::Edit(EditSpec { model, images, mask, prompt, options }) => {
            let prompt = prompt.ok_or_else(|| {
                let message = "replicate does not edit without a prompt; say how the image is to change";
                Error::new(ErrorKind::Unsupported, message).with_parameter("prompt")
            })?;
            // The shape is that of the image.
            let shape = [("size", options.size.is_some()), ("aspect_ratio", options.aspect_ratio.is_some())];
            provider::refuse("replicate", &[("mask", mask.is_some())])?;
            provider::refuse("replicate", &shape)?;
            input.insert("image".to_owned(), data_uri(&images).await?.into());
            (model, prompt, options)
        }
    };
    provider::check_model("replicate", &model, &options)?;
    let Options {
        provider: _,
        size,
        aspect_ratio,
        resolution,
        response_format: _,
        output_format,
        output_compression,
        n: _,
        user,
        sampling,
        extra,
    } = options;
    let Sampling { seed: _, steps, guidance, negative_prompt, strength, skip_layer_guidance } = sampling;
    provider::refuse(
        "replicate",
        &[
            ("size", matches!(size, Some(Size::Pixels { .. }))),
            ("guidance", guidance.is_some_and(|guidance| !GUIDANCE.contains(&guidance))),
            ("resolution", resolution.is_some()),
            ("output_compression", output_compression.is_some()),
            ("user", user.is_some()),
            ("steps", steps.is_some()),
            ("skip_layer_guidance", skip_layer_guidance.is_some()),
        ],
    )?;
    let ratio = match size {
        Some(Size::Ratio(ratio)) => Some(ratio),
        _ => aspect_ratio,
    };
    let format = match output_format {
        None => None,
        Some(OutputFormat::Webp) => Some("webp"),
        Some(OutputFormat::Jpeg) => Some("jpg"),
        Some(OutputFormat::Png) => Some("png"),
        Some(_) => return Err(provider::unsupported("replicate", "output_format", "it writes WebP, JPEG and PNG")),
    };
    let decimal = |name, value: Option<f32>| value.map(|value| fields::decimal(name, value)).transpose();
    let mut set = |name: &str, value: Option<Value>| input.extend(value.map(|value| (name.to_owned(), value)));
    set("prompt", Some(prompt.into()));
    set("negative_prompt", negative_prompt.map(Into::into));
    set("aspect_ratio", ratio.map(|ratio| ratio.to_string().into()));
    set("output_format", format.map(Into::into));
    set("cfg", decimal("guidance", guidance)?.map(Into::into));
    set("prompt_strength", decimal("strength", strength)?.map(Into::into));
    provider::add_extra(&mut input, extra, &OWN)?;
    Ok(input)
}

/// The one image, inside the request.
async fn data_uri(images: &[Input]) -> Result<String, Error> {
    match images {
        [image] => {
            let bytes = image.read().await?;
            let kind = OutputFormat::of(&bytes).map_or("application/octet-stream", OutputFormat::media_type);
            Ok(format!("data:{kind};base64,{}", base64_simd::STANDARD.encode_to_string(&bytes)))
        }
        [] => Err(Error::new(ErrorKind::InvalidRequest, "an edit needs an image").with_parameter("image")),
        _ => Err(provider::unsupported("replicate", "image", "it takes one image at a time")),
    }
}

fn step(prediction: &Value, secrets: &Secrets) -> Result<Step<Vec<String>>, Error> {
    match prediction.get("status").and_then(Value::as_str) {
        Some("succeeded") => {
            let addresses: Vec<_> = match prediction.get("output") {
                Some(Value::String(url)) => vec![url.clone()],
                Some(Value::Array(urls)) => urls.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
                _ => Vec::new(),
            };
            if addresses.is_empty() {
                let message = "the prediction succeeded without an image";
                return Err(Error::new(ErrorKind::InvalidResponse, message).with_maybe_billed(true));
            }
            Ok(Step::Done(addresses))
        }
        Some(status @ ("failed" | "canceled" | "aborted")) => {
            let why = prediction.get("error").and_then(Value::as_str).unwrap_or("no reason was given");
            let message = format!("the prediction {status}: {}", clean::message(why, secrets));
            Err(Error::new(ErrorKind::Upstream, message).with_maybe_billed(true))
        }
        Some("processing") => Ok(Step::Going(Progress::Running)),
        _ => Ok(Step::Going(Progress::Queued { position: None })),
    }
}

impl Backend for ReplicateBackend {
    fn name(&self) -> &str {
        "replicate"
    }

    fn identity(&self) -> String {
        self.transport.identity("replicate")
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            generate: true,
            edit: true,
            estimate: true,
            addresses: true,
            output_formats: vec![OutputFormat::Webp, OutputFormat::Jpeg, OutputFormat::Png],
            ..Capabilities::none()
        }
    }

    fn generate<'a>(&'a self, spec: GenerateSpec, context: RequestContext) -> BoxFuture<'a, Result<Output, Error>> {
        Box::pin(self.run(Request::Generate(spec), context))
    }

    fn edit<'a>(&'a self, spec: EditSpec, context: RequestContext) -> BoxFuture<'a, Result<Output, Error>> {
        Box::pin(self.run(Request::Edit(spec), context))
    }

    /// By the published price an image, without asking.
    fn estimate<'a>(&'a self, request: Request, _: RequestContext) -> BoxFuture<'a, Result<Estimate, Error>> {
        Box::pin(async move {
            // Its price is for an image, whatever the size.
            let total = provider::price("replicate", request.options().n, 1.0)?;
            input(request).await?;
            Ok(Estimate { provider: Some("replicate".into()), model: Some(MODEL.into()), ..Estimate::new(total) })
        })
    }

    fn fetch<'a>(&'a self, address: &'a str) -> BoxFuture<'a, Result<ByteStream, Error>> {
        Box::pin(download::fetch(&self.transport, address))
    }
}

impl fmt::Debug for ReplicateBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplicateBackend")
            .field("base_url", &clean::address(&self.transport.base))
            .finish_non_exhaustive()
    }
}
