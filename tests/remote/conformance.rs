//! The conformance suite for backends, run with fal and Replicate. `tests/gateway_mock.rs` runs it with the gateway.

use lumenfall::testing::conformance;
use wiremock::Respond;
use wiremock::matchers::any;

use crate::support::*;

/// Both providers. A job has ended when its status is requested first; its id consists of the requested format and number of
/// images. The images are files on the same server.
struct Providers(String);

impl Respond for Providers {
    fn respond(&self, request: &wiremock::Request) -> ResponseTemplate {
        let path: Vec<_> = request.url.path().split('/').skip(1).collect();
        let key = request.headers.get("authorization").map(|key| key.to_str().unwrap());
        let scheme = if path[0] == "fal-ai" { "Key" } else { "Bearer" };
        match (&path[..], key) {
            (["files", "png"], None) => ResponseTemplate::new(200).set_body_bytes(PNG),
            (["files", "jpeg" | "jpg"], None) => ResponseTemplate::new(200).set_body_bytes(JPEG),
            (["files", "webp"], None) => ResponseTemplate::new(200).set_body_bytes(b"RIFF\0\0\0\0WEBP and the rest"),
            (_, key) if key != Some(&format!("{scheme} {KEY}")) => ResponseTemplate::new(401),
            _ => self.json(&path, &request.body).map_or(ResponseTemplate::new(422), |body| json_response(200, body)),
        }
    }
}

impl Providers {
    /// Returns the response to a valid request.
    fn json(&self, path: &[&str], body: &[u8]) -> Option<Value> {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let file = |format: &str| format!("{}/files/{format}", self.0);
        Some(match path {
            ["fal-ai", "stable-diffusion-v35-medium"] => {
                let number = body.get("num_images").map_or(Some(1), Value::as_u64)?;
                json!({ "request_id": format!("{}-{number}", format(&body, &["jpeg", "png"])?) })
            }
            ["fal-ai", _, "requests", _, "status"] => json!({ "status": "COMPLETED" }),
            ["fal-ai", _, "requests", id] => {
                let (format, number) = id.split_once('-')?;
                let images = vec![json!({ "url": file(format) }); number.parse().ok()?];
                json!({ "images": images, "seed": 7, "has_nsfw_concepts": [false] })
            }
            ["models", "stability-ai", "stable-diffusion-3.5-medium", "predictions"] => {
                json!({ "id": format(body.get("input")?, &["webp", "jpg", "png"])?, "status": "starting" })
            }
            ["predictions", id] => json!({ "id": id, "status": "succeeded", "output": [file(id)] }),
            _ => return None,
        })
    }
}

/// Returns the requested format if it is supported. The first one is the default.
fn format<'a>(input: &'a Value, supported: &[&'a str]) -> Option<&'a str> {
    let requested = input.get("output_format").map_or(supported.first().copied(), Value::as_str)?;
    supported.contains(&requested).then_some(requested)
}

#[tokio::test]
async fn fal_and_replicate_conform() {
    let server = MockServer::start().await;
    Mock::given(any()).respond_with(Providers(server.uri())).mount(&server).await;
    let interval = Duration::from_millis(1);
    let fal = Fal::builder().api_key(KEY).base_url(server.uri()).poll_interval(interval).build().unwrap();
    let replicate = Replicate::builder().api_key(KEY).base_url(server.uri()).poll_interval(interval).build().unwrap();
    for backend in [&fal as &dyn Backend, &replicate] {
        let edit = edit_spec([Input::bytes(PNG)]).with_prompt("stars");
        assert_eq!(conformance(backend, generate_spec(), edit).await, Vec::<String>::new(), "{backend:?}");
    }
}
