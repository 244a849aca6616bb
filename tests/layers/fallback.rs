//! Another backend where one fails.

use lumenfall::backend::{Backend, Request, RequestContext};
use lumenfall::layers::Fallback;
use lumenfall::testing::MockBackend;
use lumenfall::{Error, ErrorKind};

use crate::changed::Changed;
use crate::{edit, error, generate, spec};

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
async fn a_fallback_goes_on_after_the_chosen_kinds_only() {
    for (kind, goes_on) in [(ErrorKind::ContentPolicy, true), (ErrorKind::RateLimited, false)] {
        let (first, second) = (MockBackend::new(), MockBackend::new());
        first.fail_next(error(kind));
        let fallback = Fallback::new(first).then(second.clone()).on([ErrorKind::ContentPolicy]);
        assert_eq!(generate(&fallback, spec()).await.is_ok(), goes_on, "{kind:?}");
        assert_eq!(second.requests().len(), usize::from(goes_on));
    }
}

#[tokio::test]
async fn a_fallback_never_pays_twice_unless_allowed() {
    let lost = || error(ErrorKind::Timeout).with_maybe_billed(true);
    // Nothing was made, but a part of the cost can be charged.
    let exhausted = || error(ErrorKind::Upstream).with_maybe_billed(true).with_nothing_made();
    let failures: [&dyn Fn() -> Error; 2] = [&lost, &exhausted];
    for failure in failures {
        let (first, second) = (MockBackend::new(), MockBackend::new());
        let fallback = Fallback::new(first.clone()).then(second.clone());
        first.fail_next(failure());
        assert!(generate(&fallback, spec()).await.unwrap_err().maybe_billed());
        assert!(second.requests().is_empty());

        first.fail_next(failure());
        let output = generate(&fallback.even_if_billed(), spec()).await.unwrap();
        assert_eq!((output.metadata.lost_bills, second.requests().len()), (1, 1));
    }
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
