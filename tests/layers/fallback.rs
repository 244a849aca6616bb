//! Alternative backends after a failure.

use lumenfall::backend::{Backend, Request, RequestContext};
use lumenfall::layers::Fallback;
use lumenfall::testing::MockBackend;
use lumenfall::{Error, ErrorKind};

use crate::variant::Variant;
use crate::{billed, edit, error, exhausted, generate, spec};

#[tokio::test]
async fn the_next_backend_is_used_after_unbilled_failures_of_the_right_kind() {
    let default = |fallback: Fallback| fallback;
    let content_policy = |fallback: Fallback| fallback.on([ErrorKind::ContentPolicy]);
    type Configure = fn(Fallback) -> Fallback;
    let cases: [(Error, Configure, bool); 9] = [
        (error(ErrorKind::RateLimited), default, true),
        (error(ErrorKind::Unsupported), default, true),
        (error(ErrorKind::ContentPolicy), default, false),
        (error(ErrorKind::ContentPolicy), content_policy, true),
        (error(ErrorKind::RateLimited), content_policy, false),
        (billed(ErrorKind::Timeout), default, false),
        (exhausted(), default, false),
        (billed(ErrorKind::Timeout), Fallback::even_if_billed, true),
        (exhausted(), Fallback::even_if_billed, true),
    ];
    for (failure, configure, used) in cases {
        let (first, second) = (MockBackend::new().named("first"), MockBackend::new().named("second"));
        let (kind, billed) = (failure.kind(), failure.maybe_billed());
        first.fail_next(failure);
        match generate(&configure(Fallback::new(first).then(second.clone())), spec()).await {
            Ok(output) => {
                assert_eq!((output.metadata.backend.as_str(), used), ("second", true), "{kind:?}");
                assert_eq!(output.metadata.lost_bills, u32::from(billed));
                assert!(output.metadata.warnings[0].contains("`first`"), "{:?}", output.metadata.warnings);
            }
            Err(error) => assert_eq!((error.kind(), error.maybe_billed(), used), (kind, billed, false)),
        }
        assert_eq!(second.requests().len(), usize::from(used), "{kind:?}");
    }
}

#[tokio::test]
async fn the_estimate_is_the_highest_of_the_backends_that_support_the_request() {
    let estimate = async |fallback: &Fallback, request: Request| {
        let estimate = fallback.estimate(request, RequestContext::default()).await;
        estimate.map(|estimate| estimate.total.amount())
    };
    let (text, image) = (|| Request::Generate(spec()), || Request::Edit(edit()));
    let cost = |amount| MockBackend::new().cost_per_image(amount);
    let three = Fallback::new(cost(0.1)).then(cost(0.3).without_edits()).then(cost(0.2));
    assert_eq!(estimate(&three, text()).await.unwrap(), 0.3);
    assert_eq!(estimate(&three, image()).await.unwrap(), 0.2);

    let unsupported = Fallback::new(MockBackend::new().without_edits());
    assert_eq!(estimate(&unsupported, image()).await.unwrap_err().kind(), ErrorKind::Unsupported);
    let unknown = Fallback::new(cost(0.1)).then(Variant { estimate_fails_billed: Some(false), ..Variant::default() });
    assert!(!unknown.capabilities().estimate);
    assert_eq!(estimate(&unknown, text()).await.unwrap_err().kind(), ErrorKind::Unsupported);
    let euros = || Variant { currency: Some("EUR"), ..Variant::default() };
    let (free_first, free_last) = (Fallback::new(cost(0.0)).then(euros()), Fallback::new(euros()).then(cost(0.0)));
    for fallback in [free_first, free_last] {
        let estimate = fallback.estimate(text(), RequestContext::default()).await.unwrap();
        assert_eq!(estimate.total.to_string(), "0.02 EUR");
    }
    let euros = Fallback::new(cost(0.1)).then(euros());
    assert!(estimate(&euros, text()).await.unwrap_err().to_string().contains("in USD and EUR"));
}

#[tokio::test]
async fn images_are_downloaded_through_any_backend_that_can() {
    let serves = |prefix| Variant { served_urls: Some(prefix), ..Variant::default() };
    let fallback =
        Fallback::new(MockBackend::new()).then(serves("https://a.example/")).then(serves("https://b.example/"));
    assert!(fallback.fetch("https://b.example/1.png").await.is_ok());
    assert_eq!(fallback.fetch("https://c.example/1.png").await.err().unwrap().kind(), ErrorKind::NotFound);
    let without_urls = Fallback::new(MockBackend::new());
    assert_eq!(without_urls.fetch("https://a.example/1.png").await.err().unwrap().kind(), ErrorKind::Unsupported);
}
