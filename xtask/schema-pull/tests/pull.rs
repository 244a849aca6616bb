//! The program against a gateway over loopback.
// Helpers are not marked as tests, but a panic in one is a failed test all the same.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};
use wiremock::matchers::{header, method, path, query_param};
use wiremock::{Mock, MockServer, ResponseTemplate};

const ID: &str = "stable-diffusion-3.5-medium";
const SCHEMA: &str = include_str!("../../../schemas/stable-diffusion-3.5-medium.json");

/// Runs the program on `folder` while the gateway serves the schema after `edit`.
async fn pull(folder: &Path, edit: impl FnOnce(&mut Value)) -> Output {
    let mut schema: Value = serde_json::from_str(SCHEMA).unwrap();
    edit(&mut schema);
    let server = MockServer::start().await;
    Mock::given(method("GET"))
        .and(path(format!("/v1/models/{ID}")))
        .and(query_param("schema", "true"))
        .and(header("authorization", "Bearer key"))
        .respond_with(ResponseTemplate::new(200).set_body_json(json!({ "id": ID, "schema": schema })))
        .mount(&server)
        .await;
    let mut program = Command::new(env!("CARGO_BIN_EXE_schema-pull"));
    program.arg(folder).env("LUMENFALL_API_KEY", "key");
    program.env("LUMENFALL_BASE_URL", server.uri() + "/openai/v1").env("LUMENFALL_NATIVE_URL", server.uri() + "/v1");
    tokio::task::spawn_blocking(move || program.output().unwrap()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_schema_is_told_and_written_and_a_broken_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(format!("{ID}.json"));
    fs::write(&file, SCHEMA).unwrap();

    let output = pull(folder.path(), |_| ()).await;
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{ID}: unchanged\n"));
    assert_eq!(fs::read_to_string(&file).unwrap(), SCHEMA);

    let output = pull(folder.path(), |schema| schema["parameters"][9]["maximum"] = json!(4)).await;
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(told.contains("parameter `n`: `maximum` was 10, is 4 (breaking)"), "{told}");
    let written = fs::read_to_string(&file).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&written).unwrap()["parameters"][9]["maximum"], 4);

    let output = pull(folder.path(), |schema| schema["parameters"][9]["maximun"] = json!(3)).await;
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && told.contains("maximun"), "{told}");
    assert_eq!(fs::read_to_string(&file).unwrap(), written, "a schema that cannot be read is not written");
}
