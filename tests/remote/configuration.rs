//! Settings that cannot work say so before anything is sent.

use std::env;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use lumenfall::backend::{Backend, RequestContext};
use lumenfall::remote::ClientBuilder;
use lumenfall::{Client, ErrorKind, RetryPolicy};
use wiremock::MockServer;

use crate::support::{ONE_ADDRESS, answering, builder, generate, generate_spec, json, own_http_client, requests};

#[test]
fn a_missing_key_names_the_variable_and_the_remedy() {
    let error = Client::builder().build().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert!(error.to_string().contains("LUMENFALL_API_KEY"), "{error}");
    let error = Client::builder().api_key("").build().unwrap_err();
    assert!(error.to_string().contains("LUMENFALL_API_KEY"), "{error}");
}

#[test]
fn a_key_with_a_newline_is_an_error_that_does_not_print_it() {
    for key in ["canary\n", "ca nary", "canary\r\nx-evil: 1", "canär", "canary\0"] {
        let error = Client::builder().api_key(key).build().unwrap_err();
        assert_eq!((error.kind(), error.parameter()), (ErrorKind::Configuration, Some("api_key")));
        let text = format!("{error} {error:?}");
        assert!(!text.contains("canary") && !text.contains("nary") && !text.contains("evil"), "{text}");
    }
}

#[test]
fn a_base_address_that_cannot_work_is_an_error() {
    for url in ["", "api.lumenfall.ai", "ftp://host/v1", "mailto:a@b", "https://user:canary@host/v1", "http://"] {
        let error = Client::builder().api_key("k").base_url(url).build().unwrap_err();
        assert_eq!((error.kind(), error.parameter()), (ErrorKind::Configuration, Some("base_url")), "{url}");
        assert!(!format!("{error} {error:?}").contains("canary"));
    }
}

#[test]
fn a_header_or_proxy_that_cannot_work_is_an_error() {
    let builder = || Client::builder().api_key("k");
    for client in [
        builder().header("two words", "x"),
        builder().header("x", "line\nbreak"),
        builder().header("Authorization", "Bearer other"),
        builder().header("Content-Type", "application/json"),
        builder().header("Accept-Encoding", "gzip"),
        builder().proxy("::canary::"),
    ] {
        let error = client.build().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        assert!(!format!("{error} {error:?}").contains("canary"));
    }
}

#[tokio::test]
async fn without_key_no_authorization_is_sent() {
    let server = answering(json(200, ONE_ADDRESS)).await;
    let remote = Client::builder().without_key().base_url(server.uri()).backend().unwrap();
    generate(&remote).await.unwrap();
    assert!(!requests(&server).await[0].headers.contains_key("authorization"));
}

#[tokio::test]
async fn the_callers_own_http_client_and_proxy_are_used() {
    let server = answering(json(200, ONE_ADDRESS)).await;
    // The proxy answers for a host that does not exist.
    let remote =
        Client::builder().without_key().base_url("http://api.invalid/v1").proxy(server.uri()).backend().unwrap();
    generate(&remote).await.unwrap();

    let own = own_http_client().user_agent("mine").build().unwrap();
    let remote = Client::builder().without_key().base_url(server.uri()).http_client(own).backend().unwrap();
    generate(&remote).await.unwrap();
    assert_eq!(requests(&server).await[1].headers["user-agent"], "mine");
}

/// The environment belongs to the whole process, so each case is one of its own: this test, told where to call.
#[tokio::test]
async fn a_proxy_that_the_environment_names_is_used() {
    const BASE: &str = "LUMENFALL_TEST_BASE_URL";
    if let Ok(base) = env::var(BASE) {
        let _ = generate(&builder(&base).retry(RetryPolicy::none()).backend().unwrap()).await;
        return;
    }
    let names = ["ALL_PROXY", "all_proxy", "HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"];
    for name in names {
        let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", proxy.local_addr().unwrap());
        let (sender, asked) = mpsc::channel();
        thread::spawn(move || {
            let (stream, _) = proxy.accept().unwrap();
            let mut line = String::new();
            BufReader::new(stream).read_line(&mut line).unwrap();
            sender.send(line).unwrap();
        });
        let scheme = if name.to_lowercase() == "https_proxy" { "https" } else { "http" };
        let mut child = Command::new(env::current_exe().unwrap());
        names.iter().chain(&["NO_PROXY", "no_proxy", "REQUEST_METHOD"]).for_each(|name| {
            child.env_remove(name);
        });
        child.args(["--exact", "configuration::a_proxy_that_the_environment_names_is_used"]);
        let output = child.env(name, address).env(BASE, format!("{scheme}://api.invalid/v1")).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        assert!(
            asked.recv_timeout(Duration::from_secs(1)).unwrap_or_default().contains("api.invalid"),
            "{name} is not heeded"
        );
    }
}

/// In a process of its own, too.
#[tokio::test]
async fn each_backend_has_a_key_of_its_own_in_the_environment() {
    const BASE: &str = "LUMENFALL_TEST_KEYS_URL";
    if let Ok(base) = env::var(BASE) {
        let gateway = ClientBuilder::from_env().base_url(&base).backend().unwrap();
        let fal = ClientBuilder::from_fal_env().base_url(&base).fal().unwrap();
        let replicate = ClientBuilder::from_replicate_env().base_url(&base).replicate().unwrap();
        for backend in [&gateway as &dyn Backend, &fal, &replicate] {
            let error = backend.generate(generate_spec(), RequestContext::default()).await.unwrap_err();
            assert_eq!(error.status(), Some(404));
        }
        return;
    }
    let server = MockServer::start().await;
    let mut child = Command::new(env::current_exe().unwrap());
    child.args(["--exact", "configuration::each_backend_has_a_key_of_its_own_in_the_environment"]);
    child.env("LUMENFALL_API_KEY", "one").env("FAL_KEY", "two").env("REPLICATE_API_TOKEN", "three");
    let output = child.env_remove("HTTP_PROXY").env_remove("http_proxy").env(BASE, server.uri()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let keys = requests(&server).await.into_iter().map(|request| request.headers["authorization"].clone());
    assert_eq!(keys.collect::<Vec<_>>(), ["Bearer one", "Key two", "Bearer three"]);
}

#[tokio::test]
async fn the_longest_time_out_is_none() {
    let server = answering(json(200, ONE_ADDRESS)).await;
    let builder = builder(&server.uri()).timeout(Duration::MAX).first_byte_timeout(Duration::MAX);
    let remote = builder.idle_timeout(Duration::MAX).connect_timeout(Duration::MAX).backend().unwrap();
    assert_eq!(generate(&remote).await.unwrap().len(), 1);
}
