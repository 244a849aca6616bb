//! The conformance suite finds each promise that a backend breaks.

// Clippy allows these only in functions that are marked as tests.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::time::Duration;

use futures_util::stream;
use lumenfall::backend::{
    Backend, BoxFuture, ByteStream, Capabilities, Content, EditSpec, Estimate, GenerateSpec, Output, Progress, Request,
    RequestContext,
};
use lumenfall::images::typed::{Mode, Schema};
use lumenfall::stable_diffusion_3_5_medium::SCHEMA;
use lumenfall::testing::{MockBackend, PIXEL, conformance};
use lumenfall::{Error, ErrorKind, Input};

const MODEL: &str = "stable-diffusion-3.5-medium";

/// A backend that behaves like the mock, except for one change.
#[derive(Debug)]
enum Altered {
    /// Rejects these parameters with this error. If the first is `mask`, the capabilities exclude masks.
    Rejects(&'static [&'static str], fn(&str) -> Error),
    /// Accepts masks although its capabilities exclude them.
    AcceptsMasks,
    /// Changes each request before its rules are checked.
    Changes(fn(&mut Request)),
    Output(fn(&mut Output)),
    Reports(Vec<Progress>),
    /// Returns another identity each time.
    Identity,
    /// Returns a file for each URL.
    Fetches,
}

impl Altered {
    async fn run(&self, mut request: Request, context: RequestContext) -> Result<Output, Error> {
        match (self, &context.progress) {
            (Self::Rejects(parameters, error), _) => {
                if let Some(parameter) = parameters.iter().find(|parameter| is_set(&request, parameter)) {
                    return Err(error(parameter));
                }
            }
            (Self::Changes(change), _) => change(&mut request),
            (Self::Reports(reports), Some(report)) => reports.iter().for_each(|progress| report(progress.clone())),
            _ => {}
        }
        let mut output = MockBackend::new().send(request, context).await?;
        if let Self::Output(alter) = self {
            alter(&mut output);
        }
        Ok(output)
    }

    /// Checks that the suite finds these promises broken for each of the subjects, and no other promise.
    async fn breaks(&self, subjects: &[&str], promises: &[&str]) {
        let edit = EditSpec::new(MODEL, Input::bytes(PIXEL));
        let found = conformance(self, GenerateSpec::new(MODEL, "a lighthouse"), edit).await;
        let expected =
            subjects.iter().flat_map(|subject| promises.iter().map(move |text| format!("{subject}: {text}")));
        let expected: Vec<_> = expected.collect();
        let all = expected.iter().all(|promise| found.iter().any(|found| found.starts_with(promise)));
        let only = found.iter().all(|found| expected.iter().any(|promise| found.starts_with(promise)));
        assert!(all && only, "expected {expected:#?}, found {found:#?}");
    }
}

impl Backend for Altered {
    fn name(&self) -> &str {
        "altered"
    }

    fn identity(&self) -> String {
        if let Self::Identity = self { fastrand::u64(..).to_string() } else { "altered".to_owned() }
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = MockBackend::new().capabilities();
        capabilities.mask = !matches!(self, Self::AcceptsMasks | Self::Rejects(["mask", ..], _));
        capabilities
    }

    fn send<'a>(&'a self, request: Request, context: RequestContext) -> BoxFuture<'a, Result<Output, Error>> {
        Box::pin(self.run(request, context))
    }

    fn estimate<'a>(&'a self, request: Request, context: RequestContext) -> BoxFuture<'a, Result<Estimate, Error>> {
        Box::pin(async move { MockBackend::new().estimate(request, context).await })
    }

    fn fetch<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<ByteStream, Error>> {
        let result = if let Self::Fetches = self { Ok(()) } else { Err(nameless("")) };
        Box::pin(async { result.map(|()| Box::pin(stream::empty()) as ByteStream) })
    }
}

fn is_set(request: &Request, parameter: &str) -> bool {
    let options = serde_json::to_value(request.options()).unwrap();
    let has_mask = matches!(request, Request::Edit(EditSpec { mask: Some(_), .. }));
    let is_option = !options[parameter].is_null() || !options["sampling"][parameter].is_null();
    if parameter == "mask" { has_mask } else { is_option }
}

fn unsupported(parameter: &str) -> Error {
    nameless(parameter).with_parameter(parameter)
}

fn nameless(_: &str) -> Error {
    Error::new(ErrorKind::Unsupported, "rejected by the test")
}

fn step(image: u32, step: u32, steps: u32) -> Progress {
    Progress::Step { image, step, steps, sigma: 0.5, remaining: Duration::ZERO }
}

#[tokio::test]
async fn a_backend_that_rejects_by_name_and_reports_progress_in_order_conforms() {
    let parameters =
        &["mask", "provider", "seed", "steps", "guidance", "negative_prompt", "strength", "skip_layer_guidance"];
    Altered::Rejects(parameters, unsupported).breaks(&[], &[]).await;
    let queued = Progress::Queued { position: None };
    let mut reports = vec![queued, Progress::Running, Progress::Loading, Progress::EncodingPrompt];
    reports.extend([step(0, 1, 3), step(0, 3, 3), Progress::Decoding { image: 0 }]);
    Altered::Reports(reports).breaks(&[], &[]).await;
}

const BOTH: &[&str] = &["generate", "edit"];

