//! Replicate without the gateway: one prediction for each image.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future;
use reqwest::Method;
use reqwest::header::HeaderMap;
use serde_json::{Map, Value, json};

use super::job::{self, JobApi, State, Submitted, Turns};
use super::provider::provider_builder;
use super::requested::Requested;
use super::{fields, provider};
use crate::backend::{
    Backend, BoxFuture, ByteStream, Capabilities, Content, EditSpec, Estimate, GenerateSpec, ImageData, Metadata,
    Output, Parameter, Progress, Request, RequestContext, ServiceMetadata, fetch,
};
use crate::error::{Bills, Error, ErrorKind};
use crate::remote::http::download;
use crate::remote::http::settings::{Service, Settings, settings_methods};
use crate::remote::http::transport::{Time, Transport};
use crate::remote::response::failure::Failure;
use crate::remote::secrets::Secrets;
use crate::values::{Input, OutputFormat, ResponseFormat, Size};
use tokio::time::Instant;

/// Replicate's id of the model.
const MODEL: &str = "stability-ai/stable-diffusion-3.5-medium";

const NAME: &str = "replicate";
const SERVICE: Service =
    Service { base_url: "https://api.replicate.com/v1", key_variable: "REPLICATE_API_TOKEN", scheme: "Bearer" };

/// A backend for Stable Diffusion 3.5 Medium at Replicate: text to image, and image to image.
///
/// Each image is a prediction, which is submitted and polled until it has ended. It is submitted again only if the failed
/// submission cannot have been executed. Dropping the future cancels the active predictions. If some predictions of a
/// request fail, the images of the others are returned with a warning. Parameters that Replicate does not support are
/// rejected by name.
///
/// ```no_run
/// use lumenfall::Client;
/// use lumenfall::remote::Replicate;
///
/// let client = Client::new(Replicate::from_env()?); // REPLICATE_API_TOKEN
/// # Ok::<(), lumenfall::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Replicate {
    transport: Arc<Transport>,
    poll_interval: Duration,
}

provider_builder!(Replicate, ReplicateBuilder, "https://api.replicate.com/v1", "REPLICATE_API_TOKEN");

impl Replicate {
    async fn run(&self, request: Request, context: RequestContext) -> Result<Output, Error> {
        context.check_deadline()?;
        let this = self.for_call(&context)?;
        let Time { started, deadline } = this.transport.start(context.deadline.map(Into::into));
        let options = request.options();
        let requested = Requested::of(options);
        let (response_format, n, seed) = (options.response_format, options.n.unwrap_or(1), options.sampling.seed);
        let parameters = options.of_images();
        let input = input(request).await?;

        let turns = Turns::default();
        let predictions = (0..n).map(|i| {
            // Image i of a request uses seed + i, as with every backend.
            let seed = seed.map(|seed| seed.wrapping_add(u64::from(i)));
            this.predict(input.clone(), seed, deadline, &context, &turns)
        });
        let mut images = Vec::new();
        let mut fields = Vec::new();
        let mut failures = Vec::new();
        let mut bills = Bills::default();
        let (mut succeeded, mut attempts) = (0, 0);
        let mut id = None;
        for prediction in future::join_all(predictions).await {
            match prediction {
                Ok((predicted, submitted)) => {
                    images.extend(predicted.images);
                    fields.push(predicted.fields);
                    bills.attempts = bills.attempts.saturating_add(submitted.lost_bills);
                    attempts = attempts.max(submitted.attempts);
                    id = Some(submitted.shown_id);
                    succeeded += 1;
                }
                Err(error) => {
                    bills.add(error.bills());
                    failures.push(error);
                }
            }
        }
        // One bill for each image of the request counts as one bill for the request, which is not lost if images arrived.
        let all = bills.attempts.saturating_add(succeeded).div_ceil(n.max(1));
        bills.attempts = all.saturating_sub(succeeded.min(1));
        if images.is_empty() {
            let first = failures.into_iter().next();
            let none = || Error::new(ErrorKind::InvalidResponse, "the responses of replicate contain no image");
            return Err(first.unwrap_or_else(none).with_bills(bills));
        }
        let metadata = Metadata {
            backend: NAME.into(),
            provider: Some(NAME.into()),
            model: Some(MODEL.into()),
            parameters: Some(parameters),
            lost_bills: bills.attempts,
            attempts,
            // Several predictions have no common id.
            request_id: id.filter(|_| n == 1),
            elapsed: started.elapsed(),
            service: ServiceMetadata(match fields.pop() {
                Some(fields) if n == 1 => fields,
                last => {
                    fields.extend(last);
                    Map::from_iter([("predictions".to_owned(), fields.into())])
                }
            }),
            warnings: failures.iter().map(|error| format!("one of the {n} images failed: {error}")).collect(),
            ..Metadata::default()
        };
        let output = Output::new(images, metadata);
        let mut output = match response_format {
            Some(ResponseFormat::B64Json) => fetch::all(&*this, output, Some(deadline.into()))
                .await
                .map_err(|error| error.with_attempts(attempts, started.elapsed()))?,
            _ => output,
        };
        requested.compare(&mut output);
        Ok(output)
    }

