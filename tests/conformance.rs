//! The suite that every backend passes, and backends that break one promise each.

// Helpers are not marked as tests, but a panic in one is a failed test all the same.
#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicU32, Ordering};

use futures_util::stream;
use lumenfall::backend::{
    Backend, BoxFuture, ByteStream, Capabilities, Content, EditSpec, Estimate, GenerateSpec, Output, Progress, Request,
    RequestContext,
};
use lumenfall::testing::{MockBackend, PIXEL, conformance};
use lumenfall::{Error, ErrorKind, Input};

const MODEL: &str = "stable-diffusion-3.5-medium";

/// A mock with a say in everything. As it is made it keeps all promises.
#[derive(Debug)]
struct Odd {
    mock: MockBackend,
    capabilities: Capabilities,
    /// What it does with a request before the mock does it.
    before: fn(&mut Request) -> Result<(), Error>,
    /// What it does with the mock's answer.
    after: fn(&mut Output),
    tells: Vec<Progress>,
    /// How often its identity was asked, where that changes it.
    changes: Option<AtomicU32>,
    fetches: bool,
}

impl Odd {
    fn new() -> Self {
        let mock = MockBackend::new();
        let capabilities = mock.capabilities();
        let (tells, changes) = (Vec::new(), None);
        Self { mock, capabilities, before: |_| Ok(()), after: |_| (), tells, changes, fetches: false }
    }

    fn before(before: fn(&mut Request) -> Result<(), Error>) -> Self {
        Self { before, ..Self::new() }
    }

    fn after(after: fn(&mut Output)) -> Self {
        Self { after, ..Self::new() }
    }

    fn telling(tells: &[Progress]) -> Self {
        Self { tells: tells.to_vec(), ..Self::new() }
    }

    fn without_masks(mut self) -> Self {
        self.capabilities.mask = false;
        self
    }

    async fn run(&self, mut request: Request, context: RequestContext) -> Result<Output, Error> {
        (self.before)(&mut request)?;
        if let Some(tell) = &context.progress {
            self.tells.iter().for_each(|progress| tell(progress.clone()));
        }
        let mut output = request.send(&self.mock, context).await?;
        (self.after)(&mut output);
        Ok(output)
    }
}

impl Backend for Odd {
    fn name(&self) -> &str {
        "odd"
    }

    fn identity(&self) -> String {
        let times = self.changes.as_ref().map(|changes| changes.fetch_add(1, Ordering::Relaxed));
        format!("odd {times:?}")
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities.clone()
    }

    fn generate<'a>(&'a self, spec: GenerateSpec, context: RequestContext) -> BoxFuture<'a, Result<Output, Error>> {
        Box::pin(self.run(Request::Generate(spec), context))
    }

    fn edit<'a>(&'a self, spec: EditSpec, context: RequestContext) -> BoxFuture<'a, Result<Output, Error>> {
        Box::pin(self.run(Request::Edit(spec), context))
    }

    fn estimate<'a>(&'a self, request: Request, context: RequestContext) -> BoxFuture<'a, Result<Estimate, Error>> {
        self.mock.estimate(request, context)
    }

    fn fetch<'a>(&'a self, address: &'a str) -> BoxFuture<'a, Result<ByteStream, Error>> {
        match self.fetches {
            true => Box::pin(async { Ok(Box::pin(stream::empty()) as ByteStream) }),
            false => self.mock.fetch(address),
        }
    }
}

async fn broken(backend: &Odd) -> Vec<String> {
    let (generate, edit) = (GenerateSpec::new(MODEL, "a lighthouse"), EditSpec::new(MODEL, Input::bytes(PIXEL)));
    conformance(backend, generate, edit).await
}

/// The suite finds these promises broken, by how they begin, and no other.
async fn breaks(backend: Odd, promises: &[&str]) {
    let broken = broken(&backend).await;
    for promise in promises {
        assert!(broken.iter().any(|told| told.starts_with(promise)), "{promise} is not among {broken:#?}");
    }
    let other = broken.iter().find(|told| !promises.iter().any(|promise| told.starts_with(promise)));
    assert_eq!(other, None);
}

fn refusal(kind: ErrorKind, parameter: &str) -> Error {
    Error::new(kind, "made for a test").with_parameter(parameter)
}

fn refuse(given: bool, error: impl FnOnce() -> Error) -> Result<(), Error> {
    if given { Err(error()) } else { Ok(()) }
}

fn step(image: u32, step: u32, steps: u32) -> Progress {
    Progress::Step { image, step, steps }
}

#[tokio::test]
async fn a_backend_that_refuses_by_name_and_tells_its_progress_breaks_nothing() {
    let refusing = Odd::before(|request| {
        let masked = matches!(request, Request::Edit(EditSpec { mask: Some(_), .. }));
        let sampling = &request.options().sampling;
        let given = [
            ("mask", masked),
            ("provider", request.options().provider.is_some()),
            ("seed", sampling.seed.is_some()),
            ("steps", sampling.steps.is_some()),
            ("guidance", sampling.guidance.is_some()),
            ("negative_prompt", sampling.negative_prompt.is_some()),
            ("strength", sampling.strength.is_some()),
            ("skip_layer_guidance", sampling.skip_layer_guidance.is_some()),
        ];
        given.into_iter().try_for_each(|(name, given)| refuse(given, || refusal(ErrorKind::Unsupported, name)))
    });
    breaks(refusing.without_masks(), &[]).await;
    let queued = Progress::Queued { position: None };
    let (loading, encoding) = (Progress::Loading, Progress::EncodingPrompt);
    let decoding = Progress::Decoding { image: 0 };
    let told = [queued, Progress::Running, loading, encoding, step(0, 1, 3), step(0, 3, 3), decoding];
    breaks(Odd::telling(&told), &[]).await;
}

