//! What only the gateway offers: models and schemas, the account, the recorder.

use futures_util::{StreamExt, TryStreamExt};
use lumenfall::backend::{Backend, Request, RequestContext};
use lumenfall::images::typed::Model;
use lumenfall::remote::{Billed, Page, Remote, Replay, RequestFilter, RequestStatus};
use lumenfall::stable_diffusion_3_5_medium::StableDiffusion35Medium;
use lumenfall::{Client, ErrorKind};
use serde_json::{Value, json};
use wiremock::matchers::{any, method, path, query_param, query_param_is_missing};
use wiremock::{Mock, MockServer, ResponseTemplate};

use crate::support::{KEY, ONE_ADDRESS, answering, builder, generate, generate_spec, json as answer, requests};

fn gateway_at(uri: &str) -> Remote {
    builder(&format!("{uri}/openai/v1")).native_url(format!("{uri}/v1")).backend().unwrap()
}

/// A gateway with one answer to a GET of `at`.
async fn gateway(at: &str, body: serde_json::Value) -> (MockServer, Remote) {
    let server = MockServer::start().await;
    let template = ResponseTemplate::new(200).set_body_json(body);
    Mock::given(method("GET")).and(path(at)).respond_with(template).mount(&server).await;
    let remote = gateway_at(&server.uri());
    (server, remote)
}

#[tokio::test]
async fn models_are_listed_and_found() {
    let model = json!({ "id": "fal/sd", "object": "model", "created": 7, "owned_by": "stability", "new": [] });
    let (_server, remote) =
        gateway("/openai/v1/models", json!({ "object": "list", "data": [model, { "id": "b" }] })).await;
    let models = remote.models().list().await.unwrap();
    assert_eq!((models[0].id.as_str(), models[0].created), ("fal/sd", Some(7)));
    assert_eq!((models[1].id.as_str(), models[1].created), ("b", None));

    let (_server, remote) = gateway("/openai/v1/models/fal/sd", model).await;
    assert_eq!(remote.models().get("fal/sd").await.unwrap().owned_by.as_deref(), Some("stability"));
    let error = remote.models().get("none").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_schema_comes_from_the_gateways_own_api() {
    let (server, remote) = gateway("/v1/models/sd", json!({ "parameters": {} })).await;
    assert_eq!(remote.models().schema_json("sd").await.unwrap(), json!({ "parameters": {} }));
    assert_eq!(requests(&server).await[0].url.query(), Some("schema=true"));
}

#[tokio::test]
async fn a_balance_is_an_amount_or_without_limit() {
    let body =
        json!({ "object": "balance", "billing_type": "prepaid", "available": { "amount": 12.5, "currency": "usd" } });
    let (server, remote) = gateway("/v1/balance", body).await;
    let balance = remote.account().balance().await.unwrap();
    let available = balance.available.unwrap();
    assert_eq!((balance.billing, available.amount, available.currency.as_str()), (Billed::Prepaid, 12.5, "USD"));
    assert_eq!(requests(&server).await[0].headers["authorization"], format!("Bearer {KEY}"));

    let unlimited = json!({ "billing_type": "postpaid", "available": { "amount": null, "currency": "usd" } });
    let (_server, remote) = gateway("/v1/balance", unlimited).await;
    let balance = remote.account().balance().await.unwrap();
    assert_eq!((balance.billing, balance.available), (Billed::Postpaid, None));

    let unknown = json!({ "billing_type": "prepaid", "available": { "amount": null, "currency": "usd" } });
    let (_server, remote) = gateway("/v1/balance", unknown).await;
    assert_eq!(remote.account().balance().await.unwrap_err().kind(), ErrorKind::Upstream);

    for unreadable in [json!({}), json!({ "available": { "amount": "12,50" } }), json!({ "available": [] })] {
        let (_server, remote) = gateway("/v1/balance", unreadable).await;
        assert_eq!(remote.account().balance().await.unwrap_err().kind(), ErrorKind::InvalidResponse);
    }
}

#[tokio::test]
async fn another_server_has_no_account_whatever_its_path() {
    for path in ["/v1", "/openai/v1"] {
        let remote = builder(&format!("http://127.0.0.1:9{path}")).backend().unwrap();
        let error = remote.account().balance().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("native_url"), "{error}");
    }
    assert!(Client::builder().api_key(KEY).backend().unwrap().capabilities().estimate);
}

