//! Recorded responses: each file in `tests/responses` contains a response and the outcome that every service must report for it.

use std::path::Path;

use wiremock::matchers::{method, path_regex};

use crate::support::*;

const FAL: &str = "/fal-ai/stable-diffusion-v35-medium";

/// The response of a file.
fn template(recorded: &Value) -> ResponseTemplate {
    let body = match &recorded["body"] {
        Value::String(text) => text.clone(),
        body => body.to_string(),
    };
    let headers = recorded["headers"].as_object().cloned().unwrap_or_default();
    let media_type = headers.get("content-type").and_then(Value::as_str).unwrap_or("application/json").to_owned();
    let status: u16 = recorded["status"].as_u64().unwrap().try_into().unwrap();
    let response = ResponseTemplate::new(status).set_body_raw(body, &media_type);
    let headers = headers.iter().filter(|(name, _)| *name != "content-type");
    headers.fold(response, |response, (name, value)| response.insert_header(name.as_str(), value.as_str().unwrap()))
}

/// A server that sends the recorded response to one kind of request, and those of an ordinary job to all others.
async fn server(recorded: &Value) -> MockServer {
    let server = MockServer::start().await;
    let job = json!({ "request_id": "r1", "id": "p1" });
    let result = format!("{FAL}/requests/r1");
    match recorded["at"].as_str() {
        None => Mock::given(method("POST")).respond_with(template(recorded)).mount(&server).await,
        Some("fal status") => on(&server, "GET", &format!("{result}/status"), None, template(recorded)).await,
        Some("fal result") => on(&server, "GET", &result, None, template(recorded)).await,
        Some("replicate prediction") => on(&server, "GET", "/predictions/p1", None, template(recorded)).await,
        Some(other) => panic!("there is no request {other}"),
    }
    Mock::given(method("POST")).respond_with(json_response(201, job)).mount(&server).await;
    let completed = json_response(200, json!({ "status": "COMPLETED" }));
    Mock::given(method("GET")).and(path_regex("/status$")).respond_with(completed).mount(&server).await;
    server
}

/// The services that can receive the response.
fn services(recorded: &Value, uri: &str) -> Vec<Box<dyn Backend>> {
    let (retry, timeout) = (RetryPolicy::none(), Duration::from_secs(5));
    let remote = builder(&format!("{uri}/v1")).retry(retry.clone()).timeout(timeout).build().unwrap();
    let fal = Fal::builder().api_key(KEY).base_url(uri).retry(retry.clone()).timeout(timeout);
    let fal = fal.poll_interval(Duration::from_millis(1)).build().unwrap();
    let replicate = Replicate::builder().api_key(KEY).base_url(uri).retry(retry).timeout(timeout);
    let replicate = replicate.poll_interval(Duration::from_millis(1)).build().unwrap();
    match recorded["at"].as_str() {
        Some(at) if at.starts_with("fal") => vec![Box::new(fal)],
        Some(_) => vec![Box::new(replicate)],
        None if recorded["status"].as_u64() >= Some(400) => vec![Box::new(remote), Box::new(fal), Box::new(replicate)],
        None => vec![Box::new(remote)],
    }
}

/// The outcome in the form of `expected`. Its `message` is the whole message.
fn outcome(result: Result<Output, Error>) -> Value {
    match result {
        Ok(output) => json!({ "images": output.images.len() }),
        Err(error) => json!({
            "kind": format!("{:?}", error.kind()),
            "message": error.to_string(),
            "maybe_billed": error.maybe_billed(),
            "code": error.code(),
            "retry_after": error.retry_after().map(|wait| wait.as_secs_f64()),
        }),
    }
}

/// Whether an outcome is as expected. Fields that `expected` omits are null, except for the code, which is not compared then.
fn matches(outcome: &Value, expected: &Value) -> bool {
    let same = |name: &str| {
        outcome[name] == expected[name]
            || outcome[name].as_f64().is_some_and(|value| expected[name].as_f64() == Some(value))
    };
    let contains =
        outcome["message"].as_str().unwrap_or_default().contains(expected["message"].as_str().unwrap_or_default());
    contains
        && ["images", "kind", "maybe_billed", "retry_after"].into_iter().all(same)
        && (expected["code"].is_null() || same("code"))
}

#[tokio::test]
async fn every_recorded_response_has_its_outcome_at_every_service() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/responses");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "json"));
    assert!(files.len() >= 60, "{} files", files.len());
    let mut failures = Vec::new();
    for file in files {
        let name = file.file_stem().unwrap().to_string_lossy();
        let recorded: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        let server = server(&recorded).await;
        for service in services(&recorded, &server.uri()) {
            let outcome = outcome(send(&*service, generate_spec()).await);
            if !matches(&outcome, &recorded["expected"]) {
                failures.push(format!(
                    "{name} through {}: {outcome}\n  expected {}",
                    service.name(),
                    recorded["expected"]
                ));
            }
        }
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}
