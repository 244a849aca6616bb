//! A cache on disk.

use std::collections::HashSet;
use std::sync::Arc;

use lumenfall::backend::{Backend, BoxFuture, Content, EditSpec, ImageData, Output, Request, RequestContext};
use lumenfall::layers::Layer;
use lumenfall::layers::{Cache, Fallback, Limit};
use lumenfall::remote::{Fal, Remote, Replay, Replicate};
use lumenfall::testing::{MockBackend, PIXEL};
use lumenfall::{Client, Error, ErrorKind, Input, OutputFormat, ResponseFormat};
use tempfile::tempdir;

use crate::variant::Variant;
use crate::{MODEL, edit, error, generate, seeded, spec};

#[tokio::test]
async fn a_cached_result_is_returned_by_another_cache_at_no_cost() {
    let folder = tempdir().unwrap();
    let (first, second) = (MockBackend::new().named("first"), MockBackend::new().named("second"));
    first.fail_next(error(ErrorKind::RateLimited));
    let fallback = Fallback::new(first).then(second.clone());
    let original = generate(&Cache::new(fallback.clone(), folder.path()), seeded(7)).await.unwrap();
    let cached = generate(&Cache::new(fallback, folder.path()), seeded(7)).await.unwrap();
    assert_eq!((cached.metadata.backend.as_str(), cached.metadata.cost.unwrap().amount()), ("cache", 0.0));
    assert_eq!((&cached.images[0].content, cached.images[0].seed), (&original.images[0].content, Some(7)));
    assert_eq!((original.metadata.warnings.len(), &original.metadata.warnings), (1, &cached.metadata.warnings));
    assert_eq!(second.requests().len(), 1);
}

#[tokio::test]
async fn each_seeded_request_is_cached_and_others_are_not() {
    let folder = tempdir().unwrap();
    let mock = MockBackend::new();
    let cache = Cache::new(mock.clone(), folder.path());
    let mut two_images = seeded(1);
    two_images.options.n = Some(2);
    let mut edit = edit();
    edit.options.sampling.seed = Some(1);
    let mut other_input = edit.clone();
    other_input.images = vec![Input::bytes([PIXEL, b"x"].concat())];
    let text = [seeded(1), seeded(2), two_images].map(Request::Generate);
    for request in text.into_iter().chain([edit, other_input].map(Request::Edit)) {
        let sent = mock.requests().len();
        for _ in 0..2 {
            let output = cache.send(request.clone(), RequestContext::default()).await.unwrap();
            assert_eq!(output.images.len(), request.options().n.unwrap_or(1) as usize);
            assert_eq!(mock.requests().len(), sent + 1);
        }
    }
    let mut hosted = seeded(1);
    hosted.options.response_format = Some(ResponseFormat::Url);
    let mut not_finite = seeded(1);
    not_finite.options.sampling.guidance = Some(f32::NAN);
    for (request, sent) in [(spec(), 6), (spec(), 7), (hosted, 7), (not_finite, 8)] {
        let _ = generate(&cache, request).await;
        assert_eq!(mock.requests().len(), sent);
    }
}

#[tokio::test]
async fn backends_with_different_identities_do_not_share_entries() {
    let folder = tempdir().unwrap();
    let mock = MockBackend::new();
    for (identity, sent) in [("one", 1), ("two", 2), ("one", 2)] {
        let backend = Variant { mock: mock.clone(), identity: Some(identity), ..Variant::default() };
        generate(&Cache::new(Limit::new(Arc::new(backend)), folder.path()), seeded(1)).await.unwrap();
        assert_eq!(mock.requests().len(), sent, "{identity}");
    }
}

/// Replaces the images, and implements only the two required methods.
#[derive(Debug)]
struct Watermark(Client);

impl Layer for Watermark {
    fn inner(&self) -> &dyn Backend {
        &self.0
    }