#[tokio::test]
async fn requests_are_read_page_after_page_without_following_an_address() {
    let server = MockServer::start().await;
    let page = |ids: [&str; 2], next: Option<&str>| {
        let data = ids.map(|id| json!({ "id": id, "status": "completed", "cost": 0.02, "error_code": null }));
        ResponseTemplate::new(200).set_body_json(json!({ "object": "list", "data": data, "next_page_url": next }))
    };
    let at = || Mock::given(method("GET")).and(path("/v1/requests")).and(query_param("status", "upstream_failure"));
    at().and(query_param_is_missing("starting_after"))
        .respond_with(page(["req_4", "req_3"], Some("https://evil.example/steal")))
        .mount(&server)
        .await;
    at().and(query_param("starting_after", "req_3")).respond_with(page(["req_2", "req_1"], None)).mount(&server).await;

    let remote = gateway_at(&server.uri());
    let filter = RequestFilter {
        status: Some(RequestStatus::UpstreamFailure),
        page_size: Some(1000),
        created_after: Some("2025-01-01T00:00:00Z".into()),
        ..RequestFilter::default()
    };
    let records: Vec<_> = remote.account().requests(filter).try_collect().await.unwrap();
    let ids: Vec<_> = records.iter().map(|record| record.id.as_str()).collect();
    assert_eq!(ids, ["req_4", "req_3", "req_2", "req_1"]);
    assert_eq!((records[0].status, records[0].cost), (RequestStatus::Completed, Some(0.02)));
    let query = requests(&server).await[0].url.query().unwrap().to_owned();
    assert!(query.contains("limit=100") && query.contains("created_after=2025-01-01T00%3A00%3A00Z"), "{query}");
}

#[tokio::test]
async fn a_page_can_carry_totals() {
    let body = json!({ "data": [], "summary": { "total_cost": 1.5 }, "next_page_url": null });
    let (server, remote) = gateway("/v1/requests", body).await;
    let page = remote.account().page(&RequestFilter::default(), Page::First, true).await.unwrap();
    assert_eq!((page.next(), page.summary.clone()), (None, Some(json!({ "total_cost": 1.5 }))));
    assert_eq!(requests(&server).await[0].url.query(), Some("summary=true"));
}

#[tokio::test]
async fn pages_lead_to_older_and_to_newer_requests() {
    let body = json!({
        "data": [{ "id": "req_4", "status": null, "cost": null, "created_at": null }, { "id": "req_3" }],
        "next_page_url": "https://evil.example/next", "previous_page_url": "https://evil.example/previous"
    });
    let (server, remote) = gateway("/v1/requests", body).await;
    let account = remote.account();
    let page = account.page(&RequestFilter::default(), Page::After("req_5"), false).await.unwrap();
    assert_eq!((page.previous(), page.next()), (Some(Page::Before("req_4")), Some(Page::After("req_3"))));
    assert_eq!(page.requests[0].status, RequestStatus::Unknown);
    account.page(&RequestFilter::default(), page.previous().unwrap(), false).await.unwrap();
    let requests = requests(&server).await;
    let queries: Vec<_> = requests.iter().map(|request| request.url.query().unwrap()).collect();
    assert_eq!(queries, ["starting_after=req_5", "ending_before=req_4"]);
}

