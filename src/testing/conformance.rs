//! The conformance suite for backends.

use std::collections::{HashMap, HashSet};
use std::fmt::{Debug, Display};
use std::sync::{Arc, mpsc};

use futures_util::{FutureExt, future};
use tokio::time::Instant;

use super::pixel::PIXEL;
use crate::backend::{
    Backend, Capabilities, Content, EditSpec, GenerateSpec, ImageData, Options, Output, Progress, Request,
    RequestContext, fetch,
};
use crate::error::{Error, ErrorKind};
use crate::generated;
use crate::images::typed::Mode;
use crate::images::{Input, OutputFormat, ResponseFormat, SkipLayerGuidance};

/// Checks whether a backend keeps the promises of [`Backend`], and returns a description of each broken promise.
///
/// `generate` and `edit` are requests that the backend can execute; choose small and cheap ones. The suite sends each
/// of them about 25 times with different options. Without an `edit`, it edits the image [`PIXEL`] with the model, prompt and
/// options of `generate`. A request of a mode that the backend does not support is sent once and must be rejected.
///
/// A backend must reject whatever its [`capabilities`](Backend::capabilities) exclude. For each control of
/// [`Sampling`](crate::Sampling) and each provider of the model, it must either honor the value or reject it with
/// [`ErrorKind::Unsupported`] and name the parameter. It must reject an `n` of 0 and a generation with a blank prompt, for
/// example with [`GenerateSpec::validate`]. A layer that adds text to each prompt must check the prompt first. A backend need
/// not report progress, but reports must be in order.
///
/// ```
/// use lumenfall::backend::GenerateSpec;
/// use lumenfall::testing::{MockBackend, conformance};
///
/// # #[tokio::main]
/// # async fn main() {
/// let generate = GenerateSpec::new("stable-diffusion-3.5-medium", "a lighthouse");
/// assert_eq!(conformance(&MockBackend::new(), generate, None).await, Vec::<String>::new());
/// # }
/// ```
pub async fn conformance(
    backend: &dyn Backend,
    generate: GenerateSpec,
    edit: impl Into<Option<EditSpec>>,
) -> Vec<String> {
    let edit = edit.into().unwrap_or_else(|| {
        let GenerateSpec { model, prompt, options } = generate.clone();
        EditSpec { prompt: Some(prompt), options, ..EditSpec::new(model, Input::bytes(PIXEL)) }
    });
    let (can, identity, broken) = (backend.capabilities(), backend.identity(), Vec::new());
    let mut suite = Suite { backend, can, subject: "generate", request: Request::Generate(generate), broken };
    suite.mode(suite.can.generate).await;
    (suite.subject, suite.request) = ("edit", Request::Edit(edit));
    suite.mode(suite.can.edit).await;
    suite.subject = "backend";
    let (name, can_now, identity_now) = (backend.name(), backend.capabilities(), backend.identity());
    suite.expect(!name.is_empty(), "returns a name that is not empty", &name);
    suite.expect(can_now == suite.can, "returns the same capabilities each time", &can_now);
    suite.expect(identity_now == identity, "returns the same identity each time", &identity_now);
    if !suite.can.urls {
        let result = backend.fetch("http://127.0.0.1:9/image.png").await.map(drop);
        suite.rejects(&result, ErrorKind::Unsupported, None, "the URL of an image");
    }
    suite.broken
}

struct Suite<'a> {
    backend: &'a dyn Backend,
    can: Capabilities,
    /// The subject of the promises that are checked: `generate`, `edit` or `backend`.
    subject: &'static str,
    /// The request that the checks of a mode send, each with other options.
    request: Request,
    broken: Vec<String>,
}