#[tokio::test]
async fn a_mask_that_is_taken_or_refused_without_its_name_is_found() {
    breaks(Odd::new().without_masks(), &["edit: the mask that it cannot use is refused: it succeeded"]).await;
    let nameless = Odd::before(|request| {
        let masked = matches!(request, Request::Edit(EditSpec { mask: Some(_), .. }));
        refuse(masked, || Error::new(ErrorKind::Unsupported, "no"))
    });
    breaks(nameless.without_masks(), &["edit: the mask that it cannot use is refused: by the name `mask`"]).await;
}

#[tokio::test]
async fn a_control_that_is_refused_wrongly_or_dropped_is_found() {
    let wrong_kind = Odd::before(|request| {
        let given = request.options().sampling.guidance.is_some();
        refuse(given, || refusal(ErrorKind::InvalidRequest, "guidance"))
    });
    breaks(wrong_kind, &["generate: guidance works or is refused: Error", "edit: guidance works or is refused: Error"])
        .await;
    let wrong_name = Odd::before(|request| {
        let given = request.options().sampling.negative_prompt.is_some();
        refuse(given, || refusal(ErrorKind::Unsupported, "prompt"))
    });
    breaks(
        wrong_name,
        &[
            "generate: negative_prompt works or is refused: by the name `negative_prompt`",
            "edit: negative_prompt works or is refused: by the name `negative_prompt`",
        ],
    )
    .await;
    let billed = Odd::before(|request| {
        let given = request.options().sampling.skip_layer_guidance.is_some();
        refuse(given, || refusal(ErrorKind::Unsupported, "skip_layer_guidance").with_maybe_billed(true))
    });
    breaks(
        billed,
        &[
            "generate: skip_layer_guidance works or is refused: Error",
            "edit: skip_layer_guidance works or is refused: Error",
        ],
    )
    .await;
    let dropped = Odd::before(|request| {
        if let Request::Generate(spec) = request {
            spec.options.sampling.strength = None;
        }
        Ok(())
    });
    breaks(dropped, &["generate: strength, which is an edit's, is refused by name"]).await;
    let nameless = Odd::before(|request| {
        let edit = matches!(request, Request::Edit(_));
        let given = edit && request.options().sampling.strength.is_some();
        refuse(given, || Error::new(ErrorKind::Unsupported, "no"))
    });
    breaks(nameless, &["edit: strength works or is refused: by the name `strength`"]).await;
}

#[tokio::test]
async fn an_answer_that_contradicts_the_request_is_found() {
    let reseeded = Odd::after(|output| output.images.iter_mut().for_each(|image| image.seed = Some(1)));
    let seeds = "the seeds that are told follow from the one asked for";
    breaks(reseeded, &[&format!("generate: {seeds}"), &format!("edit: {seeds}")]).await;
    let tireless = Odd::after(|output| output.metadata.steps = Some(28));
    let steps = "no more steps are told than were asked for";
    breaks(tireless, &[&format!("generate: {steps}"), &format!("edit: {steps}")]).await;
    let elsewhere = Odd::after(|output| output.metadata.provider = Some("elsewhere".into()));
    let promises =
        ["generate: the provider fal was", "generate: the provider replicate", "edit: the provider replicate"];
    breaks(elsewhere, &promises).await;
}

#[tokio::test]
async fn a_pinned_provider_that_is_refused_without_its_name_is_found() {
    let nameless = Odd::before(|request| {
        let given = request.options().provider.as_deref() == Some("fal");
        refuse(given, || Error::new(ErrorKind::Unsupported, "no"))
    });
    breaks(nameless, &["generate: the provider fal can be pinned or is refused: by the name `provider`"]).await;
}

#[tokio::test]
async fn progress_out_of_order_is_found() {
    for told in [
        vec![step(0, 3, 2)],
        vec![step(0, 0, 2)],
        vec![step(0, 1, 2), step(0, 1, 2)],
        vec![step(0, 2, 2), step(0, 1, 2)],
        vec![step(0, 1, 2), step(0, 2, 3)],
        vec![step(1, 1, 2)],
        vec![step(0, 1, 1), Progress::Loading],
        vec![step(0, 1, 1), Progress::EncodingPrompt],
        vec![Progress::Decoding { image: 0 }, Progress::Loading],
        vec![Progress::Decoding { image: 0 }, step(0, 1, 1)],
        vec![Progress::Decoding { image: 0 }, Progress::Decoding { image: 0 }],
        vec![Progress::Decoding { image: 1 }],
    ] {
        let promises = ["generate: progress is told in order", "edit: progress is told in order"];
        breaks(Odd::telling(&told), &promises).await;
    }
}

#[tokio::test]
async fn an_identity_that_changes_is_found() {
    let changing = Odd { changes: Some(AtomicU32::new(0)), ..Odd::new() };
    breaks(changing, &["its identity is the same each time"]).await;
}

#[tokio::test]
async fn addresses_where_none_are_promised_are_found() {
    let addressed = Odd::after(|output| {
        for image in &mut output.images {
            image.content = Content::Address("http://127.0.0.1:9/image.png".into());
        }
    });
    let broken = broken(&addressed).await;
    assert!(broken.contains(&"generate: images, asked for as None: are bytes".to_owned()), "{broken:#?}");
    assert!(broken.contains(&"edit: images, asked for as Some(Url): are bytes".to_owned()), "{broken:#?}");

    let fetching = Odd { fetches: true, ..Odd::new() };
    breaks(fetching, &["an address is refused where it has none"]).await;
}
