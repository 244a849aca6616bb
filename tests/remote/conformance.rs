//! The suite that every backend passes, run over the two providers' own backends.

use std::sync::Mutex;
use std::time::Duration;

use lumenfall::Input;
use lumenfall::backend::Backend;
use lumenfall::testing::conformance;
use serde_json::{Value, json};
use wiremock::matchers::any;
use wiremock::{Mock, MockServer, Request, Respond, ResponseTemplate};

use crate::support::{JPEG, KEY, PNG, builder, edit_spec, generate_spec};

const WEBP: &[u8] = b"RIFF\0\0\0\0WEBP and the rest of a picture";

/// A provider that does what it is asked: its images are files on the same server, in the format of the request.
struct Provider {
    uri: String,
    jobs: Mutex<Vec<Job>>,
    /// The word before the key.
    scheme: &'static str,
    /// Its answer to a method, the parts of a path and a body, where it has one.
    speak: fn(&Provider, &str, &[&str], Value) -> Option<Value>,
}

/// What a job was asked for, and how often it was asked about.
struct Job {
    input: Value,
    questions: usize,
}

impl Provider {
    async fn start(scheme: &'static str, speak: fn(&Self, &str, &[&str], Value) -> Option<Value>) -> MockServer {
        let server = MockServer::start().await;
        let provider = Self { uri: server.uri(), jobs: Mutex::default(), scheme, speak };
        Mock::given(any()).respond_with(provider).mount(&server).await;
        server
    }

    /// Takes a job, and gives its id.
    fn take(&self, input: Value) -> String {
        let mut jobs = self.jobs.lock().unwrap();
        jobs.push(Job { input, questions: 0 });
        format!("job-{}", jobs.len() - 1)
    }

    /// What the job was asked for, and how often it was asked about before.
    fn ask(&self, id: &str) -> Option<(Value, usize)> {
        let mut jobs = self.jobs.lock().unwrap();
        let job = jobs.get_mut(id.strip_prefix("job-")?.parse::<usize>().ok()?)?;
        job.questions += 1;
        Some((job.input.clone(), job.questions - 1))
    }

    fn file(&self, format: &str) -> String {
        format!("{}/files/{format}", self.uri)
    }
}

impl Respond for Provider {
    fn respond(&self, request: &Request) -> ResponseTemplate {
        let path: Vec<_> = request.url.path().split('/').skip(1).collect();
        let key = request.headers.get("authorization").map(|key| key.to_str().unwrap());
        match (&path[..], key) {
            (["files", format], None) => file(format),
            (["files", _], Some(_)) => ResponseTemplate::new(400),
            (_, key) if key != Some(&format!("{} {KEY}", self.scheme)) => ResponseTemplate::new(401),
            _ => {
                let body = serde_json::from_slice(&request.body).unwrap_or_default();
                let answer = (self.speak)(self, request.method.as_str(), &path, body);
                answer.map_or(ResponseTemplate::new(422), |answer| ResponseTemplate::new(200).set_body_json(answer))
            }
        }
    }
}

fn file(format: &str) -> ResponseTemplate {
    let bytes = match format {
        "png" => PNG,
        "jpeg" | "jpg" => JPEG,
        "webp" => WEBP,
        _ => return ResponseTemplate::new(404),
    };
    ResponseTemplate::new(200).set_body_bytes(bytes)
}

/// The format that a job asked for, if it is one of `known`, whose first is the provider's own choice.
fn format(input: &Value, known: &[&'static str]) -> Option<&'static str> {
    let asked = input.get("output_format").map_or(known.first().copied(), Value::as_str)?;
    known.iter().copied().find(|known| *known == asked)
}

fn fal(provider: &Provider, method: &str, path: &[&str], body: Value) -> Option<Value> {
    match (method, path) {
        ("POST", ["fal-ai", "stable-diffusion-v35-medium"]) => {
            format(&body, &["jpeg", "png"])?;
            Some(json!({ "request_id": provider.take(body) }))
        }
        ("GET", ["fal-ai", _, "requests", id, "status"]) => {
            let (_, questions) = provider.ask(id)?;
            let status = ["IN_QUEUE", "IN_PROGRESS", "COMPLETED"][questions.min(2)];
            Some(json!({ "status": status }))
        }
        ("GET", ["fal-ai", _, "requests", id]) => {
            let (input, _) = provider.ask(id)?;
            let image = json!({ "url": provider.file(format(&input, &["jpeg", "png"])?) });
            let number = input.get("num_images").map_or(Some(1), Value::as_u64)?;
            Some(json!({ "images": vec![image; number as usize], "seed": 7, "has_nsfw_concepts": [false] }))
        }
        _ => None,
    }
}

fn replicate(provider: &Provider, method: &str, path: &[&str], body: Value) -> Option<Value> {
    let formats = ["webp", "jpg", "png"];
    match (method, path) {
        ("POST", ["models", "stability-ai", "stable-diffusion-3.5-medium", "predictions"]) => {
            let input = body.get("input")?.clone();
            format(&input, &formats)?;
            Some(json!({ "id": provider.take(input), "status": "starting" }))
        }
        ("GET", ["predictions", id]) => {
            let (input, questions) = provider.ask(id)?;
            let status = ["starting", "processing", "succeeded"][questions.min(2)];
            Some(json!({ "id": id, "status": status, "output": [provider.file(format(&input, &formats)?)] }))
        }
        _ => None,
    }
}

async fn broken_promises(backend: &dyn Backend) -> Vec<String> {
    let mut edit = edit_spec(vec![Input::bytes(PNG)]);
    edit.prompt = Some("stars".into());
    conformance(backend, generate_spec(), edit).await
}

const INTERVAL: Duration = Duration::from_millis(5);

#[tokio::test]
async fn fal_does_what_every_backend_does() {
    let server = Provider::start("Key", fal).await;
    let backend = builder(&server.uri()).fal().unwrap().poll_interval(INTERVAL);
    assert_eq!(broken_promises(&backend).await, Vec::<String>::new());
}

#[tokio::test]
async fn replicate_does_what_every_backend_does() {
    let server = Provider::start("Bearer", replicate).await;
    let backend = builder(&server.uri()).replicate().unwrap().poll_interval(INTERVAL);
    assert_eq!(broken_promises(&backend).await, Vec::<String>::new());
}