#[tokio::test]
async fn each_broken_promise_is_found() {
    let invalid = |name: &str| unsupported(name).with_kind(ErrorKind::InvalidRequest);
    let billed = |name: &str| unsupported(name).with_maybe_billed(true);
    let at_least_one_image = |request: &mut Request| {
        let n = &mut request.options_mut().n;
        *n = n.map(|n| n.max(1));
    };
    let any_prompt = |request: &mut Request| {
        if let Request::Generate(spec) = request {
            spec.prompt = "a lighthouse".into();
        }
    };
    let other_seed = |output: &mut Output| output.images[0].seed = Some(1);
    let other_format = |output: &mut Output| output.images[0].content = Content::Bytes(PIXEL.into());
    let other_provider = |output: &mut Output| output.metadata.provider = Some("other".into());
    let url = |output: &mut Output| output.images[0].content = Content::Url("http://127.0.0.1:9/1.png".into());
    for (altered, subjects, promises) in [
        (Altered::Rejects(&["mask"], nameless), &["edit"][..], &["rejects a mask"][..]),
        (Altered::AcceptsMasks, &["edit"], &["rejects a mask"]),
        (Altered::Changes(at_least_one_image), BOTH, &["rejects `n` of 0"]),
        (Altered::Changes(any_prompt), &["generate"], &["rejects a blank prompt"]),
        (Altered::Rejects(&["provider"], nameless), BOTH, &["rejects `provider`"]),
        (Altered::Rejects(&["strength"], nameless), BOTH, &["rejects `strength`"]),
        (Altered::Rejects(&["seed"], |_| unsupported("steps")), BOTH, &["rejects `seed`"]),
        (Altered::Rejects(&["guidance"], invalid), BOTH, &["rejects `guidance`"]),
        (Altered::Rejects(&["skip_layer_guidance"], billed), BOTH, &["rejects `skip_layer_guidance`"]),
        (Altered::Fetches, &["backend"], &["rejects the URL of an image"]),
        (Altered::Identity, &["backend"], &["returns the same identity each time"]),
        (Altered::Output(|output| output.images.truncate(1)), BOTH, &["returns 2 images for n = 2"]),
        (Altered::Output(other_format), BOTH, &["returns images in output_format"]),
        (Altered::Output(url), BOTH, &["returns bytes with response_format", "returns images in"]),
        (Altered::Output(other_seed), BOTH, &["reports the seed of the request"]),
        (Altered::Output(|output| output.metadata.steps = Some(28)), BOTH, &["reports at most as many steps"]),
        (Altered::Output(other_provider), BOTH, &["uses the pinned provider"]),
    ] {
        altered.breaks(subjects, promises).await;
    }
    let decoding = |image| Progress::Decoding { image };
    for reports in [
        vec![step(0, 3, 2)],
        vec![step(0, 0, 2)],
        vec![step(0, 1, 2), step(0, 1, 2)],
        vec![step(0, 2, 2), step(0, 1, 2)],
        vec![step(0, 1, 2), step(0, 2, 3)],
        vec![step(1, 1, 2)],
        vec![step(0, 1, 1), Progress::Loading],
        vec![decoding(0), Progress::EncodingPrompt],
        vec![decoding(0), step(0, 1, 1)],
        vec![decoding(0), decoding(0)],
        vec![decoding(1)],
    ] {
        let promise = "succeeds with a progress callback and reports progress in order";
        Altered::Reports(reports).breaks(BOTH, &[promise]).await;
    }
}

#[tokio::test]
async fn the_mock_conforms_for_any_model_and_returns_the_given_bytes() {
    static SKETCHER: Schema = Schema { id: "sketcher", ..SCHEMA };
    static POSTER: Schema = Schema {
        id: "poster",
        modes: &[Mode::TextToImage],
        parameters: SCHEMA.parameters.split_at(7).0, // those before `output_format`
        ..SCHEMA
    };
    let gif = b"GIF89a\x01\0\x01\0";
    for (mock, model) in [
        (MockBackend::new(), "a-model-without-a-schema"),
        (MockBackend::for_schema(&SKETCHER), "sketcher"),
        (MockBackend::for_schema(&POSTER), "poster"),
        (MockBackend::new().returning(&gif[..]), MODEL),
    ] {
        let generate = GenerateSpec::new(model, "a lighthouse");
        assert_eq!(conformance(&mock, generate, None).await, Vec::<String>::new(), "{model}");
        // Both modes were tried.
        let is_edit = |request: &Request| matches!(request, Request::Edit(_));
        assert!(mock.requests().iter().any(is_edit) && !mock.requests().iter().all(is_edit), "{model}");
    }
    let send = async |mock: &MockBackend, model, change: fn(&mut GenerateSpec)| {
        let mut spec = GenerateSpec::new(model, "a lighthouse");
        change(&mut spec);
        mock.send(spec.into(), RequestContext::default()).await
    };
    let eleven = |spec: &mut GenerateSpec| spec.options.n = Some(11);
    assert!(send(&MockBackend::new(), "sketcher", eleven).await.is_ok());
    let error = send(&MockBackend::for_schema(&SKETCHER), "sketcher", eleven).await.unwrap_err();
    assert_eq!((error.kind(), error.parameter()), (ErrorKind::InvalidRequest, Some("n")));
    let output = send(&MockBackend::new().returning(&gif[..]), MODEL, |_| {}).await.unwrap();
    assert_eq!(output.images[0].content, Content::Bytes(gif.to_vec().into()));
}
