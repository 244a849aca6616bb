//! Answers that are kept on disk.

use lumenfall::backend::{Backend, Content, EditSpec, Request, RequestContext};
use lumenfall::layers::{Cache, Fallback, Limit};
use lumenfall::testing::{MockBackend, PIXEL};
use lumenfall::{ErrorKind, Input, ResponseFormat};

use crate::changed::Changed;
use crate::{Folder, MODEL, edit, error, generate, seeded, spec};

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

#[tokio::test]
async fn a_cache_keeps_no_answer_that_lacks_an_image() {
    let folder = Folder::new("short");
    let mut two = seeded(7);
    two.options.n = Some(2);
    for (missing, makes_pages) in [(1, false), (0, true)] {
        let mock = MockBackend::new();
        for calls in [1, 2] {
            let short = Changed { missing, makes_pages, ..Changed::new(mock.clone()) };
            let output = generate(&Cache::new(short, &folder.0), two.clone()).await.unwrap();
            assert_eq!((output.images.len(), mock.requests().len()), (2 - missing, calls));
        }
    }
}
