//! The gateway's own API: models, the balance and the records of earlier requests. `tests/gateway_mock.rs` tests the usual
//! case with the mock gateway.

use futures_util::{StreamExt, TryStreamExt};
use lumenfall::remote::{Billed, Page, RequestFilter, RequestRecord, RequestStatus};
use wiremock::matchers::query_param;

use crate::support::*;

fn gateway_at(server: &MockServer) -> Remote {
    let uri = server.uri();
    builder(&format!("{uri}/openai/v1")).native_url(format!("{uri}/v1")).build().unwrap()
}

/// A gateway with one response to GET requests of `path`.
async fn gateway_with(path: &str, body: Value) -> (MockServer, Remote) {
    let server = MockServer::start().await;
    on(&server, "GET", path, None, json_response(200, body)).await;
    let remote = gateway_at(&server);
    (server, remote)
}

async fn records(remote: &Remote, filter: RequestFilter) -> Vec<RequestRecord> {
    remote.account().requests(filter).try_collect().await.unwrap()
}

#[tokio::test]
async fn malformed_values_affect_only_themselves() {
    let model = json!({ "id": "fal/sd", "object": "model", "created": 7, "owned_by": "stability", "new": [] });
    let models = json!([model, { "id": "b", "created": 1.7e9, "owned_by": 7 }, { "id": 7 }, null, { "id": "c" }]);
    for body in [models.clone(), json!({ "object": "list", "data": models })] {
        let (_server, remote) = gateway_with("/openai/v1/models", body).await;
        let models = remote.models().list().await.unwrap();
        assert_eq!(models.iter().map(|model| &*model.id).collect::<Vec<_>>(), ["fal/sd", "b", "c"]);
        assert_eq!((models[0].created, models[0].owned_by.as_deref()), (Some(7), Some("stability")));
        assert_eq!((models[1].owned_by.as_deref(), models[2].created), (None, None));
    }
    let record = json!({ "id": "req_1", "created_at": 7, "cost": "0.02", "request_size_bytes": 0.5, "status": {} });
    let other = json!({ "id": "req_2", "cost": 0.035, "currency": "eur" });
    let negative = json!({ "id": "req_3", "cost": -1, "currency": 7 });
    let (_server, remote) = gateway_with("/v1/requests", json!({ "data": [record, null, 7, other, negative] })).await;
    let records = records(&remote, RequestFilter::default()).await;
    let costs: Vec<_> = records.iter().map(|record| record.cost.as_ref().map(ToString::to_string)).collect();
    assert_eq!(costs, [Some("0.02 USD".into()), Some("0.035 EUR".into()), None]);
    assert_eq!(records[0].created_at, None);
    assert_eq!(records[0].status, RequestStatus::Unknown);
}

#[tokio::test]
async fn a_balance_is_an_amount_or_unlimited() {
    let balance = |billing, amount: Value| json!({ "billing_type": billing, "available": { "amount": amount } });
    let euros = json!({ "billing_type": null, "available": { "amount": "12.5", "currency": "eur" } });
    for (body, expected) in [
        (balance("prepaid", json!(12.5)), Ok((Billed::Prepaid, Some((12.5, "USD".into()))))),
        (balance("postpaid", Value::Null), Ok((Billed::Postpaid, None))),
        (euros, Ok((Billed::Unknown, Some((12.5, "EUR".into()))))),
        (balance("prepaid", Value::Null), Err(ErrorKind::Upstream)),
        (balance("prepaid", json!("12,50")), Err(ErrorKind::InvalidResponse)),
        (json!({}), Err(ErrorKind::InvalidResponse)),
        (json!({ "available": [] }), Err(ErrorKind::InvalidResponse)),
    ] {
        let (server, remote) = gateway_with("/v1/balance", body.clone()).await;
        let balance = remote.account().balance().await.map_err(|error| error.kind());
        let read =
            balance.map(|balance| (balance.billing, balance.available.map(|cost| (cost.amount(), cost.currency))));
        assert_eq!(read, expected, "{body}");
        assert_eq!(requests(&server).await[0].headers["authorization"], format!("Bearer {KEY}"));
    }
}

/// Pages are requested by the ids of records, because a URL in a response could send the key to another host.
#[tokio::test]
async fn records_are_read_page_by_page_without_following_urls() {
    let server = MockServer::start().await;
    let page = |ids: [&str; 2], next: Option<&str>| {
        json_response(200, json!({ "data": ids.map(|id| json!({ "id": id })), "next_page_url": next }))
    };
    let second = Mock::given(query_param("starting_after", "req_3")).respond_with(page(["req_2", "req_1"], None));
    second.mount(&server).await;
    on(&server, "GET", "/v1/requests", None, page(["req_4", "req_3"], Some("https://evil.example/steal"))).await;
    let filter = RequestFilter { page_size: Some(1000), ..RequestFilter::default() };
    let records = records(&gateway_at(&server), filter).await;
    assert_eq!(records.iter().map(|record| &*record.id).collect::<Vec<_>>(), ["req_4", "req_3", "req_2", "req_1"]);
    assert!(requests(&server).await.iter().all(|request| request.url.query().unwrap().contains("limit=100")));
}

