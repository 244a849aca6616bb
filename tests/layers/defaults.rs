use lumenfall::backend::{Options, Request};
use lumenfall::{Client, OutputFormat, Png, Sampling, Size, aspect_ratio};
use tempfile::tempdir;

use crate::*;

/// Returns the client of a mock with defaults, and the mock.
fn client(options: Options) -> (Client, MockBackend) {
    let mock = MockBackend::new();
    (Client::new(Defaults::new(mock.clone()).options(options)), mock)
}

fn sent(mock: &MockBackend) -> Options {
    mock.requests().last().unwrap().options().clone()
}

/// Returns options in which every field is set that a request for text to image can have.
fn all() -> Options {
    let options = Options::default().with_provider("fal").with_size(Size::Pixels { width: 512, height: 512 });
    let options = options.with_output_format(OutputFormat::Jpeg).with_output_compression(80).with_n(2).with_user("ada");
    let sampling = Sampling::default().with_seed(7).with_steps(20).with_guidance(3.0).with_negative_prompt("rain");
    options.with_sampling(sampling).with_extra("tier", 1)
}

#[tokio::test]
async fn defaults_apply_to_every_parameter_that_is_not_set() {
    let (client, mock) = client(all());
    client.images().generate("a lighthouse").send().await.unwrap();
    assert_eq!(sent(&mock), all());

    let mut own = all().with_n(1).with_user("bob").with_output_compression(10).with_extra("tier", 2);
    own.provider = Some("replicate".into());
    own.size = Some(Size::Pixels { width: 256, height: 256 });
    own.sampling = Sampling::default().with_seed(1).with_steps(2).with_guidance(9.0).with_negative_prompt("snow");
    let mut own_spec = spec();
    own_spec.options = own.clone();
    client.request(own_spec).send().await.unwrap();
    assert_eq!(sent(&mock), own);
}

#[tokio::test]
async fn a_default_that_the_request_excludes_is_not_used() {
    let strength = Sampling::default().with_strength(0.5);
    let (client, mock) = client(all().with_sampling(strength));
    let draft = client.images().generate("a lighthouse").aspect_ratio(aspect_ratio!("16:9")).into_draft();
    draft.clone().send().await.unwrap();
    assert_eq!((sent(&mock).size, sent(&mock).aspect_ratio), (None, draft.spec().options.aspect_ratio));

    client.images().generate("a lighthouse").output_format(Png).send().await.unwrap();
    assert_eq!((sent(&mock).output_format, sent(&mock).output_compression), (Some(OutputFormat::Png), None));

    assert_eq!(sent(&mock).sampling.strength, None);
    let mut edit = edit();
    edit.options.provider = Some("replicate".into());
    client.request(edit).send().await.unwrap();
    assert_eq!(sent(&mock).sampling.strength, Some(0.5));
}

#[tokio::test]
async fn invalid_defaults_are_reported_before_the_request_is_sent() {
    let (client, mock) = client(Options::default().with_n(11));
    let error = client.images().generate("a lighthouse").send().await.unwrap_err();
    assert_eq!((error.kind(), error.parameter()), (ErrorKind::InvalidRequest, Some("n")));
    let request = Request::from(spec());
    assert_eq!(client.backend().check(&request).unwrap_err().parameter(), Some("n"));
    let estimate = client.images().generate("a lighthouse").estimate().await;
    assert_eq!(estimate.unwrap_err().parameter(), Some("n"));
    assert_eq!(mock.requests(), []);
}

#[tokio::test(start_paused = true)]
async fn the_timeout_of_a_request_replaces_the_default() {
    let slow = MockBackend::new().delay(Duration::from_secs(50));
    let client = Client::new(Defaults::new(slow).timeout(Duration::from_secs(10)));
    let request = || client.images().generate("a lighthouse");
    let start = tokio::time::Instant::now();
    assert_eq!(request().send().await.unwrap_err().kind(), ErrorKind::Timeout);
    assert_eq!(start.elapsed(), Duration::from_secs(10));
    assert!(request().timeout(Duration::from_secs(60)).send().await.is_ok());
}

#[tokio::test]
async fn a_fallback_receives_the_defaults_and_estimates_include_them() {
    let (first, second) = (MockBackend::new(), MockBackend::new());
    first.fail_next(error(ErrorKind::Connection));
    let fallback = Fallback::new(first.clone()).then(second.clone());
    let client = Client::new(Defaults::new(fallback).options(Options::default().with_n(3)));
    assert_eq!(client.images().generate("a lighthouse").send().await.unwrap().len(), 3);
    assert_eq!((sent(&first).n, sent(&second).n), (Some(3), Some(3)));
    let estimate = client.images().generate("a lighthouse").estimate().await.unwrap();
    assert_eq!(estimate.total, Cost::new(0.06, "USD"));
}

#[tokio::test]
async fn a_cache_inside_or_outside_keeps_results_of_different_defaults_apart() {
    let steps = |steps| Options::default().with_sampling(Sampling::default().with_steps(steps));
    for inside in [true, false] {
        let (folder, mock) = (tempdir().unwrap(), MockBackend::new());
        for (options, sent) in [(steps(20), 1), (steps(30), 2), (steps(20), 2)] {
            let backend: Box<dyn Backend> = match inside {
                true => Box::new(Defaults::new(Cache::new(mock.clone(), folder.path())).options(options)),
                false => Box::new(Cache::new(Defaults::new(mock.clone()).options(options), folder.path())),
            };
            backend.send(seeded(1).into(), RequestContext::default()).await.unwrap();
            assert_eq!(mock.requests().len(), sent);
        }
    }
}