#[tokio::test]
async fn a_list_that_leads_in_a_circle_is_told() {
    let server = MockServer::start().await;
    let page =
        |id: &str| ResponseTemplate::new(200).set_body_json(json!({ "data": [{ "id": id }], "next_page_url": "x" }));
    let at = || Mock::given(method("GET")).and(path("/v1/requests"));
    at().and(query_param("starting_after", "req_2")).respond_with(page("req_1")).mount(&server).await;
    at().and(query_param("starting_after", "req_1")).respond_with(page("req_2")).mount(&server).await;
    at().respond_with(page("req_2")).with_priority(9).mount(&server).await;
    let remote = gateway_at(&server.uri());
    let read: Vec<_> = remote.account().requests(RequestFilter::default()).take(9).collect().await;
    let (last, records) = read.split_last().unwrap();
    assert_eq!((records.len(), last.as_ref().unwrap_err().kind()), (3, ErrorKind::InvalidResponse), "{last:?}");
    assert!(records.iter().all(Result::is_ok));

    let body = json!({ "data": [{ "id": "req_1" }, { "id": 7 }], "next_page_url": "x" });
    let (_server, remote) = gateway("/v1/requests", body).await;
    let read: Vec<_> = remote.account().requests(RequestFilter::default()).take(9).collect().await;
    assert!(read.len() == 3 && read[2].as_ref().unwrap_err().kind() == ErrorKind::InvalidResponse, "{read:?}");
}

#[tokio::test]
async fn a_request_is_found_and_purged() {
    let (server, remote) = gateway("/v1/requests/req_1", json!({ "id": "req_1", "status": "napping" })).await;
    assert_eq!(remote.account().request("req_1").await.unwrap().status, RequestStatus::Unknown);

    let deleted = ResponseTemplate::new(204);
    Mock::given(method("DELETE")).and(path("/v1/requests/req_1/payloads")).respond_with(deleted).mount(&server).await;
    remote.account().purge("req_1").await.unwrap();
    // An id cannot lead to another path.
    let error = remote.account().purge("../balance").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(requests(&server).await[2].url.path(), "/v1/requests/..%2Fbalance/payloads");
    for id in ["", ".", ".."] {
        let error = remote.account().purge(id).await.unwrap_err();
        assert_eq!((error.kind(), error.parameter()), (ErrorKind::InvalidRequest, Some("id")), "{id:?}");
        assert_eq!(remote.account().request(id).await.unwrap_err().kind(), ErrorKind::InvalidRequest);
        assert_eq!(remote.models().get(&format!("fal/{id}")).await.unwrap_err().kind(), ErrorKind::InvalidRequest);
    }
    assert_eq!(requests(&server).await.len(), 3);
}

#[tokio::test]
async fn the_recorder_is_told_by_headers() {
    for (replay, headers) in [
        (Replay::off(), vec![("x-lumenfall-replay", "off")]),
        (Replay::mock(), vec![("x-lumenfall-replay", "mock")]),
        (Replay::record(), vec![("x-lumenfall-replay", "record")]),
        (Replay::replay_or_mock(), vec![("x-lumenfall-replay", "replay-or-mock")]),
        (Replay::replay_or_error(), vec![("x-lumenfall-replay", "replay-or-error")]),
        (Replay::replay_or_live(), vec![("x-lumenfall-replay", "replay-or-live")]),
        (Replay::replay_or_record(), vec![("x-lumenfall-replay", "replay-or-record")]),
        (Replay::record().matching_standard(), vec![("x-lumenfall-replay-match", "standard")]),
        (Replay::record().matching_strictly(), vec![("x-lumenfall-replay-match", "strict")]),
        (
            Replay::record().matching_fields(["prompt", "size"]),
            vec![("x-lumenfall-replay-match", "specific"), ("x-lumenfall-replay-fields", "prompt,size")],
        ),
        (
            Replay::replay_or_error().recording("rec_1"),
            vec![("x-lumenfall-replay-match", "pinned"), ("x-lumenfall-replay-recording", "rec_1")],
        ),
    ] {
        let server = answering(answer(200, ONE_ADDRESS)).await;
        generate(&builder(&server.uri()).replay(replay).backend().unwrap()).await.unwrap();
        let request = &requests(&server).await[0];
        for (name, value) in headers {
            assert_eq!(request.headers[name], value);
        }
    }
}

