//! Layers around a backend that makes nothing, and the conformance of all of them.

// Helpers are not marked as tests, but a panic in one is a failed test all the same.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::path::PathBuf;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use lumenfall::backend::{
    Backend, BoxFuture, ByteStream, Capabilities, Content, EditSpec, Estimate, GenerateSpec, Output, Request,
    RequestContext,
};
use lumenfall::layers::{Cache, Fallback, Limit, Retry, SpendCap};
use lumenfall::testing::{MockBackend, PIXEL, conformance};
use lumenfall::{Error, ErrorKind, Input, ResponseFormat, RetryPolicy};

const MODEL: &str = "stable-diffusion-3.5-medium";

fn spec() -> GenerateSpec {
    GenerateSpec::new(MODEL, "a lighthouse")
}

fn seeded(seed: u64) -> GenerateSpec {
    let mut spec = spec();
    spec.options.sampling.seed = Some(seed);
    spec
}

fn edit() -> EditSpec {
    EditSpec::new(MODEL, Input::bytes(PIXEL))
}

async fn generate(backend: &impl Backend, spec: GenerateSpec) -> Result<Output, Error> {
    backend.generate(spec, RequestContext::default()).await
}

fn error(kind: ErrorKind) -> Error {
    Error::new(kind, "made for a test")
}

