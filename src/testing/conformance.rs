//! What every backend must do.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use futures_util::{FutureExt, future};

use super::pixel::{FORMATS, PIXEL};
use crate::backend::{self, Backend, Content, EditSpec, GenerateSpec, Output, Progress, Request, RequestContext};
use crate::error::{Error, ErrorKind};
use crate::generated;
use crate::images::typed::Spec;
use crate::images::{Input, OutputFormat, ResponseFormat, Sampling, SkipLayerGuidance, fetch};

/// Asks a backend everything that the trait promises, and tells each promise that it breaks.
///
/// `generate` and `edit` are requests that the backend can do, as small and cheap as may be; the suite sends
/// each about 25 times, with other options. What the backend's [`capabilities`](Backend::capabilities) rule
/// out must be refused, and so must be each control of [`Sampling`] and each provider of the model that the backend
/// cannot honour: as [`ErrorKind::Unsupported`], with the parameter's name. Progress need not be told, but what is told
/// must be in order.
///
/// ```
/// use lumenfall::Input;
/// use lumenfall::backend::{EditSpec, GenerateSpec};
/// use lumenfall::testing::{MockBackend, PIXEL, conformance};
///
/// # #[tokio::main]
/// # async fn main() {
/// let model = "stable-diffusion-3.5-medium";
/// let generate = GenerateSpec::new(model, "a lighthouse");
/// let edit = EditSpec::new(model, Input::bytes(PIXEL));
/// assert_eq!(conformance(&MockBackend::new(), generate, edit).await, Vec::<String>::new());
/// # }
/// ```
pub async fn conformance(backend: &dyn Backend, generate: GenerateSpec, edit: EditSpec) -> Vec<String> {
    let mut suite = Suite { backend, broken: Vec::new() };
    suite.check(!backend.name().is_empty(), "it has a name");
    suite.check(backend.capabilities() == backend.capabilities(), "its capabilities are the same each time");
    let identity = backend.identity();
    let can = backend.capabilities();
    for (mode, can, request) in
        [("generate", can.generate, Request::Generate(generate)), ("edit", can.edit, Request::Edit(edit.clone()))]
    {
        if can {
            suite.images(mode, &request).await;
            suite.counts(mode, &request).await;
            suite.formats(mode, &request).await;
            suite.sampling(mode, &request).await;
            suite.providers(mode, &request).await;
            suite.progress(mode, &request).await;
            suite.deadline(mode, &request).await;
            suite.at_once(mode, &request).await;
        } else {
            let refusal = suite.send(&request).await.err();
            suite.check_kind(refusal, ErrorKind::Unsupported, &format!("{mode}: what it cannot do is refused"));
        }
        suite.estimate(mode, &request).await;
    }
    if can.edit {
        let nothing = Request::Edit(EditSpec { images: Vec::new(), ..edit.clone() });
        let refusal = suite.send(&nothing).await.err();
        suite.check_kind(refusal, ErrorKind::InvalidRequest, "edit: no image is refused");
    }
    if can.edit && !can.mask {
        let masked = Request::Edit(EditSpec { mask: Some(Input::bytes(PIXEL)), ..edit });
        let refusal = suite.send(&masked).await.err();
        suite.check_refusal(refusal, "mask", "edit: the mask that it cannot use is refused");
    }
    if !can.addresses {
        let refusal = backend.fetch("http://127.0.0.1:9/image.png").await.err();
        suite.check_kind(refusal, ErrorKind::Unsupported, "an address is refused where it has none");
    }
    suite.check(backend.identity() == identity, "its identity is the same each time");
    suite.broken
}

struct Suite<'a> {
    backend: &'a dyn Backend,
    broken: Vec<String>,
}