    async fn predict(
        &self,
        mut input: Map<String, Value>,
        seed: Option<u64>,
        deadline: Instant,
        context: &RequestContext,
        turns: &Turns,
    ) -> Result<(Predicted, Submitted), Error> {
        input.extend(seed.map(|seed| ("seed".to_owned(), seed.into())));
        let path: Vec<_> = ["models"].into_iter().chain(MODEL.split('/')).chain(["predictions"]).collect();
        let time = self.transport.start(Some(deadline));
        let input = json!({ "input": input });
        let (job, submitted) =
            job::submit(&self.transport, &JOBS, self.transport.url(&path), &input, time, context, turns).await?;
        let secrets = &self.transport.secrets;
        let ended = job.wait(self.poll_interval, deadline, context, |prediction| state(prediction, secrets)).await;
        let ended = ended.map_err(|error| submitted.complete(error))?;
        let mut predicted = ended.map_err(|Aborted(error)| submitted.complete_unbilled(error))?;
        predicted.images.iter_mut().for_each(|image| image.seed = seed);
        Ok((predicted, submitted))
    }
}

const JOBS: JobApi = JobApi {
    id: "id",
    status: |transport, id| transport.url(&["predictions", id]),
    cancel: |transport, id| (Method::POST, transport.url(&["predictions", id, "cancel"])),
};

/// Replicate's names of the parameters with a typed setter.
const TYPED: [&str; 8] =
    ["prompt", "image", "negative_prompt", "aspect_ratio", "output_format", "cfg", "prompt_strength", "seed"];

/// The range of `cfg`.
const GUIDANCE: std::ops::RangeInclusive<f32> = 1.0..=10.0;

/// Translates a request into Replicate's parameters, except the seed, which differs for each image.
async fn input(request: Request) -> Result<Map<String, Value>, Error> {
    provider::check(NAME, &request)?;
    let mut input = Map::new();
    let (prompt, options, is_edit) = match request {
        Request::Generate(GenerateSpec { model: _, prompt, options }) => (prompt, options, false),
        Request::Edit(EditSpec { model: _, images, mask, prompt, options }) => {
            let prompt = prompt.ok_or_else(|| {
                let message = "replicate does not edit without a prompt; describe the change";
                Error::new(ErrorKind::Unsupported, message).with_parameter("prompt")
            })?;
            if mask.is_some() {
                return Err(provider::refused(NAME, "mask"));
            }
            input.insert("image".to_owned(), data_url(&images).await?.into());
            (prompt, options, true)
        }
    };
    input.insert("prompt".to_owned(), prompt.into());
    for Parameter { name, wire_name, value } in options.parameters() {
        let (replicate_name, value) = match name {
            // The images are downloaded if bytes were requested. Each image is a prediction, with its own seed.
            "response_format" | "n" | "seed" => continue,
            // The aspect ratio of an edit is that of its image.
            "aspect_ratio" if !is_edit => ("aspect_ratio", value),
            "size" if !is_edit && matches!(options.size, Some(Size::Ratio(_))) => ("aspect_ratio", value),
            "output_format" => match options.output_format {
                Some(OutputFormat::Jpeg) => (wire_name, "jpg".into()),
                Some(OutputFormat::Webp | OutputFormat::Png) => (wire_name, value),
                _ => return Err(provider::unsupported(NAME, name, "it supports WebP, JPEG and PNG")),
            },
            "guidance" if options.sampling.guidance.is_some_and(|guidance| GUIDANCE.contains(&guidance)) => {
                ("cfg", value)
            }
            "negative_prompt" => (wire_name, value),
            "strength" => ("prompt_strength", fields::finite(name, value)?),
            _ => return Err(provider::refused(NAME, name)),
        };
        input.insert(replicate_name.to_owned(), value);
    }
    provider::add_extra(&mut input, options.extra, &TYPED)?;
    Ok(input)
}

