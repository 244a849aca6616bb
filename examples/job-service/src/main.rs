//! A web service that stores image requests as jobs in SQLite and executes them one after the other. Jobs that have not
//! started survive a restart.
//!
//! ```sh
//! LUMENFALL_API_KEY=… cargo run -p job-service
//! curl -d '{"generate":{"model":"stable-diffusion-3.5-medium","prompt":"a lighthouse"}}' \
//!   -H 'content-type: application/json' http://localhost:3000/jobs
//! curl http://localhost:3000/jobs/1
//! curl http://localhost:3000/jobs/1/image -o image.png
//! ```

mod jobs;

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use lumenfall::backend::Request;
use lumenfall::{Client, OutputFormat};
use serde_json::json;
use tokio::sync::Notify;

use jobs::{Job, Jobs};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let service = Service::open("jobs.sqlite", Client::from_env()?)?;
    tokio::spawn(service.clone().work());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, service.routes()).await?;
    Ok(())
}

#[derive(Clone)]
struct Service {
    client: Client,
    jobs: Arc<Jobs>,
    /// Notified for each new job.
    added: Arc<Notify>,
}

impl Service {
    fn open(database: impl AsRef<std::path::Path>, client: Client) -> rusqlite::Result<Self> {
        Ok(Self { client, jobs: Arc::new(Jobs::open(database)?), added: Arc::default() })
    }

    fn routes(self) -> Router {
        Router::new()
            .route("/jobs", post(create))
            .route("/jobs/{id}", get(status))
            .route("/jobs/{id}/image", get(image))
            .with_state(self)
    }

    /// Executes the jobs, oldest first.
    async fn work(self) {
        loop {
            let job = self.jobs.start_next();
            match job {
                Ok(Some((id, request))) => {
                    let images = self.client.request(request).inline().send().await;
                    let image = images.and_then(|images| match images.into_iter().next() {
                        Some(image) => Ok(image.bytes().clone()),
                        None => Err(lumenfall::Error::new(lumenfall::ErrorKind::InvalidResponse, "there is no image")),
                    });
                    if let Err(error) = self.jobs.finish(id, image) {
                        eprintln!("job {id} cannot be stored: {error}");
                    }
                }
                Ok(None) => self.added.notified().await,
                Err(error) => {
                    eprintln!("the jobs cannot be read: {error}");
                    return;
                }
            }
        }
    }
}

/// Checks the request before it is stored, so that the caller learns at once what is wrong with it.
async fn create(State(service): State<Service>, Json(request): Json<Request>) -> Response {
    if let Err(error) = service.client.request(request.clone()).check() {
        let problem = json!({ "error": error.to_string(), "parameter": error.parameter() });
        return (StatusCode::UNPROCESSABLE_ENTITY, Json(problem)).into_response();
    }
    match service.jobs.add(&request) {
        Ok(id) => {
            service.added.notify_one();
            (StatusCode::ACCEPTED, Json(json!({ "id": id }))).into_response()
        }
        Err(error) => failed(&error),
    }
}

async fn status(State(service): State<Service>, Path(id): Path<i64>) -> Response {
    match service.jobs.get(id) {
        Ok(Some(Job { state, error, .. })) => Json(json!({ "state": state, "error": error })).into_response(),
        Ok(None) => StatusCode::NOT_FOUND.into_response(),
        Err(error) => failed(&error),
    }
}

async fn image(State(service): State<Service>, Path(id): Path<i64>) -> Response {
    match service.jobs.get(id) {
        Ok(Some(Job { image: Some(image), .. })) => {
            let media_type = OutputFormat::of(&image).map_or("application/octet-stream", OutputFormat::media_type);
            ([(header::CONTENT_TYPE, media_type)], image).into_response()
        }
        Ok(_) => StatusCode::NOT_FOUND.into_response(),
        Err(error) => failed(&error),
    }
}

fn failed(error: &rusqlite::Error) -> Response {
    (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::{Body, to_bytes};
    use axum::http;
    use lumenfall::testing::{MockBackend, PIXEL};
    use serde_json::Value;
    use tower::ServiceExt;

    type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

    async fn call(service: &Service, request: http::Request<Body>) -> Result<(StatusCode, Vec<u8>)> {
        let response = service.clone().routes().oneshot(request).await?;
        Ok((response.status(), to_bytes(response.into_body(), 1 << 20).await?.to_vec()))
    }

    async fn post(service: &Service, body: &str) -> Result<(StatusCode, Value)> {
        let request = http::Request::post("/jobs").header("content-type", "application/json");
        let (status, body) = call(service, request.body(body.to_owned().into())?).await?;
        Ok((status, serde_json::from_slice(&body).unwrap_or_default()))
    }

    #[tokio::test]
    async fn a_job_survives_a_restart_and_an_invalid_one_is_refused_at_once() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("jobs.sqlite");
        let backend = MockBackend::new();
        let first = Service::open(&path, Client::new(backend.clone()))?;
        let job = r#"{"generate":{"model":"stable-diffusion-3.5-medium","prompt":"a lighthouse","options":{"n":N}}}"#;
        let (status, problem) = post(&first, &job.replace('N', "11")).await?;
        assert_eq!((status, problem["parameter"].as_str()), (StatusCode::UNPROCESSABLE_ENTITY, Some("n")));
        let (status, created) = post(&first, &job.replace('N', "1")).await?;
        assert_eq!((status, created["id"].as_i64()), (StatusCode::ACCEPTED, Some(1)));
        drop(first);

        let second = Service::open(&path, Client::new(backend.clone()))?;
        let worker = tokio::spawn(second.clone().work());
        while second.jobs.get(1)?.is_some_and(|job| job.state != "finished") {
            tokio::task::yield_now().await;
        }
        let (status, image) = call(&second, http::Request::get("/jobs/1/image").body(Body::empty())?).await?;
        assert_eq!((status, image.as_slice()), (StatusCode::OK, PIXEL));
        assert_eq!(backend.requests().len(), 1);
        worker.abort();
        Ok(())
    }
}