impl Suite<'_> {
    fn check(&mut self, holds: bool, promise: &str) {
        if !holds {
            self.broken.push(promise.to_owned());
        }
    }

    fn check_kind(&mut self, error: Option<Error>, kind: ErrorKind, promise: &str) {
        match error {
            Some(error) if error.kind() == kind && !error.maybe_billed() => {}
            Some(error) => self.broken.push(format!("{promise}: {error:?}")),
            None => self.broken.push(format!("{promise}: it succeeded")),
        }
    }

    /// That something is refused because the backend cannot do it, and by its name.
    fn check_refusal(&mut self, error: Option<Error>, parameter: &str, promise: &str) {
        let named = error.as_ref().is_none_or(|error| error.parameter() == Some(parameter));
        self.check(named, &format!("{promise}: by the name `{parameter}`: {error:?}"));
        self.check_kind(error, ErrorKind::Unsupported, promise);
    }

    /// What is there if it works; where it does not, it must be refused by its name.
    fn works(&mut self, parameter: &str, promise: &str, result: Result<Output, Error>) -> Option<Output> {
        let refusal = result.map_err(|error| self.check_refusal(Some(error), parameter, promise));
        refusal.ok()
    }

    async fn send(&self, request: &Request) -> Result<Output, Error> {
        request.clone().send(self.backend, RequestContext::default()).await
    }

    /// The images' bytes, wherever they are.
    async fn bytes(&mut self, promise: &str, output: Result<Output, Error>) -> Option<Output> {
        let fetched = match output {
            Ok(output) => fetch::all(self.backend, output, None).await,
            Err(error) => Err(error),
        };
        fetched.map_err(|error| self.broken.push(format!("{promise}: {error:?}"))).ok()
    }

    async fn images(&mut self, mode: &str, request: &Request) {
        for asked in [None, Some(ResponseFormat::B64Json), Some(ResponseFormat::Url)] {
            let promise = format!("{mode}: images, asked for as {asked:?}");
            let mut request = request.clone();
            request.options_mut().response_format = asked;
            let output = self.send(&request).await;
            let in_answer = asked == Some(ResponseFormat::B64Json) || !self.backend.capabilities().addresses;
            if let (Ok(output), true) = (&output, in_answer) {
                let inline = output.images.iter().all(|image| matches!(image.content, Content::Bytes(_)));
                self.check(inline, &format!("{promise}: are bytes"));
            }
            let Some(output) = self.bytes(&promise, output).await else { continue };
            self.check(!output.images.is_empty(), &format!("{promise}: there is one"));
            self.check(output.images.iter().all(known), &format!("{promise}: are of a known format"));
            self.check(!output.metadata.backend.is_empty(), &format!("{promise}: metadata names the backend"));
        }
    }

    async fn counts(&mut self, mode: &str, request: &Request) {
        let mut request = request.clone();
        request.options_mut().n = Some(2);
        let output = self.send(&request).await;
        let promise = format!("{mode}: n = 2 makes 2 images");
        match output {
            Ok(output) => self.check(output.images.len() == 2, &promise),
            Err(error) => {
                self.check(error.parameter() == Some("n"), &format!("{promise}, or is refused by name: {error:?}"))
            }
        }
    }

    async fn formats(&mut self, mode: &str, request: &Request) {
        let can = self.backend.capabilities().output_formats;
        for format in FORMATS {
            let promise = format!("{mode}: output_format {format:?}");
            let mut request = request.clone();
            request.options_mut().output_format = Some(format);
            let output = self.send(&request).await;
            if !can.contains(&format) {
                let refusal = output.err();
                self.check_kind(refusal, ErrorKind::Unsupported, &format!("{promise}: is refused"));
            } else if let Some(output) = self.bytes(&promise, output).await {
                let written = output.images.iter().all(|image| format_of(image) == Some(format));
                self.check(written, &format!("{promise}: is what comes"));
            }
        }
    }

    async fn sampling(&mut self, mode: &str, request: &Request) {
        self.control(mode, request, "guidance", |sampling| sampling.guidance = Some(3.0)).await;
        self.control(mode, request, "negative_prompt", |sampling| sampling.negative_prompt = Some("rain".into())).await;
        let skip = |sampling: &mut Sampling| sampling.skip_layer_guidance = Some(SkipLayerGuidance::default());
        self.control(mode, request, "skip_layer_guidance", skip).await;
        if let Some(output) = self.control(mode, request, "seed", |sampling| sampling.seed = Some(7)).await {
            let same = (7..).zip(&output.images).all(|(seed, image)| image.seed.is_none_or(|told| told == seed));
            self.check(same, &format!("{mode}: the seeds that are told follow from the one asked for"));
        }
        if let Some(output) = self.control(mode, request, "steps", |sampling| sampling.steps = Some(2)).await {
            // An edit leaves those out that its strength spares.
            let kept = output.metadata.steps.is_none_or(|told| told <= 2);
            self.check(kept, &format!("{mode}: no more steps are told than were asked for"));
        }
        self.strength(mode, request).await;
    }

    /// The answer to the request with one more control, which works or is refused.
    async fn control(
        &mut self,
        mode: &str,
        request: &Request,
        name: &str,
        set: impl FnOnce(&mut Sampling),
    ) -> Option<Output> {
        let mut request = request.clone();
        set(&mut request.options_mut().sampling);
        let result = self.send(&request).await;
        self.works(name, &format!("{mode}: {name} works or is refused"), result)
    }

    async fn strength(&mut self, mode: &str, request: &Request) {
        let half = |sampling: &mut Sampling| sampling.strength = Some(0.5);
        if let Request::Edit(_) = request {
            self.control(mode, request, "strength", half).await;
            return;
        }
        let mut request = request.clone();
        half(&mut request.options_mut().sampling);
        let result = self.send(&request).await;
        let refused = result.as_ref().is_err_and(|error| error.parameter() == Some("strength"));
        self.check(refused, &format!("{mode}: strength, which is an edit's, is refused by name: {result:?}"));
    }

    async fn providers(&mut self, mode: &str, request: &Request) {
        for provider in providers(request) {
            let mut request = request.clone();
            request.options_mut().provider = Some(provider.into());
            let result = self.send(&request).await;
            let promise = format!("{mode}: the provider {provider} can be pinned or is refused");
            if let Some(output) = self.works("provider", &promise, result) {
                let told = output.metadata.provider;
                let kept = told.as_deref().is_none_or(|told| told == provider);
                self.check(kept, &format!("{mode}: the provider {provider} was pinned, but {told:?} is told"));
            }
        }
    }

    async fn progress(&mut self, mode: &str, request: &Request) {
        let told = Arc::new(Mutex::new(Vec::new()));
        let keep = Arc::clone(&told);
        let progress = move |progress| keep.lock().unwrap_or_else(PoisonError::into_inner).push(progress);
        let context = RequestContext { progress: Some(Arc::new(progress)), ..RequestContext::default() };
        match request.clone().send(self.backend, context).await {
            Ok(output) => {
                let told = told.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let ordered = in_order(&told, output.images.len());
                self.check(ordered, &format!("{mode}: progress is told in order: {told:?}"));
            }
            Err(error) => self.broken.push(format!("{mode}: a request whose progress is told succeeds: {error:?}")),
        }
    }

    async fn deadline(&mut self, mode: &str, request: &Request) {
        let context = RequestContext { deadline: Some(Instant::now()), ..RequestContext::default() };
        let refusal = request.clone().send(self.backend, context).await.err();
        self.check_kind(refusal, ErrorKind::Timeout, &format!("{mode}: a deadline that has passed is kept"));
    }

    async fn at_once(&mut self, mode: &str, request: &Request) {
        let three = future::join3(self.send(request), self.send(request), self.send(request));
        let (first, second, third) = three.await;
        let all = first.is_ok() && second.is_ok() && third.is_ok();
        self.check(all, &format!("{mode}: three at once all succeed"));
        // A call that is given up must not spoil the next.
        drop(self.send(request).now_or_never());
        let after = self.send(request).await;
        self.check(after.is_ok(), &format!("{mode}: a call after one that was dropped succeeds"));
    }

    async fn estimate(&mut self, mode: &str, request: &Request) {
        let estimate = self.backend.estimate(request.clone(), RequestContext::default()).await;
        match (self.backend.capabilities().estimate, estimate) {
            (true, Ok(estimate)) => {
                self.check(estimate.total.amount >= 0.0, &format!("{mode}: an estimate is no less than nothing"));
                self.check(!estimate.total.currency.is_empty(), &format!("{mode}: an estimate has a currency"));
            }
            // A mode that it cannot do has no price.
            (_, Err(error)) if error.kind() == ErrorKind::Unsupported => {}
            (can, estimate) => self.broken.push(format!("{mode}: estimate (possible: {can}) gave {estimate:?}")),
        }
    }
}