/// A folder of its own that vanishes with the value.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("lumenfall-layers-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        Self(path)
    }

    fn files(&self) -> Vec<PathBuf> {
        let folders = std::fs::read_dir(&self.0).into_iter().flatten();
        folders
            .flat_map(|folder| std::fs::read_dir(folder.unwrap().path()).unwrap())
            .map(|file| file.unwrap().path())
            .collect()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[tokio::test]
async fn every_layer_keeps_the_promises_of_a_backend() {
    let folder = Folder::new("conformance");
    let mock = MockBackend::new;
    let backends: [(&str, Box<dyn Backend>); 7] = [
        ("mock", Box::new(mock())),
        ("fallback", Box::new(Fallback::new(mock().without_edits()).then(mock()))),
        ("limit", Box::new(Limit::new(mock()).concurrency(2).rate(1000, Duration::from_secs(1)))),
        ("spend cap", Box::new(SpendCap::new(mock(), 1000.0, "USD"))),
        ("retry", Box::new(Retry::new(mock(), RetryPolicy::default()))),
        ("cache", Box::new(Cache::new(mock(), &folder.0))),
        ("without edits", Box::new(mock().without_edits())),
    ];
    for (name, backend) in backends {
        for generate in [spec(), seeded(1)] {
            assert_eq!(conformance(&*backend, generate, edit()).await, Vec::<String>::new(), "{name}");
        }
    }
}

#[tokio::test]
async fn a_fallback_tries_the_next_backend_and_tells() {
    let (first, second) = (MockBackend::new().named("first"), MockBackend::new().named("second"));
    first.fail_next(error(ErrorKind::RateLimited));
    let output = generate(&Fallback::new(first.clone()).then(second.clone()), spec()).await.unwrap();
    assert_eq!(output.metadata.backend, "second");
    assert!(output.metadata.warnings[0].contains("`first`"), "{:?}", output.metadata.warnings);
}

#[tokio::test]
async fn a_fallback_stops_where_another_backend_would_fail_too() {
    let (first, second) = (MockBackend::new(), MockBackend::new());
    first.fail_next(error(ErrorKind::ContentPolicy));
    let error = generate(&Fallback::new(first.clone()).then(second.clone()), spec()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ContentPolicy);
    assert!(second.requests().is_empty());
}

#[tokio::test]
async fn a_fallback_never_pays_twice_unless_allowed() {
    let (first, second) = (MockBackend::new(), MockBackend::new());
    let fallback = Fallback::new(first.clone()).then(second.clone());
    first.fail_next(error(ErrorKind::Timeout).with_maybe_billed(true));
    assert!(generate(&fallback, spec()).await.unwrap_err().maybe_billed());
    assert!(second.requests().is_empty());

    first.fail_next(error(ErrorKind::Timeout).with_maybe_billed(true));
    generate(&fallback.clone().even_if_billed(), spec()).await.unwrap();

    // The gateway's word that nothing was made is enough.
    first.fail_next(error(ErrorKind::Upstream).with_maybe_billed(true).with_nothing_made());
    generate(&fallback, spec()).await.unwrap();
}

#[tokio::test]
async fn a_fallback_that_runs_out_says_that_an_earlier_backend_may_have_billed() {
    let (first, second) = (MockBackend::new(), MockBackend::new());
    first.fail_next(error(ErrorKind::Timeout).with_maybe_billed(true));
    second.fail_next(error(ErrorKind::RateLimited));
    let fallback = Fallback::new(first).then(second).even_if_billed();
    let error = generate(&fallback, spec()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RateLimited);
    assert!(error.maybe_billed() && !error.made_nothing());
}

#[tokio::test]
async fn a_fallback_is_as_dear_as_the_dearest_backend_that_takes_the_request() {
    let estimate = async |fallback: Fallback, request: Request| {
        fallback.estimate(request, RequestContext::default()).await.map(|estimate| estimate.total.amount)
    };
    let cost = |amount| MockBackend::new().cost_per_image(amount);
    let three = || Fallback::new(cost(0.1)).then(cost(0.3).without_edits()).then(cost(0.2));
    assert_eq!(estimate(three(), Request::Generate(spec())).await.unwrap(), 0.3);
    assert_eq!(estimate(three(), Request::Edit(edit())).await.unwrap(), 0.2);

    let none = Fallback::new(MockBackend::new().without_edits());
    assert_eq!(estimate(none, Request::Edit(edit())).await.unwrap_err().kind(), ErrorKind::Unsupported);
    let mute = Fallback::new(cost(0.1)).then(Changed { estimate: false, ..Changed::new(cost(9.0)) });
    assert!(!mute.capabilities().estimate);
    let error = estimate(mute, Request::Generate(spec())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    let euros = Fallback::new(cost(0.1)).then(Changed { currency: "EUR", ..Changed::new(cost(0.1)) });
    let error = estimate(euros, Request::Generate(spec())).await.unwrap_err();
    assert!(error.to_string().contains("EUR"), "{error}");
}

#[tokio::test]
async fn a_fallback_fetches_through_whichever_backend_can() {
    let shut = Changed { addresses: Some(""), ..Changed::new(MockBackend::new()) };
    let open = Changed { addresses: Some("https://b.example/"), ..Changed::new(MockBackend::new()) };
    let fallback = Fallback::new(MockBackend::new()).then(shut).then(open);
    assert!(fallback.fetch("https://b.example/1.png").await.is_ok());
    let error = fallback.fetch("https://a.example/1.png").await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let none = Fallback::new(MockBackend::new()).fetch("https://a.example/1.png").await.err().unwrap();
    assert_eq!(none.kind(), ErrorKind::Unsupported);
}

#[tokio::test]
async fn a_retry_tries_again_what_cannot_have_been_billed() {
    let mock = MockBackend::new();
    let retry = Retry::new(mock.clone(), RetryPolicy::default());
    mock.fail_next(error(ErrorKind::RateLimited).with_retry_after(Duration::from_millis(30)));
    mock.fail_next(error(ErrorKind::Upstream).with_maybe_billed(true).with_nothing_made());
    let started = Instant::now();
    generate(&retry, spec()).await.unwrap();
    assert!(started.elapsed() >= Duration::from_millis(30), "it waits as long as it is asked to");
    assert_eq!(mock.requests().len(), 3);
}

#[tokio::test]
async fn a_retry_leaves_alone_what_may_have_been_billed_or_would_fail_again() {
    let mock = MockBackend::new();
    let retry = Retry::new(mock.clone(), RetryPolicy::default());
    for (failure, billed) in
        [(error(ErrorKind::Timeout).with_maybe_billed(true), true), (error(ErrorKind::ContentPolicy), false)]
    {
        mock.fail_next(failure);
        assert_eq!(generate(&retry, spec()).await.unwrap_err().maybe_billed(), billed);
    }
    assert_eq!(mock.requests().len(), 2);

    let bold = Retry::new(mock.clone(), RetryPolicy::default().may_bill_twice().max_retries(1));
    for _ in 0..2 {
        mock.fail_next(error(ErrorKind::Timeout).with_maybe_billed(true));
    }
    let last = generate(&bold, spec()).await.unwrap_err();
    assert_eq!((last.attempts(), last.maybe_billed_tries(), mock.requests().len()), (2, 2, 4));
}

#[tokio::test]
async fn a_retry_does_not_wait_beyond_the_deadline() {
    let mock = MockBackend::new();
    mock.fail_next(error(ErrorKind::RateLimited).with_retry_after(Duration::from_secs(30)));
    let mut context = RequestContext::default();
    context.deadline = Some(Instant::now() + Duration::from_secs(5));
    let started = Instant::now();
    let failure = Retry::new(mock, RetryPolicy::default()).generate(spec(), context).await.unwrap_err();
    assert_eq!(failure.kind(), ErrorKind::RateLimited);
    assert!(started.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn a_limit_runs_so_many_at_a_time_and_all_in_the_end() {
    let mock = MockBackend::new().delay(Duration::from_millis(20));
    let limit = Limit::new(mock.clone()).concurrency(3);
    let calls: Vec<_> = (0..12)
        .map(|_| {
            let limit = limit.clone();
            tokio::spawn(async move { generate(&limit, spec()).await })
        })
        .collect();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert_eq!((mock.requests().len(), mock.peak()), (12, 3));
}

#[tokio::test]
async fn a_rate_holds_within_every_period() {
    let limit = Limit::new(MockBackend::new()).rate(2, Duration::from_millis(200));
    let started = Instant::now();
    for _ in 0..5 {
        generate(&limit, spec()).await.unwrap();
    }
    assert!(started.elapsed() >= Duration::from_millis(400), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_request_that_is_dropped_while_it_waits_gives_its_place_back() {
    let limit = Limit::new(MockBackend::new()).rate(1, Duration::from_millis(300));
    let started = Instant::now();
    generate(&limit, spec()).await.unwrap();
    for _ in 0..20 {
        assert!(generate(&limit, spec()).now_or_never().is_none());
    }
    let (first, second) = tokio::join!(generate(&limit, spec()), generate(&limit, spec()));
    assert!(first.is_ok() && second.is_ok());
    let elapsed = started.elapsed();
    assert!(elapsed >= Duration::from_millis(600) && elapsed < Duration::from_secs(4), "{elapsed:?}");
}

#[tokio::test]
async fn a_wait_beyond_the_deadline_sends_nothing() {
    let mock = MockBackend::new().delay(Duration::from_secs(1));
    let mut context = RequestContext::default();
    let rate = Limit::new(mock.clone()).rate(1, Duration::from_secs(60));
    generate(&rate, spec()).await.unwrap();
    context.deadline = Some(Instant::now() + Duration::from_secs(5));
    let started = Instant::now();
    let error = rate.generate(spec(), context.clone()).await.unwrap_err();
    assert_eq!((error.kind(), error.maybe_billed()), (ErrorKind::Timeout, false));
    assert!(started.elapsed() < Duration::from_secs(1), "it does not wait in vain");

    let one = Limit::new(mock.clone()).concurrency(1);
    context.deadline = Some(Instant::now() + Duration::from_millis(50));
    let (first, second) = tokio::join!(generate(&one, spec()), one.generate(spec(), context));
    first.unwrap();
    assert_eq!(second.unwrap_err().kind(), ErrorKind::Timeout);
    assert_eq!(mock.requests().len(), 2);
}

#[tokio::test]
async fn a_spend_cap_refuses_before_sending() {
    let mock = MockBackend::new().cost_per_image(0.4);
    let cap = SpendCap::new(mock.clone(), 1.0, "usd");
    generate(&cap, spec()).await.unwrap();
    generate(&cap, spec()).await.unwrap();
    let error = generate(&cap, spec()).await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::InsufficientBalance, Some("SPEND_CAP")));
    assert!(!error.maybe_billed());
    assert_eq!(mock.requests().len(), 2);
    assert!((cap.spent().amount - 0.8).abs() < 1e-9 && (cap.remaining().amount - 0.2).abs() < 1e-9);
}

#[tokio::test]
async fn a_spend_cap_holds_for_requests_at_the_same_time() {
    let mock = MockBackend::new().cost_per_image(0.4).delay(Duration::from_millis(50));
    let cap = SpendCap::new(mock.clone(), 1.0, "USD");
    let calls = tokio::join!(generate(&cap, spec()), generate(&cap, spec()), generate(&cap, spec()));
    assert_eq!([calls.0.is_ok(), calls.1.is_ok(), calls.2.is_ok()].iter().filter(|ok| **ok).count(), 2);
    assert_eq!(mock.requests().len(), 2);
}

#[tokio::test]
async fn a_spend_cap_counts_the_real_cost_and_what_may_have_been_billed() {
    let mock = MockBackend::new().cost_per_image(0.1);
    let cap = SpendCap::new(mock.clone(), 10.0, "USD").per_image(1.0);
    generate(&cap, spec()).await.unwrap();
    assert!((cap.spent().amount - 0.1).abs() < 1e-9, "what the answer says");
    mock.fail_next(error(ErrorKind::RateLimited));
    generate(&cap, spec()).await.unwrap_err();
    assert!((cap.spent().amount - 0.1).abs() < 1e-9, "nothing for what did not run");
    mock.fail_next(error(ErrorKind::Timeout).with_maybe_billed(true));
    generate(&cap, spec()).await.unwrap_err();
    assert!((cap.spent().amount - 1.1).abs() < 1e-9, "the expectation for what may have run");
}

#[tokio::test]
async fn a_call_that_was_dropped_counts_as_spent() {
    let cap = SpendCap::new(MockBackend::new().delay(Duration::from_secs(60)), 1.0, "USD").per_image(0.6);
    assert!(tokio::time::timeout(Duration::from_millis(20), generate(&cap, spec())).await.is_err());
    assert!((cap.spent().amount - 0.6).abs() < 1e-9);
    assert_eq!(generate(&cap, spec()).await.unwrap_err().code(), Some("SPEND_CAP"));
}

#[tokio::test]
async fn a_spend_cap_counts_every_try_that_may_have_been_billed() {
    let mock = MockBackend::new().cost_per_image(0.5);
    let retry = Retry::new(mock.clone(), RetryPolicy::default().may_bill_twice().max_retries(2));
    let fallback = Fallback::new(MockBackend::new().cost_per_image(1.0)).then(mock.clone()).even_if_billed();
    let billed = || error(ErrorKind::Timeout).with_maybe_billed(true);
    mock.fail_next(billed());
    let cap = SpendCap::new(retry, 10.0, "USD");
    generate(&cap, spec()).await.unwrap();
    assert!((cap.spent().amount - 1.0).abs() < 1e-9, "one lost, one made: {:?}", cap.spent());
    (0..3).for_each(|_| mock.fail_next(billed()));
    generate(&cap, spec()).await.unwrap_err();
    assert!((cap.spent().amount - 2.5).abs() < 1e-9, "three lost: {:?}", cap.spent());
    mock.fail_next(error(ErrorKind::RateLimited));
    generate(&cap, spec()).await.unwrap();
    assert!((cap.spent().amount - 3.0).abs() < 1e-9, "one refused, one made: {:?}", cap.spent());

    // Expected is the dearest, and the answer tells what it was.
    let cap = SpendCap::new(fallback, 10.0, "USD");
    generate(&cap, spec()).await.unwrap();
    assert!((cap.spent().amount - 1.0).abs() < 1e-9);
}

#[tokio::test]
async fn a_question_for_the_price_that_may_have_been_billed_uses_up_the_cap() {
    let mock = MockBackend::new();
    let cap = SpendCap::new(Changed { estimate: false, billed: true, ..Changed::new(mock.clone()) }, 5.0, "USD");
    let error = generate(&cap, spec()).await.unwrap_err();
    assert!(error.maybe_billed());
    assert_eq!((cap.spent().amount, cap.remaining().amount, mock.requests().len()), (5.0, 0.0, 0));
}

#[tokio::test]
async fn what_an_earlier_try_made_and_left_at_an_address_is_not_forgotten() {
    let left = |name: &str| {
        let billed = error(ErrorKind::Timeout).with_maybe_billed(true);
        billed.with_addresses([format!("https://a.example/{name}?sig=canary")])
    };
    let mock = MockBackend::new();
    let policy = || RetryPolicy::default().may_bill_twice().max_retries(1);
    let layers: [Box<dyn Backend>; 2] = [
        Box::new(Retry::new(mock.clone(), policy())),
        Box::new(Fallback::new(mock.clone()).then(mock.clone()).even_if_billed()),
    ];
    for layer in layers {
        mock.fail_next(left("1"));
        let output = layer.generate(spec(), RequestContext::default()).await.unwrap();
        let contents: Vec<_> = output.images.iter().map(|image| &image.content).collect();
        assert!(matches!(contents[..], [Content::Bytes(_), Content::Unfetched(_)]), "{contents:?}");
        assert!(!format!("{output:?}").contains("canary"), "{output:?}");

        mock.fail_next(left("1"));
        mock.fail_next(left("2"));
        let error = layer.generate(spec(), RequestContext::default()).await.unwrap_err();
        assert_eq!((error.addresses().len(), error.maybe_billed_tries()), (2, 2));
    }
}

#[tokio::test]
async fn a_spend_cap_counts_nothing_for_what_the_cache_gives_again() {
    let folder = Folder::new("capped");
    let cap = SpendCap::new(Cache::new(MockBackend::new().cost_per_image(0.4), &folder.0), 1.0, "USD");
    for _ in 0..5 {
        generate(&cap, seeded(1)).await.unwrap();
    }
    assert!((cap.spent().amount - 0.4).abs() < 1e-9, "{:?}", cap.spent());
}

#[tokio::test]
async fn a_spend_cap_in_another_currency_refuses() {
    let error = generate(&SpendCap::new(MockBackend::new(), 1.0, "EUR"), spec()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
}

#[tokio::test]
async fn a_cache_gives_a_seeded_answer_again_without_cost() {
    let folder = Folder::new("again");
    let mock = MockBackend::new();
    let made = generate(&Cache::new(mock.clone(), &folder.0), seeded(7)).await.unwrap();
    assert!(made.metadata.cost.is_some());
    // Another value, as another run of the program would make it.
    let kept = generate(&Cache::new(mock.clone(), &folder.0), seeded(7)).await.unwrap();
    assert_eq!((kept.metadata.backend.as_str(), kept.metadata.cost.unwrap().amount), ("cache", 0.0));
    assert_eq!(kept.images[0].content, made.images[0].content);
    assert_eq!(kept.images[0].seed, Some(7));
    assert_eq!(mock.requests().len(), 1);
}

#[tokio::test]
async fn a_cache_tells_requests_apart_and_lets_unseeded_ones_pass() {
    let folder = Folder::new("apart");
    let mock = MockBackend::new();
    let cache = Cache::new(mock.clone(), &folder.0);
    let mut more = seeded(1);
    more.options.n = Some(2);
    let mut edits = edit();
    edits.options.sampling.seed = Some(1);
    let mut other = edits.clone();
    other.images = vec![Input::bytes([PIXEL, b"x"].concat())];
    for _ in 0..2 {
        generate(&cache, seeded(1)).await.unwrap();
        generate(&cache, seeded(2)).await.unwrap();
        generate(&cache, more.clone()).await.unwrap();
        cache.edit(edits.clone(), RequestContext::default()).await.unwrap();
        cache.edit(other.clone(), RequestContext::default()).await.unwrap();
    }
    assert_eq!(mock.requests().len(), 5);
    generate(&cache, spec()).await.unwrap();
    generate(&cache, spec()).await.unwrap();
    assert_eq!(mock.requests().len(), 7);
    // How the answer is to come does not decide what it is.
    let mut addresses = seeded(1);
    addresses.options.response_format = Some(ResponseFormat::Url);
    let output = generate(&cache, addresses).await.unwrap();
    assert!(matches!(output.images[0].content, Content::Bytes(_)));
    assert_eq!(mock.requests().len(), 7);
}

#[tokio::test]
async fn a_cache_tells_backends_apart_by_more_than_their_names() {
    let folder = Folder::new("backends");
    let mock = MockBackend::new();
    for (identity, made) in [("one", 1), ("two", 2), ("one", 2)] {
        let backend = Changed { identity: Some(identity), ..Changed::new(mock.clone()) };
        // Through another layer, too.
        generate(&Cache::new(Limit::new(std::sync::Arc::new(backend)), &folder.0), seeded(1)).await.unwrap();
        assert_eq!(mock.requests().len(), made, "{identity}");
    }
}

#[test]
fn servers_providers_and_the_recorders_modes_are_told_apart() {
    let builder =
        || lumenfall::Client::builder().api_key("lmnfl_id.canary").base_url("https://a.example/v1?key=canary");
    let elsewhere = builder().base_url("https://b.example/v1");
    let deployment = builder().base_url("https://a.example/v1?key=another");
    let team = builder().header("x-team", "canary");
    let mocked = builder().replay(lumenfall::remote::Replay::mock());
    let remotes = [builder(), elsewhere, mocked, deployment, team].map(|builder| builder.backend().unwrap());
    let mut identities: Vec<_> = remotes.iter().map(Backend::identity).collect();
    identities.push(builder().fal().unwrap().identity());
    identities.push(builder().replicate().unwrap().identity());
    identities.push(Fallback::new(remotes[0].clone()).then(remotes[1].clone()).identity());
    identities.push(Fallback::new(remotes[0].clone()).then(remotes[2].clone()).identity());
    assert!(identities.iter().all(|identity| !identity.contains("canary")), "{identities:?}");
    let different = identities.iter().collect::<std::collections::HashSet<_>>().len();
    assert_eq!(different, identities.len(), "{identities:?}");
}

#[tokio::test]
async fn what_is_sent_is_what_the_cache_looked_at() {
    let folder = Folder::new("file");
    std::fs::create_dir(&folder.0).unwrap();
    let file = folder.0.join("source.png");
    std::fs::write(&file, PIXEL).unwrap();
    let mut spec = EditSpec::new(MODEL, Input::path(&file));
    spec.options.sampling.seed = Some(1);
    let mock = MockBackend::new();
    Cache::new(mock.clone(), folder.0.join("cache")).edit(spec, RequestContext::default()).await.unwrap();
    std::fs::write(&file, [PIXEL, b"changed"].concat()).unwrap();
    let Some(Request::Edit(sent)) = mock.requests().pop() else { panic!("no edit came") };
    assert_eq!(sent.images[0].read().await.unwrap(), PIXEL);
}

#[tokio::test]
async fn a_cache_that_cannot_fetch_passes_addresses_on_to_whoever_asked_for_them() {
    let folder = Folder::new("unfetched");
    let mock = MockBackend::new();
    let far = || Changed { addresses: Some(""), answers_address: true, ..Changed::new(mock.clone()) };
    let asked = async |format: ResponseFormat| {
        let mut spec = seeded(1);
        spec.options.response_format = Some(format);
        generate(&Cache::new(far(), &folder.0), spec).await
    };
    let output = asked(ResponseFormat::Url).await.unwrap();
    assert_eq!(output.images[0].content, Content::Address("https://far.example/1.png".into()));
    let error = asked(ResponseFormat::B64Json).await.unwrap_err();
    assert_eq!(error.addresses(), ["https://far.example/1.png"]);
    // The backend is asked as the caller asked, so that it does not fetch in vain itself.
    let formats: Vec<_> = mock.requests().iter().map(|request| request.options().response_format).collect();
    assert_eq!(formats, [Some(ResponseFormat::Url), Some(ResponseFormat::B64Json)]);
}

#[tokio::test]
async fn a_cache_has_no_place_for_what_is_no_number() {
    let folder = Folder::new("nan");
    let mock = MockBackend::new();
    let cache = Cache::new(mock.clone(), &folder.0);
    generate(&cache, seeded(1)).await.unwrap();
    let mut broken = seeded(1);
    broken.options.sampling.guidance = Some(f32::NAN);
    assert_eq!(generate(&cache, broken).await.unwrap_err().kind(), ErrorKind::InvalidRequest);
}

#[tokio::test]
async fn a_cache_keeps_the_warnings_of_the_making() {
    let folder = Folder::new("warnings");
    let (first, second) = (MockBackend::new().named("first"), MockBackend::new());
    first.fail_next(error(ErrorKind::RateLimited));
    let cache = Cache::new(Fallback::new(first).then(second), &folder.0);
    let made = generate(&cache, seeded(1)).await.unwrap().metadata.warnings;
    let kept = generate(&cache, seeded(1)).await.unwrap().metadata.warnings;
    assert_eq!((made.len(), made), (1, kept));
}

#[tokio::test]
async fn a_damaged_entry_is_made_again() {
    let folder = Folder::new("damaged");
    let mock = MockBackend::new();
    let cache = Cache::new(mock.clone(), &folder.0);
    for damage in [&b""[..], b"{}", b"not what was written"] {
        generate(&cache, seeded(1)).await.unwrap();
        let made = mock.requests().len();
        for file in folder.files() {
            std::fs::write(file, damage).unwrap();
        }
        let output = generate(&cache, seeded(1)).await.unwrap();
        assert!(matches!(&output.images[0].content, Content::Bytes(bytes) if bytes == PIXEL));
        assert_eq!(mock.requests().len(), made + 1);
    }
}

#[tokio::test]
async fn a_cache_that_cannot_write_loses_no_image() {
    let folder = Folder::new("unwritable");
    std::fs::write(&folder.0, "a file where a folder should be").unwrap();
    let output = generate(&Cache::new(MockBackend::new(), &folder.0), seeded(1)).await.unwrap();
    assert!(output.metadata.warnings[0].contains("not kept"), "{:?}", output.metadata.warnings);
    std::fs::remove_file(&folder.0).unwrap();
}

/// A mock that differs from others in one way or another.
#[derive(Debug)]
struct Changed {
    mock: MockBackend,
    identity: Option<&'static str>,
    /// Whether it tells prices.
    estimate: bool,
    /// Whether asking for them costs something.
    billed: bool,
    currency: &'static str,
    /// What its addresses begin with; an empty text fits none.
    addresses: Option<&'static str>,
    /// Whether it answers with an address, whatever was asked for.
    answers_address: bool,
    /// How many images fewer than asked for it makes.
    missing: usize,
}

impl Changed {
    fn new(mock: MockBackend) -> Self {
        Self {
            mock,
            identity: None,
            estimate: true,
            billed: false,
            currency: "USD",
            addresses: None,
            answers_address: false,
            missing: 0,
        }
    }
}

impl Backend for Changed {
    fn name(&self) -> &str {
        self.mock.name()
    }

    fn identity(&self) -> String {
        self.identity.map_or_else(|| self.mock.identity(), str::to_owned)
    }

    fn capabilities(&self) -> Capabilities {
        let mut can = self.mock.capabilities();
        can.estimate = self.estimate;
        can.addresses = self.addresses.is_some();
        can
    }

    fn generate<'a>(&'a self, spec: GenerateSpec, context: RequestContext) -> BoxFuture<'a, Result<Output, Error>> {
        Box::pin(async move {
            let mut output = self.mock.generate(spec, context).await?;
            output.images.truncate(output.images.len() - self.missing);
            if self.answers_address {
                output.images[0].content = Content::Address("https://far.example/1.png".into());
            }
            Ok(output)
        })
    }

    fn edit<'a>(&'a self, spec: EditSpec, context: RequestContext) -> BoxFuture<'a, Result<Output, Error>> {
        self.mock.edit(spec, context)
    }

    fn estimate<'a>(&'a self, request: Request, context: RequestContext) -> BoxFuture<'a, Result<Estimate, Error>> {
        Box::pin(async move {
            if !self.estimate {
                return Err(error(ErrorKind::Unsupported).with_maybe_billed(self.billed));
            }
            let mut estimate = self.mock.estimate(request, context).await?;
            estimate.total.currency = self.currency.into();
            Ok(estimate)
        })
    }

    fn fetch<'a>(&'a self, address: &'a str) -> BoxFuture<'a, Result<ByteStream, Error>> {
        let own = self.addresses.is_some_and(|start| !start.is_empty() && address.starts_with(start));
        let answer: Result<ByteStream, Error> =
            if own { Ok(Box::pin(futures_util::stream::empty())) } else { Err(error(ErrorKind::NotFound)) };
        Box::pin(std::future::ready(answer))
    }
}

#[tokio::test]
async fn a_cache_keeps_no_answer_that_lacks_an_image() {
    let folder = Folder::new("short");
    let (mock, mut two) = (MockBackend::new(), seeded(7));
    two.options.n = Some(2);
    for calls in [1, 2] {
        let short = Changed { missing: 1, ..Changed::new(mock.clone()) };
        let output = generate(&Cache::new(short, &folder.0), two.clone()).await.unwrap();
        assert_eq!((output.images.len(), mock.requests().len()), (1, calls));
    }
}