impl Suite<'_> {
    /// Records the promise as broken unless `kept` is true. `found` is the value that shows whether it was kept.
    fn expect(&mut self, kept: bool, promise: impl Display, found: &dyn Debug) {
        if !kept {
            self.broken.push(format!("{}: {promise}; found {found:?}", self.subject));
        }
    }

    /// Expects an error of this kind that was not billed and, if one is given, names the parameter.
    fn rejects<T: Debug>(&mut self, result: &Result<T, Error>, kind: ErrorKind, parameter: Option<&str>, input: &str) {
        let kept = result.as_ref().is_err_and(|error| {
            error.kind() == kind && !error.maybe_billed() && (parameter.is_none() || error.parameter() == parameter)
        });
        let naming = parameter.map(|name| format!(", with the parameter `{name}`")).unwrap_or_default();
        let promise = format!("rejects {input} with ErrorKind::{kind:?}{naming} and without a possible bill");
        self.expect(kept, promise, result);
    }

    /// Downloads the images of the result, and expects each of them in a file format that is `valid`.
    async fn returns(&mut self, result: Result<Output, Error>, valid: impl Fn(OutputFormat) -> bool, images: &str) {
        let result = match result {
            Ok(output) => fetch::all(self.backend, output, None).await,
            error => error,
        };
        let is_valid = |image: &ImageData| match &image.content {
            Content::Bytes(bytes) => OutputFormat::of(bytes).is_some_and(&valid),
            Content::Url(_) | Content::Unfetched(_) => false,
        };
        let kept = result.as_ref().is_ok_and(|output| !output.images.is_empty() && output.images.iter().all(is_valid));
        self.expect(kept, format!("returns {images}"), &result);
    }

    /// Sends the request of the mode with other options.
    async fn send_with(&self, change: impl FnOnce(&mut Options)) -> Result<Output, Error> {
        let mut request = self.request.clone();
        change(request.options_mut());
        self.backend.send(request, RequestContext::default()).await
    }

    /// Sends the request with a parameter, and expects that it succeeds or that the error names the parameter.
    async fn send_parameter(&mut self, name: &str, set: impl FnOnce(&mut Options)) -> Option<Output> {
        let result = self.send_with(set).await;
        if result.is_err() {
            let input = format!("`{name}`, if it does not support it,");
            self.rejects(&result, ErrorKind::Unsupported, Some(name), &input);
        }
        result.ok()
    }

    /// Checks one mode, which the backend supports or must reject.
    async fn mode(&mut self, supported: bool) {
        let result = self.backend.estimate(self.request.clone(), RequestContext::default()).await;
        let kept = match &result {
            Ok(estimate) => self.can.estimate && estimate.total.micros >= 0 && !estimate.total.currency.is_empty(),
            // A backend with estimates may have none for a mode that it does not support.
            Err(error) => error.kind() == ErrorKind::Unsupported,
        };
        let promise = "returns an estimate with an amount and a currency if it supports estimates, or rejects it with \
                       ErrorKind::Unsupported";
        self.expect(kept, promise, &result);
        if !supported {
            let result = self.send_with(|_| {}).await;
            return self.rejects(&result, ErrorKind::Unsupported, None, "all requests of this mode");
        }
        self.images().await;
        self.rules().await;
        self.sampling().await;
        self.providers().await;
        self.context().await;
        self.concurrency().await;
        if let Request::Edit(edit) = self.request.clone() {
            self.request = Request::Edit(EditSpec { images: Vec::new(), ..edit.clone() });
            let result = self.send_with(|_| {}).await;
            self.rejects(&result, ErrorKind::InvalidRequest, None, "an edit without images");
            if !self.can.mask {
                self.request = Request::Edit(EditSpec { mask: Some(Input::bytes(PIXEL)), ..edit });
                let result = self.send_with(|_| {}).await;
                self.rejects(&result, ErrorKind::Unsupported, Some("mask"), "a mask");
            }
        }
    }

    async fn images(&mut self) {
        for format in [None, Some(ResponseFormat::B64Json), Some(ResponseFormat::Url)] {
            let value = format!("with response_format {format:?}");
            let result = self.send_with(|options| options.response_format = format).await;
            if let Ok(Output { images, metadata }) = &result {
                let inline = format == Some(ResponseFormat::B64Json) || !self.can.urls;
                let are_bytes = images.iter().all(|image| matches!(image.content, Content::Bytes(_)));
                self.expect(!inline || are_bytes, format!("returns bytes {value}"), images);
                self.expect(!metadata.backend.is_empty(), "returns metadata with the name of the backend", metadata);
            }
            self.returns(result, |_| true, &format!("images in a known file format {value}")).await;
        }
        for format in OutputFormat::ALL {
            let value = format!("output_format {format:?}");
            let result = self.send_with(|options| options.output_format = Some(format)).await;
            if self.can.output_formats.contains(&format) {
                self.returns(result, |actual| actual == format, &format!("images in {value}")).await;
            } else {
                self.rejects(&result, ErrorKind::Unsupported, None, &value);
            }
        }
        let result = self.send_with(|options| options.n = Some(2)).await;
        let kept = match &result {
            Ok(output) => output.images.len() == 2,
            Err(error) => error.parameter() == Some("n"),
        };
        self.expect(kept, "returns 2 images for n = 2, or names `n` in the error", &result);
    }

    /// Checks the rules that apply to every model.
    async fn rules(&mut self) {
        let result = self.send_with(|options| options.n = Some(0)).await;
        self.rejects(&result, ErrorKind::InvalidRequest, Some("n"), "`n` of 0");
        if let Request::Generate(spec) = &self.request {
            let mut blank = spec.clone();
            blank.prompt = " \n".into();
            let result = self.backend.send(blank.into(), RequestContext::default()).await;
            self.rejects(&result, ErrorKind::InvalidRequest, Some("prompt"), "a blank prompt");
        }
    }

    async fn sampling(&mut self) {
        let controls: [(_, fn(&mut Options)); 3] = [
            ("guidance", |options| options.sampling.guidance = Some(3.0)),
            ("negative_prompt", |options| options.sampling.negative_prompt = Some("rain".into())),
            ("skip_layer_guidance", |options| {
                options.sampling.skip_layer_guidance = Some(SkipLayerGuidance::default())
            }),
        ];
        for (name, set) in controls {
            self.send_parameter(name, set).await;
        }
        if let Some(output) = self.send_parameter("seed", |options| options.sampling.seed = Some(7)).await {
            let kept = (7..).zip(&output.images).all(|(seed, image)| image.seed.is_none_or(|seen| seen == seed));
            self.expect(kept, "reports the seed of the request, plus 1 for each further image", &output);
        }
        if let Some(output) = self.send_parameter("steps", |options| options.sampling.steps = Some(2)).await {
            // An edit skips the first steps if its strength is less than 1.
            let steps = output.metadata.steps;
            self.expect(steps.is_none_or(|steps| steps <= 2), "reports at most as many steps as requested", &steps);
        }
        let set_strength = |options: &mut Options| options.sampling.strength = Some(0.5);
        if let Request::Edit(_) = self.request {
            self.send_parameter("strength", set_strength).await;
        } else {
            let result = self.send_with(set_strength).await;
            let kept = result.as_ref().is_err_and(|error| error.parameter() == Some("strength"));
            self.expect(kept, "rejects `strength`, a parameter of edits", &result);
        }
    }

    /// Pins each provider that the model's schema lists for this mode.
    async fn providers(&mut self) {
        let (model, mode) = match &self.request {
            Request::Generate(spec) => (&spec.model, Mode::TextToImage),
            Request::Edit(spec) => (&spec.model, Mode::ImageEdit),
        };
        let all = generated::schema(model).map_or(&[][..], |schema| schema.providers);
        for provider in all.iter().filter(|provider| provider.modes.contains(&mode)).map(|provider| provider.slug) {
            let pin = |options: &mut Options| options.provider = Some(provider.into());
            if let Some(output) = self.send_parameter("provider", pin).await {
                let actual = output.metadata.provider;
                let kept = actual.as_deref().is_none_or(|actual| actual == provider);
                self.expect(kept, format!("uses the pinned provider {provider}"), &actual);
            }
        }
    }

    async fn context(&mut self) {
        let (sender, receiver) = mpsc::channel();
        let progress = move |report| sender.send(report).unwrap_or_default();
        let context = RequestContext { progress: Some(Arc::new(progress)), ..RequestContext::default() };
        let result = self.backend.send(self.request.clone(), context).await;
        let reports: Vec<_> = receiver.try_iter().collect();
        let kept = result.as_ref().is_ok_and(|output| is_ordered(&reports, output.images.len()));
        self.expect(kept, "succeeds with a progress callback and reports progress in order", &(reports, result));

        let context = RequestContext { deadline: Some(Instant::now().into_std()), ..RequestContext::default() };
        let result = self.backend.send(self.request.clone(), context).await;
        self.rejects(&result, ErrorKind::Timeout, None, "a request whose deadline has passed");
    }

    async fn concurrency(&mut self) {
        let send = || self.send_with(|_| {});
        let concurrent = future::try_join3(send(), send(), send()).await;
        drop(send().now_or_never());
        let after_drop = send().await;
        self.expect(concurrent.is_ok(), "succeeds for three concurrent requests", &concurrent);
        self.expect(after_drop.is_ok(), "succeeds after another request was dropped", &after_drop);
    }
}

/// Returns whether `reports` are in a valid order for a request that returned this number of images.
fn is_ordered(reports: &[Progress], images: usize) -> bool {
    // The last step of each image, and its number of steps.
    let mut steps_of = HashMap::new();
    let mut decoded = HashSet::new();
    let exists = |image: u32| (image as usize) < images;
    reports.iter().all(|report| match *report {
        Progress::Loading | Progress::EncodingPrompt => steps_of.is_empty() && decoded.is_empty(),
        Progress::Step { image, step, steps, .. } => {
            let last = steps_of.insert(image, (step, steps));
            let is_next = last.is_none_or(|(last, all)| last < step && all == steps);
            exists(image) && !decoded.contains(&image) && (1..=steps).contains(&step) && is_next
        }
        Progress::Decoding { image } => exists(image) && decoded.insert(image),
        // A provider may put a request back into its queue.
        Progress::Queued { .. } | Progress::Running | Progress::Retrying { .. } | Progress::PartialImage { .. } => true,
    })
}