/// The providers that run what the request asks for, as far as the model is known.
fn providers(request: &Request) -> Vec<&'static str> {
    let (model, mode) = match request {
        Request::Generate(spec) => (spec.model(), spec.mode()),
        Request::Edit(spec) => (spec.model(), spec.mode()),
    };
    let all = generated::schema(model).map_or(&[][..], |schema| schema.providers);
    all.iter().filter(|provider| provider.modes.contains(&mode)).map(|provider| provider.slug).collect()
}

fn in_order(told: &[Progress], images: usize) -> bool {
    let mut all = told.iter().enumerate();
    all.all(|(index, progress)| follows(told.get(..index).unwrap_or_default(), progress, images))
}

/// Whether `progress` can come after what was told `before`, in the making of so many images.
fn follows(before: &[Progress], progress: &Progress, images: usize) -> bool {
    let decoded = |wanted| before.iter().any(|told| matches!(told, Progress::Decoding { image } if *image == wanted));
    let made = |image: u32| (image as usize) < images && !decoded(image);
    match progress {
        Progress::Step { image, step, steps } => {
            let last = before.iter().rev().find_map(|told| match told {
                Progress::Step { image: of, step, steps } if of == image => Some((*step, *steps)),
                _ => None,
            });
            made(*image) && (1..=*steps).contains(step) && last.is_none_or(|(last, all)| last < *step && all == *steps)
        }
        Progress::Decoding { image } => made(*image),
        Progress::Loading | Progress::EncodingPrompt => {
            !before.iter().any(|told| matches!(told, Progress::Step { .. } | Progress::Decoding { .. }))
        }
        // A provider may put a request back into its queue.
        Progress::Queued { .. } | Progress::Running => true,
    }
}

fn known(image: &backend::ImageData) -> bool {
    format_of(image).is_some()
}

fn format_of(image: &backend::ImageData) -> Option<OutputFormat> {
    match &image.content {
        Content::Bytes(bytes) => OutputFormat::of(bytes),
        Content::Address(_) | Content::Unfetched(_) => None,
    }
}
