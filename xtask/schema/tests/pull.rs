//! Runs the program against a mock gateway.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};
use wiremock::matchers::{header, method, path, query_param};
use wiremock::{Mock, MockServer, ResponseTemplate};

const ID: &str = "stable-diffusion-3.5-medium";
const SCHEMA: &str = include_str!("../../../schemas/stable-diffusion-3.5-medium.json");

/// Runs `command` on `folder` while the gateway serves the schema with the changes of `edit`.
async fn run(command: &str, folder: &Path, edit: impl FnOnce(&mut Value)) -> Output {
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
    let mut program = Command::new(env!("CARGO_BIN_EXE_xtask-schema"));
    program.arg(folder).arg(command).env("LUMENFALL_API_KEY", "key");
    program.env("LUMENFALL_BASE_URL", server.uri() + "/openai/v1").env("LUMENFALL_NATIVE_URL", server.uri() + "/v1");
    tokio::task::spawn_blocking(move || program.output().unwrap()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn pull_writes_a_changed_schema_and_rejects_an_invalid_one() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(format!("{ID}.json"));
    fs::write(&file, SCHEMA).unwrap();

    for command in ["pull", "diff"] {
        let output = run(command, folder.path(), |_| ()).await;
        assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{ID}: unchanged\n"));
        assert!(output.status.success());
        assert_eq!(fs::read_to_string(&file).unwrap(), SCHEMA);
    }

    let lower_maximum = |schema: &mut Value| schema["parameters"][9]["maximum"] = json!(4);
    let change = format!("{ID}: parameter `n`: `maximum` was 10, is 4 (breaking)\n");
    let output = run("diff", folder.path(), lower_maximum).await;
    assert_eq!(String::from_utf8_lossy(&output.stdout), change);
    assert!(!output.status.success());
    assert_eq!(fs::read_to_string(&file).unwrap(), SCHEMA, "`diff` must not write");

    let output = run("pull", folder.path(), lower_maximum).await;
    assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).starts_with(&change), "{output:?}");
    let written = fs::read_to_string(&file).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&written).unwrap()["parameters"][9]["maximum"], 4);

    let output = run("pull", folder.path(), |schema| schema["parameters"][9]["maximun"] = json!(3)).await;
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && message.contains("maximun"), "{message}");
    assert_eq!(fs::read_to_string(&file).unwrap(), written, "an invalid schema must not be written");
}