    fn layer_send<'a>(&'a self, request: Request, context: RequestContext) -> BoxFuture<'a, Result<Output, Error>> {
        Box::pin(async move {
            let mut output = self.0.send(request, context).await?;
            output.images.iter_mut().for_each(|image| image.revised_prompt = Some("marked".into()));
            let metadata = &mut output.metadata;
            (metadata.size, metadata.output_format) = ("1024x768".parse().ok(), Some(OutputFormat::Png));
            (metadata.steps, metadata.created) = (Some(28), Some(1_234_567_890));
            metadata.generator = Some("lumenfall 0.1.0".into());
            metadata.fingerprint = Some("f00d".into());
            Ok(output)
        })
    }
}

#[tokio::test]
async fn a_cached_result_keeps_what_describes_its_images() {
    let folder = tempdir().unwrap();
    let mock = MockBackend::new();
    let cache = Cache::new(Watermark(Client::new(mock.clone())), folder.path());
    let original = generate(&cache, seeded(1)).await.unwrap().metadata;
    let cached = generate(&cache, seeded(1)).await.unwrap().metadata;
    assert_eq!((cached.backend.as_str(), cached.attempts, mock.requests().len()), ("cache", 0, 1));
    assert_eq!((cached.size, cached.output_format), (original.size, Some(OutputFormat::Png)));
    assert_eq!((cached.steps, cached.created, cached.generator), (Some(28), Some(1_234_567_890), original.generator));
    assert_eq!((cached.fingerprint.as_deref(), cached.parameters), (Some("f00d"), original.parameters));
    assert!(original.size.is_some());
}

#[tokio::test]
async fn headers_of_a_call_are_not_part_of_the_key() {
    let folder = tempdir().unwrap();
    let mock = MockBackend::new();
    let client = Client::new(Cache::new(mock.clone(), folder.path()));
    for id in ["one", "two"] {
        client.images().generate("a lighthouse").seed(1).header("x-request-id", id).send().await.unwrap();
        assert_eq!(mock.requests().len(), 1);
    }
}

#[tokio::test]
async fn a_layer_with_two_methods_does_not_share_entries_with_its_backend() {
    let folder = tempdir().unwrap();
    let mock = MockBackend::new();
    let marked: Box<dyn Backend> = Box::new(Watermark(Client::new(mock.clone())));
    assert_eq!((marked.name(), marked.capabilities()), ("mock", mock.capabilities()));
    assert_eq!(marked.fetch("https://a.example/1.png").await.err().unwrap().kind(), ErrorKind::Unsupported);
    let (marked, plain) = (Cache::new(marked, folder.path()), Cache::new(Client::new(mock.clone()), folder.path()));
    for (prompt, sent) in [(Some("marked"), 1), (None, 2), (Some("marked"), 2), (None, 2)] {
        let cache: &dyn Backend = if prompt.is_some() { &marked } else { &plain };
        let output = cache.send(seeded(1).into(), RequestContext::default()).await.unwrap();
        assert_eq!((output.images[0].revised_prompt.as_deref(), mock.requests().len()), (prompt, sent));
    }
    // Layers that do not change images share the entries of their backend.
    assert_eq!(Limit::new(mock.clone()).identity(), mock.identity());
}

#[test]
fn the_identity_of_a_remote_backend_depends_on_its_settings_and_contains_no_secrets() {
    let url = "https://a.example/v1?key=canary";
    let remote = || Remote::builder().api_key("lmnfl_id.canary").base_url(url);
    let remotes = [
        remote(),
        remote().base_url("https://b.example/v1"),
        remote().replay(Replay::mock()),
        remote().base_url("https://a.example/v1?key=another"),
        remote().header("x-team", "canary"),
    ]
    .map(|builder| builder.build().unwrap());
    let mut identities: Vec<_> = remotes.iter().map(Backend::identity).collect();
    identities.push(Fal::builder().api_key("canary").base_url(url).build().unwrap().identity());
    identities.push(Replicate::builder().api_key("canary").base_url(url).build().unwrap().identity());
    identities.push(Fallback::new(remotes[0].clone()).then(remotes[1].clone()).identity());
    identities.push(Fallback::new(remotes[0].clone()).then(remotes[2].clone()).identity());
    assert!(identities.iter().all(|identity| !identity.contains("canary")), "{identities:?}");
    assert_eq!(identities.iter().collect::<HashSet<_>>().len(), identities.len(), "{identities:?}");
}

