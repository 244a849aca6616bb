//! The mock gateway accepts what clients other than this crate send, byte for byte.

use lumenfall::testing::{MockGateway, PIXEL};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::MODEL;

/// Connects, and returns the connection with the start of a request: its head up to the headers of the body.
async fn connect(gateway: &MockGateway, endpoint: &str, authorization: &str) -> (TcpStream, String) {
    let base_url = gateway.base_url();
    let (address, path) = base_url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let head = format!(
        "POST /{path}/images/{endpoint} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\nauthorization: {authorization}\r\n"
    );
    (TcpStream::connect(address).await.unwrap(), head)
}

async fn response(mut stream: TcpStream) -> String {
    let mut response = String::new();
    stream.read_to_string(&mut response).await.unwrap();
    response
}

/// Sends JSON and returns the response.
async fn post(gateway: &MockGateway, authorization: &str, body: &Value) -> String {
    let (mut stream, head) = connect(gateway, "generations", authorization).await;
    let body = body.to_string();
    let length = body.len();
    let request = format!("{head}content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).await.unwrap();
    response(stream).await
}

fn bearer(gateway: &MockGateway) -> String {
    format!("Bearer {}", gateway.key())
}

#[tokio::test]
async fn a_chunked_form_with_a_quoted_boundary_is_read_after_100_continue() {
    let gateway = MockGateway::start().await.unwrap();
    let (mut stream, head) = connect(&gateway, "edits", &bearer(&gateway)).await;
    let headers = "content-type: multipart/form-data; boundary=\"one (1): two?\"\r\ntransfer-encoding: chunked\r\n";
    stream.write_all(format!("{head}{headers}expect: 100-continue\r\n\r\n").as_bytes()).await.unwrap();
    // The body is not sent before the server asks for it.
    let mut interim = [0; 25];
    stream.read_exact(&mut interim).await.unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");

    let mut form = Vec::new();
    for (name, value) in [("model", MODEL), ("prompt", "stars"), ("n", "2")] {
        let part = format!("--one (1): two?\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
        form.extend_from_slice(part.as_bytes());
    }
    form.extend_from_slice(
        b"--one (1): two?\r\nContent-Disposition: form-data; name=\"image\"; filename=\"a.png\"\r\n\r\n",
    );
    form.extend_from_slice(PIXEL);
    form.extend_from_slice(b"\r\n--one (1): two?--\r\n");
    for chunk in form.chunks(100) {
        stream.write_all(format!("{:x}\r\n", chunk.len()).as_bytes()).await.unwrap();
        stream.write_all(chunk).await.unwrap();
        stream.write_all(b"\r\n").await.unwrap();
    }
    stream.write_all(b"0\r\n\r\n").await.unwrap();
    let response = response(stream).await;
    assert!(response.starts_with("HTTP/1.1 200 OK"), "{response}");
    let [received] = &gateway.received()[..] else { panic!("one request") };
    assert_eq!(Value::from(received.fields.clone()), json!({ "model": MODEL, "prompt": "stars", "n": 2 }));
    assert_eq!(received.files, ["image"]);
}

#[tokio::test]
async fn the_name_of_the_authentication_scheme_is_case_insensitive() {
    let gateway = MockGateway::start().await.unwrap();
    let body = json!({ "model": MODEL, "prompt": "a lighthouse" });
    let key = gateway.key();
    for (authorization, status) in
        [(format!("bearer {key}"), "200"), (format!("BEARER {key}"), "200"), (format!("Basic {key}"), "401")]
    {
        let response = post(&gateway, &authorization, &body).await;
        assert!(response.starts_with(&format!("HTTP/1.1 {status}")), "{authorization}: {response}");
    }
}

#[tokio::test]
async fn a_missing_model_and_a_malformed_body_are_invalid_requests() {
    let gateway = MockGateway::start().await.unwrap();
    let bodies =
        [json!({ "prompt": "a" }), json!({ "model": "", "prompt": "a" }), json!({ "model": 1 }), json!("text")];
    for (body, reason) in bodies.into_iter().zip(["`model`", "`model`", "`model`", "malformed"]) {
        let response = post(&gateway, &bearer(&gateway), &body).await;
        assert!(response.starts_with("HTTP/1.1 400"), "{body}: {response}");
        let (_, error) = response.split_once("\r\n\r\n").unwrap();
        let error: Value = serde_json::from_str(error).unwrap();
        assert_eq!(error["error"]["code"], "INVALID_REQUEST");
        assert!(error["error"]["message"].as_str().unwrap().contains(reason), "{error}");
    }
}

#[tokio::test]
async fn images_have_the_prompt_as_revised_prompt_and_are_streamed_as_events() {
    let gateway = MockGateway::start().await.unwrap();
    let mut body = json!({ "model": MODEL, "prompt": "a lighthouse", "n": 2 });
    let whole = post(&gateway, &bearer(&gateway), &body).await;
    assert_eq!(whole.matches("\"revised_prompt\":\"a lighthouse\"").count(), 2, "{whole}");

    body["stream"] = true.into();
    body["partial_images"] = 1.into();
    let streamed = post(&gateway, &bearer(&gateway), &body).await;
    let (head, events) = streamed.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("content-type: text/event-stream"), "{head}");
    let events: Vec<_> = events.split_terminator("\n\n").map(|event| event.split_once("\ndata: ").unwrap()).collect();
    let (names, data): (Vec<_>, Vec<_>) = events.into_iter().unzip();
    let image = ["event: image_generation.partial_image", "event: image_generation.completed"];
    assert_eq!(names, [image, image].concat());
    let pixel = base64_simd::STANDARD.encode_to_string(PIXEL);
    for (name, data) in names.iter().zip(data) {
        let data: Value = serde_json::from_str(data).unwrap();
        assert_eq!(format!("event: {}", data["type"].as_str().unwrap()), *name);
        assert_eq!(data["b64_json"], pixel);
    }

    body["partial_images"] = 4.into();
    assert!(post(&gateway, &bearer(&gateway), &body).await.starts_with("HTTP/1.1 400"));
    assert_eq!(gateway.received()[1].fields["stream"], true);
}

#[tokio::test]
async fn http2_is_served_without_tls() {
    let gateway = MockGateway::start().await.unwrap();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
    let request = client.post(format!("{}/images/generations", gateway.base_url())).bearer_auth(gateway.key());
    let response = request.json(&json!({ "model": MODEL, "prompt": "a lighthouse" })).send().await.unwrap();
    assert_eq!((response.version(), response.status().as_u16()), (reqwest::Version::HTTP_2, 200));
}
