//! What every backend must do.

use std::time::Instant;

use futures_util::{FutureExt, future};

use super::pixel::FORMATS;
use crate::backend::{self, Backend, Content, EditSpec, GenerateSpec, Output, Request, RequestContext};
use crate::error::{Error, ErrorKind};
use crate::images::{OutputFormat, ResponseFormat, fetch};

/// Asks a backend everything that the trait promises, and tells each promise that it breaks.
///
/// `generate` and `edit` are requests that the backend can do, as small and cheap as may be; the suite sends
/// each about ten times, with other options. What the backend's
/// [`capabilities`](Backend::capabilities) rule out must be refused.
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
    let can = backend.capabilities();
    for (mode, can, request) in
        [("generate", can.generate, Request::Generate(generate)), ("edit", can.edit, Request::Edit(edit.clone()))]
    {
        if can {
            suite.images(mode, &request).await;
            suite.counts(mode, &request).await;
            suite.formats(mode, &request).await;
            suite.sampling(mode, &request).await;
            suite.deadline(mode, &request).await;
            suite.at_once(mode, &request).await;
        } else {
            let refusal = suite.send(&request).await.err();
            suite.check_kind(refusal, ErrorKind::Unsupported, &format!("{mode}: what it cannot do is refused"));
        }
        suite.estimate(mode, &request).await;
    }
    if can.edit {
        let nothing = Request::Edit(EditSpec { images: Vec::new(), ..edit });
        let refusal = suite.send(&nothing).await.err();
        suite.check_kind(refusal, ErrorKind::InvalidRequest, "edit: no image is refused");
    }
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
            if let (Ok(output), Some(ResponseFormat::B64Json)) = (&output, asked) {
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
        let mut request = request.clone();
        request.options_mut().sampling.skip_layer_guidance = Some(crate::SkipLayerGuidance::default());
        if let Err(error) = self.send(&request).await {
            let by_name = error.kind() == ErrorKind::Unsupported && error.parameter() == Some("skip_layer_guidance");
            self.check(by_name, &format!("{mode}: skip-layer guidance works or is refused by name: {error:?}"));
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

fn known(image: &backend::ImageData) -> bool {
    format_of(image).is_some()
}

fn format_of(image: &backend::ImageData) -> Option<OutputFormat> {
    match &image.content {
        Content::Bytes(bytes) => OutputFormat::of(bytes),
        Content::Address(_) | Content::Unfetched(_) => None,
    }
}