#[tokio::test]
async fn a_filter_and_a_position_are_sent_as_query_parameters() {
    let summary = json!({ "cost": 0.06 });
    let body = json!({ "data": [{ "id": "req_2" }, { "id": "req_1" }], "previous_page_url": "x", "summary": summary });
    let (server, remote) = gateway_with("/v1/requests", body).await;
    let filter = RequestFilter {
        created_after: Some("2026-01-01".into()),
        created_before: Some("2026-02-01".into()),
        key_id: Some("key_1".into()),
        status: Some(RequestStatus::UpstreamFailure),
        page_size: Some(0),
    };
    let page = remote.account().page(&filter, Page::Before("req_0"), true).await.unwrap();
    assert_eq!(
        (page.next(), page.previous(), page.summary.as_ref()),
        (None, Some(Page::Before("req_2")), Some(&summary))
    );
    let query = "limit=1&ending_before=req_0&created_after=2026-01-01&created_before=2026-02-01&key_id=key_1\
                 &status=upstream_failure&summary=true";
    assert_eq!(requests(&server).await[0].url.query(), Some(query));
}

#[tokio::test]
async fn pages_that_repeat_or_cannot_continue_end_in_an_error() {
    let server = MockServer::start().await;
    let page = |id: &str| json_response(200, json!({ "data": [{ "id": id }], "next_page_url": "x" }));
    for (after, next) in [("req_2", "req_1"), ("req_1", "req_2")] {
        Mock::given(query_param("starting_after", after)).respond_with(page(next)).mount(&server).await;
    }
    on(&server, "GET", "/v1/requests", None, page("req_2")).await;
    let no_id = json!({ "data": [{ "id": "req_1" }, { "id": 7 }], "next_page_url": "x" });
    let (_server, without_id) = gateway_with("/v1/requests", no_id).await;
    for (remote, count) in [(gateway_at(&server), 3), (without_id, 2)] {
        let read: Vec<_> = remote.account().requests(RequestFilter::default()).take(9).collect().await;
        let (last, records) = read.split_last().unwrap();
        assert_eq!((records.len(), last.as_ref().unwrap_err().kind()), (count, ErrorKind::InvalidResponse));
        assert!(records.iter().all(Result::is_ok));
    }
}

#[tokio::test]
async fn an_id_cannot_change_the_path() {
    let server = MockServer::start().await;
    let remote = gateway_at(&server);
    let account = remote.account();
    assert_eq!(account.purge("../balance").await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(remote.models().get("fal/sd").await.unwrap_err().kind(), ErrorKind::NotFound);
    let paths = requests(&server).await.into_iter().map(|request| request.url.path().to_owned());
    assert_eq!(paths.collect::<Vec<_>>(), ["/v1/requests/..%2Fbalance/payloads", "/openai/v1/models/fal/sd"]);
    for id in ["", ".", ".."] {
        let error = account.purge(id).await.unwrap_err();
        assert_eq!((error.kind(), error.parameter()), (ErrorKind::InvalidRequest, Some("id")), "{id:?}");
        assert_eq!(account.request(id).await.unwrap_err().kind(), ErrorKind::InvalidRequest);
        assert_eq!(remote.models().get(&format!("fal/{id}")).await.unwrap_err().kind(), ErrorKind::InvalidRequest);
    }
    assert_eq!(requests(&server).await.len(), 2);
}

#[test]
fn account_requests_and_dry_runs_are_never_billed() {
    let exhausted = r#"{"error":{"code":"ALL_PROVIDERS_EXHAUSTED","message":"none"}}"#;
    for response in [
        response("303 See Other", "location: https://login.example\r\n", ""),
        response("502 Bad Gateway", "", exhausted),
        response("500 Internal Server Error", "", ""),
    ] {
        paused(async {
            let server = RawServer::start([Act::Send(response)]).await;
            let remote = gateway(&server.uri);
            let estimate = remote.estimate(Request::Generate(generate_spec()), RequestContext::default()).await;
            for error in [remote.account().balance().await.unwrap_err(), estimate.unwrap_err()] {
                assert!(!error.maybe_billed() && error.attempts() > 0, "{error}");
            }
        });
    }
}