#[tokio::test]
async fn the_bytes_that_were_hashed_are_sent_even_if_the_file_changes() {
    let folder = tempdir().unwrap();
    let file = folder.path().join("source.png");
    std::fs::write(&file, PIXEL).unwrap();
    let mut spec = EditSpec::new(MODEL, Input::path(&file));
    spec.options.sampling.seed = Some(1);
    let mock = MockBackend::new();
    Cache::new(mock.clone(), folder.path().join("cache")).send(spec.into(), RequestContext::default()).await.unwrap();
    std::fs::write(&file, [PIXEL, b"changed"].concat()).unwrap();
    let Some(Request::Edit(sent)) = mock.requests().pop() else { panic!("the request is not an edit") };
    assert_eq!(sent.images[0].read().await.unwrap(), PIXEL);
}

#[tokio::test]
async fn urls_that_cannot_be_downloaded_are_returned_if_urls_were_requested() {
    const URL: &str = "https://a.example/1.png";
    let folder = tempdir().unwrap();
    let mock = MockBackend::new();
    let request = async |format: ResponseFormat| {
        let change_images = Some((|images| images[0].content = Content::Url(URL.into())) as fn(&mut Vec<ImageData>));
        let backend = Variant { mock: mock.clone(), change_images, ..Variant::default() };
        let mut spec = seeded(1);
        spec.options.response_format = Some(format);
        generate(&Cache::new(backend, folder.path()), spec).await
    };
    let output = request(ResponseFormat::Url).await.unwrap();
    assert_eq!(output.images[0].content, Content::Url(URL.into()));
    let error = request(ResponseFormat::B64Json).await.unwrap_err();
    assert_eq!(error.unfetched_urls(), [URL]);
    // The backend receives the requested format, so that it does not download images that are not needed.
    let formats: Vec<_> = mock.requests().iter().map(|request| request.options().response_format).collect();
    assert_eq!(formats, [Some(ResponseFormat::Url), Some(ResponseFormat::B64Json)]);
}

#[tokio::test]
async fn corrupt_entries_are_replaced() {
    let folder = tempdir().unwrap();
    let mock = MockBackend::new();
    let cache = Cache::new(mock.clone(), folder.path());
    generate(&cache, seeded(1)).await.unwrap();
    let subfolder = std::fs::read_dir(&folder).unwrap().next().unwrap().unwrap().path();
    let entry = std::fs::read_dir(subfolder).unwrap().next().unwrap().unwrap().path();
    let valid = std::fs::read(&entry).unwrap();
    let truncated = &valid[..valid.len() - 1];
    for (sent, content) in [(2, &b""[..]), (3, &[0; 32]), (4, b"{}"), (5, truncated)] {
        std::fs::write(&entry, content).unwrap();
        let output = generate(&cache, seeded(1)).await.unwrap();
        assert_eq!(output.images[0].content, Content::Bytes(PIXEL.into()));
        assert_eq!((mock.requests().len(), std::fs::read(&entry).unwrap() == valid), (sent, true));
    }
}

#[tokio::test]
async fn a_failure_to_write_is_a_warning() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let output = generate(&Cache::new(MockBackend::new(), file.path()), seeded(1)).await.unwrap();
    assert!(output.metadata.warnings[0].starts_with("the result was not cached: cannot create the folder"));
}

#[tokio::test]
async fn incomplete_results_are_not_cached() {
    let folder = tempdir().unwrap();
    let mut two = seeded(7);
    two.options.n = Some(2);
    let one_missing: fn(&mut Vec<ImageData>) = |images| images.truncate(1);
    let one_html: fn(&mut Vec<ImageData>) = |images| images[0].content = Content::Bytes("<html>".into());
    for (change, returned) in [(one_missing, 1), (one_html, 2)] {
        let mock = MockBackend::new();
        for sent in [1, 2] {
            let backend = Variant { mock: mock.clone(), change_images: Some(change), ..Variant::default() };
            let output = generate(&Cache::new(backend, folder.path()), two.clone()).await.unwrap();
            assert_eq!((output.images.len(), mock.requests().len()), (returned, sent));
        }
    }
}
