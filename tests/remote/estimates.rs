//! Estimates: a dry run at the gateway, and nothing elsewhere that could be billed. `fal.rs` and `replicate.rs` test theirs.

use crate::support::*;

fn generation() -> Request {
    Request::Generate(generate_spec())
}

fn edit() -> Request {
    Request::Edit(edit_spec([Input::bytes(PNG)]))
}

#[test]
fn the_gateway_estimates_by_a_dry_run_which_is_free_and_retried() {
    let body = json!({
        "estimated": true, "model": "fal/stable-diffusion-3.5-medium", "provider": "fal",
        "total_cost_micros": 20971, "currency": "usd",
        "components": [
            { "type": "output", "metric": "megapixels", "quantity": 1.048576, "billable_quantity": 2,
              "unit_price": 0.02, "total_cost": 20971 },
            {},
        ],
    });
    paused(async {
        let acts = [response("500 Internal Server Error", "", ""), response("200 OK", "", body.to_string())];
        let server = RawServer::start(acts.map(Act::Send)).await;
        let remote = gateway(&server.uri);
        for request in [generation(), edit()] {
            let estimate = remote.estimate(request, RequestContext::default()).await.unwrap();
            assert_eq!((estimate.total.amount(), estimate.total.currency.as_str()), (0.020971, "USD"));
            assert_eq!(estimate.provider.as_deref(), Some("fal"));
            assert_eq!(estimate.model.as_deref(), Some("fal/stable-diffusion-3.5-medium"));
            let [output, empty] = &estimate.components[..] else { panic!("{:?}", estimate.components) };
            assert_eq!((output.kind.as_deref(), output.metric.as_deref()), (Some("output"), Some("megapixels")));
            assert_eq!((output.quantity, output.billable_quantity), (Some(1.048576), Some(2.0)));
            assert_eq!(output.unit_price.as_ref().map(|price| price.amount()), Some(0.02));
            assert_eq!(output.total.as_ref().map(|total| total.amount()), Some(0.020971));
            assert_eq!((&empty.kind, empty.quantity, &empty.total), (&None, None, &None));
        }
        assert_eq!(server.count("POST /images/generations?dryRun=true"), 2);
        assert_eq!(server.count("POST /images/edits?dryRun=true"), 2);
    });
}

#[tokio::test]
async fn a_server_that_ignores_the_dry_run_may_have_billed_it() {
    for body in [ONE_URL, r#"{"estimated":false,"total_cost_micros":7}"#, r#"{"total_cost_micros":-7}"#] {
        let server = responding(json_response(200, body)).await;
        let error = gateway(&server.uri()).estimate(generation(), RequestContext::default()).await.unwrap_err();
        assert_eq!((error.kind(), error.maybe_billed()), (ErrorKind::InvalidResponse, true));
        assert_eq!(requests(&server).await.len(), 1);
    }
}

#[tokio::test]
async fn a_server_that_is_not_known_to_be_the_gateway_gets_no_dry_run_and_has_no_account() {
    // A request that was sent would fail as `Connection`. The path of the gateway is not enough.
    for path in ["/v1", "/openai/v1"] {
        let remote = remote(&format!("{UNREACHABLE}{path}"));
        assert!(!remote.capabilities().estimate);
        for error in [
            remote.estimate(generation(), RequestContext::default()).await.unwrap_err(),
            remote.estimate(edit(), RequestContext::default()).await.unwrap_err(),
            remote.account().balance().await.unwrap_err(),
        ] {
            assert_eq!((error.kind(), error.maybe_billed()), (ErrorKind::Unsupported, false));
            assert!(error.to_string().contains("native_url"), "{error}");
        }
    }
    assert!(Remote::builder().api_key(KEY).build().unwrap().capabilities().estimate);
}
