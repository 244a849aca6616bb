//! The responses of the server, which are full of secrets. The first segment of a path selects its behavior.

use std::time::Duration;

use lumenfall::testing::PIXEL;
use serde_json::{Value, json};
use wiremock::{Request, Respond, ResponseTemplate};

use super::{KEY, SIGNATURE};

/// The responses of the server at this URL.
pub(crate) struct Responses(pub(crate) String);

impl Respond for Responses {
    fn respond(&self, request: &Request) -> ResponseTemplate {
        let path: Vec<_> = request.url.path().split('/').skip(1).collect();
        let to_image = self.signed("/files/good");
        let (status, location, body) = match path[..] {
            ["files", "good"] => (200, to_image, PIXEL.to_vec()),
            ["files", "moved"] => (302, to_image, Vec::new()),
            ["files", "circular"] => (302, self.signed("/files/circular"), Vec::new()),
            ["files", "elsewhere"] => (302, format!("ftp://files.example/1.png?sig={SIGNATURE}"), Vec::new()),
            ["files", _] => (403, to_image, self.rejection().to_string().into_bytes()),
            ["redirecting", ..] => (307, to_image, Vec::new()),
            [_, "v1", .., "none" | "payloads" | "cancel"] => (404, to_image, self.rejection().to_string().into_bytes()),
            ["rejecting", "v1", "images" | "fal-ai", ..] => (422, to_image, self.rejection().to_string().into_bytes()),
            [scene, "v1", ..] => (200, to_image, self.success(scene, request).to_string().into_bytes()),
            _ => (404, to_image, Vec::new()),
        };
        // The caller does not wait for the response to a late submission.
        let is_late = path.first() == Some(&"late") && request.method == "POST" && path.last() != Some(&"cancel");
        ResponseTemplate::new(status)
            .set_body_bytes(body)
            .set_delay(Duration::from_secs(if is_late { 3 } else { 0 }))
            .insert_header("location", location)
            .insert_header("x-echo", format!("Bearer {KEY}"))
            .insert_header("link", self.signed("/more"))
            .insert_header("x-lumenfall-provider", KEY)
            .insert_header("x-lumenfall-model", KEY)
            .insert_header("x-request-id", KEY)
    }
}

impl Responses {
    fn signed(&self, path: &str) -> String {
        format!("{}{path}?sig={SIGNATURE}", self.0)
    }

    /// An error whose message, code and parameter contain secrets.
    fn rejection(&self) -> Value {
        let url = self.signed("/files/gone");
        let message = format!("the key {KEY} must not GET /files/gone?sig={SIGNATURE} ({url})");
        json!({ "error": { "message": message, "code": KEY, "param": KEY } })
    }

    /// Returns the fields of all responses together. Each reader ignores the fields of the others.
    fn success(&self, scene: &str, request: &Request) -> Value {
        let image = self.signed(&format!("/files/{scene}"));
        let rejection = self.rejection()["error"]["message"].clone();
        let status = match (scene, request.url.path().contains("fal-ai")) {
            ("waiting", true) => "IN_PROGRESS",
            ("waiting", false) => "processing",
            ("rejecting", false) => "failed",
            (_, true) => "COMPLETED",
            (_, false) => "succeeded",
        };
        let query = request.url.query().unwrap_or_default();
        let is_first_page = !query.contains("starting_after");
        // A record prints the name of its model, which no service confuses with a key.
        let name = if query.contains("dryRun") { KEY } else { "a-model" };
        json!({
            // Images.
            "created": 1_234_567_890,
            "data": [
                { "url": image, "id": "req_1", "status": "upstream_failure", "error_message": rejection },
                { "b64_json": "iVBORw0KGgo=", "id": if is_first_page { "req_2" } else { "req_3" } },
            ],
            "metadata": { "attempts": [{ "url": self.signed("/attempt") }], "executed_model": KEY },
            // Records and models.
            "next_page_url": is_first_page.then(|| self.signed("/more")),
            "summary": { "export": self.signed("/all") },
            "schema": {}, "source": self.signed("/schema"),
            // An estimate and a balance.
            "total_cost_micros": 20_000, "currency": name, "provider": KEY, "model": name, "components": [{ "type": KEY }],
            "billing_type": "prepaid", "available": { "amount": 1.5, "currency": "usd" },
            // Jobs at fal and Replicate.
            "id": if request.method == "POST" { KEY } else { "req_1" }, "request_id": KEY,
            "status": status, "status_url": self.signed("/status"), "urls": { "get": self.signed("/status") },
            "logs": rejection, "error_message": rejection,
            "images": [{ "url": image }], "output": [image],
        })
    }
}