/// Encodes the image as a data URL.
async fn data_url(images: &[Input]) -> Result<String, Error> {
    match images {
        [image] => {
            let bytes = image.read().await?;
            let kind = OutputFormat::of(&bytes).map_or("application/octet-stream", OutputFormat::media_type);
            Ok(format!("data:{kind};base64,{}", base64_simd::STANDARD.encode_to_string(&bytes)))
        }
        [] => Err(Error::new(ErrorKind::InvalidRequest, "an edit needs an image; provide one").with_parameter("image")),
        _ => Err(provider::unsupported(NAME, "image", "it edits one image at a time")),
    }
}

/// The result of a prediction.
struct Predicted {
    images: Vec<ImageData>,
    /// The other fields of the response.
    fields: Map<String, Value>,
}

/// The error of a prediction that ended before it started. It is not billed.
struct Aborted(Error);

/// Fields of a prediction that are not kept: the request, which can contain an image, and what is read.
const CONSUMED: [&str; 4] = ["input", "output", "urls", "logs"];

fn state(mut prediction: Value, secrets: &Secrets) -> Result<State<Result<Predicted, Aborted>>, Error> {
    let status = prediction.get("status").and_then(Value::as_str).unwrap_or_default().to_owned();
    match &*status {
        "succeeded" => {
            let urls = match prediction.get("output") {
                Some(url @ Value::String(_)) => std::slice::from_ref(url),
                Some(Value::Array(urls)) => urls.as_slice(),
                _ => &[],
            };
            let urls = urls.iter().filter_map(Value::as_str);
            let images: Vec<_> = urls.map(|url| ImageData::new(Content::Url(url.to_owned()))).collect();
            if images.is_empty() {
                let problem = "the prediction succeeded without an image";
                return Err(Failure::no_image(problem, &prediction, secrets).error);
            }
            let mut fields = prediction.as_object_mut().map(std::mem::take).unwrap_or_default();
            fields.retain(|name, _| !CONSUMED.contains(&name.as_str()));
            Ok(State::Done(Ok(Predicted { images, fields })))
        }
        "aborted" => Ok(State::Done(Err(Aborted(job::failed(&prediction, &status, secrets))))),
        "failed" | "canceled" => Err(job::failed(&prediction, &status, secrets)),
        "processing" => Ok(State::Active(Progress::Running)),
        _ => Ok(State::Active(Progress::Queued { position: None })),
    }
}

impl Backend for Replicate {
    fn name(&self) -> &str {
        NAME
    }

    fn identity(&self) -> String {
        self.transport.identity(NAME)
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            generate: true,
            edit: true,
            estimate: true,
            urls: true,
            output_formats: vec![OutputFormat::Webp, OutputFormat::Jpeg, OutputFormat::Png],
            max_input_images: Some(1),
            controls: vec!["seed", "guidance", "negative_prompt", "strength"],
            models: Some(vec![crate::generated::stable_diffusion_3_5_medium::SCHEMA.id.to_owned()]),
            ..Capabilities::none()
        }
    }

    fn send<'a>(&'a self, request: Request, context: RequestContext) -> BoxFuture<'a, Result<Output, Error>> {
        Box::pin(self.run(request, context))
    }

    /// Computes the cost from the published price per image, without a request.
    fn estimate<'a>(&'a self, request: Request, _: RequestContext) -> BoxFuture<'a, Result<Estimate, Error>> {
        Box::pin(async move {
            // The price of an image does not depend on its size.
            let total = provider::price(NAME, request.options().n, 1.0)?;
            input(request).await?;
            Ok(Estimate { provider: Some(NAME.into()), model: Some(MODEL.into()), ..Estimate::new(total) })
        })
    }

    fn fetch<'a>(&'a self, url: &'a str) -> BoxFuture<'a, Result<ByteStream, Error>> {
        Box::pin(download::fetch(&self.transport, url))
    }
}