#[test]
fn a_recorders_header_that_cannot_be_sent_is_an_error() {
    for replay in [Replay::record().recording("line\nbreak"), Replay::record().matching_fields([""; 0])] {
        let error = Client::builder().api_key("k").replay(replay).build().unwrap_err();
        assert_eq!((error.kind(), error.parameter()), (ErrorKind::Configuration, Some("replay")));
    }
}

/// Neither a question about the account nor a dry run is billed, however it fails.
#[tokio::test]
async fn what_costs_nothing_is_not_called_billed() {
    for template in [
        ResponseTemplate::new(303).insert_header("location", "https://login.example"),
        answer(502, r#"{"error":{"code":"ALL_PROVIDERS_EXHAUSTED","message":"none"}}"#),
        answer(500, "{}"),
    ] {
        let server = MockServer::start().await;
        Mock::given(any()).respond_with(template.insert_header("retry-after-ms", "1")).mount(&server).await;
        let remote = crate::support::gateway(&server);
        let errors = [
            remote.account().balance().await.unwrap_err(),
            remote.estimate(Request::Generate(generate_spec()), RequestContext::default()).await.unwrap_err(),
        ];
        for error in errors {
            assert!(!error.maybe_billed() && error.attempts() > 0, "{error}");
        }
    }
}

#[tokio::test]
async fn a_served_schema_that_differs_is_reported() {
    let mut served: Value = serde_json::from_str(StableDiffusion35Medium::SCHEMA.json).unwrap();
    let n = served["parameters"].as_array_mut().unwrap().iter_mut().find(|parameter| parameter["name"] == "n");
    n.unwrap()["maximum"] = 4.into();
    let at = format!("/v1/models/{}", StableDiffusion35Medium::SCHEMA.id);
    let (server, remote) = gateway(&at, json!({ "schema": served })).await;
    let served = remote.models().schema::<StableDiffusion35Medium>().await.unwrap();
    let [change] = &served.changes[..] else { panic!("{:?}", served.changes) };
    assert!(change.is_breaking() && change.to_string().contains('4'), "{change}");
    assert_eq!(requests(&server).await[0].url.query(), Some("schema=true"));
}

#[tokio::test]
async fn odd_values_cost_only_themselves() {
    let odd = json!([
        { "id": "a", "created": 1.7e9, "owned_by": 7 }, { "id": 7 }, null, { "id": "b", "created": "today" }
    ]);
    for body in [odd.clone(), json!({ "object": "list", "data": odd })] {
        let (_server, remote) = gateway("/openai/v1/models", body).await;
        let models = remote.models().list().await.unwrap();
        assert_eq!((models.len(), models[1].id.as_str(), models[0].owned_by.as_ref()), (2, "b", None));
    }

    let body = json!({ "billing_type": null, "available": { "amount": "12.5", "currency": 7 } });
    let (_server, remote) = gateway("/v1/balance", body).await;
    let balance = remote.account().balance().await.unwrap();
    assert_eq!((balance.billing, balance.available.unwrap().amount), (Billed::Unknown, 12.5));

    let odd = json!({ "id": "req_1", "created_at": 7, "cost": "0.02", "request_size_bytes": 0.5, "status": {} });
    let (_server, remote) = gateway("/v1/requests", json!({ "data": [odd, null, 7, { "id": "req_2" }] })).await;
    let records: Vec<_> = remote.account().requests(RequestFilter::default()).try_collect().await.unwrap();
    assert_eq!((records.len(), records[0].cost, records[0].created_at.as_ref()), (2, Some(0.02), None));
}
