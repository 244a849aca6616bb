//! Configuration: which settings are rejected, and that keys, proxies and custom HTTP clients are used.

use std::env;

use lumenfall::remote::{FalBuilder, RemoteBuilder, Replay, ReplicateBuilder};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::task::JoinHandle;
use wiremock::matchers::method;

use crate::support::*;

#[test]
fn a_missing_or_empty_key_names_the_variable_of_the_service() {
    for (result, variable) in [
        (Remote::builder().build().err(), "LUMENFALL_API_KEY"),
        (Remote::builder().api_key("").build().err(), "LUMENFALL_API_KEY"),
        (Fal::builder().build().err(), "FAL_KEY"),
        (Replicate::builder().build().err(), "REPLICATE_API_TOKEN"),
    ] {
        let error = result.unwrap();
        assert_eq!((error.kind(), error.parameter()), (ErrorKind::Configuration, Some("api_key")));
        assert!(error.to_string().contains(variable), "{error}");
    }
}

#[test]
fn settings_that_cannot_work_are_rejected_and_not_printed() {
    let valid = || Remote::builder().api_key("k");
    let keys = ["canary\n", "ca nary", "canary\r\nx-evil: 1", "canär", "canary\0"];
    let urls = ["", "api.lumenfall.ai", "ftp://host/v1", "mailto:a@b", "ftp://user:canary@host/v1", "http://"];
    let headers = [
        ("two words", "canary"),
        ("x", "canary\nevil"),
        ("Authorization", "Bearer canary"),
        ("Content-Type", "application/json"),
        ("Accept-Encoding", "gzip"),
    ];
    let replays = [Replay::record().recording("line\nbreak"), Replay::record().matching_fields([""; 0])];
    let builders = keys.map(|key| (valid().api_key(key), Some("api_key"))).into_iter();
    let builders = builders.chain(urls.map(|url| (valid().base_url(url), Some("base_url"))));
    let builders = builders.chain(headers.map(|(name, value)| (valid().header(name, value), None)));
    let builders = builders.chain(replays.map(|replay| (valid().replay(replay), Some("replay"))));
    let proxies =
        ["::canary::", "quic://canary", "SOCKS5://canary", "http://canary/path", "socks5://us er:canary@host", ""];
    let builders = builders.chain(proxies.map(|url| (valid().proxy(url), Some("proxy"))));
    for (builder, parameter) in builders {
        let error = builder.build().unwrap_err();
        assert_eq!((error.kind(), error.parameter()), (ErrorKind::Configuration, parameter), "{error}");
        let text = format!("{error} {error:?}");
        assert!(!text.contains("nary") && !text.contains("evil"), "{text}");
    }
}

#[tokio::test]
async fn without_key_sends_no_authorization() {
    let server = responding(json_response(200, ONE_URL)).await;
    generate(&Remote::builder().without_key().base_url(server.uri()).build().unwrap()).await.unwrap();
    assert!(!requests(&server).await[0].headers.contains_key("authorization"));
}

#[tokio::test]
async fn a_configured_proxy_is_used_for_requests_and_downloads() {
    let proxy = responding(json_response(200, with_urls(&["http://media.invalid/1.png"]))).await;
    Mock::given(method("GET")).respond_with(ResponseTemplate::new(200).set_body_bytes(PNG)).mount(&proxy).await;
    let remote = builder("http://api.invalid/v1").proxy(proxy.uri()).build().unwrap();
    let images = generate(&remote).await.unwrap();
    assert_eq!(images[0].download().await.unwrap(), PNG);
}

#[tokio::test]
async fn another_header_can_contain_the_key() {
    let server = responding(json_response(400, json!({"error": {"message": format!("bad key {KEY}")}}))).await;
    let remote = builder(&server.uri()).api_key_header("api-key").build().unwrap();
    let error = generate(&remote).await.unwrap_err();
    assert!(!format!("{error} {error:?}").contains("canary"), "{error}");
    let headers = &requests(&server).await[0].headers;
    assert_eq!((headers["api-key"].to_str().unwrap(), headers.get("authorization")), (KEY, None));
    let other = builder(&server.uri()).api_key("another").api_key_header("api-key").build().unwrap();
    assert_eq!(remote.identity(), other.identity());
    for name in ["two words", "Content-Type", ""] {
        let error = builder(&server.uri()).api_key_header(name).build().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
    }
}

#[tokio::test]
async fn user_and_password_of_the_base_url_are_sent_as_basic_authentication_and_not_printed() {
    let quoted = "p@:ry and p%40%3Ary and bWU6cEA6cnk= are wrong";
    let server = responding(json_response(401, json!({"error": {"message": quoted}}))).await;
    let url = server.uri().replace("http://", "http://me:p%40%3Ary@");
    let basic = || Remote::builder().base_url(&url);
    for (builder, key) in
        [(basic(), None), (basic().without_key(), None), (basic().api_key(KEY).api_key_header("x-api-key"), Some(KEY))]
    {
        let shown = format!("{builder:?}");
        let remote = builder.build().unwrap();
        let error = generate(&remote).await.unwrap_err();
        assert!(error.to_string().contains("[secret] and [secret] and [secret] are wrong"), "{error}");
        let text = format!("{shown} {remote:?} {error} {error:?} {}", remote.identity());
        assert!(!["p@:ry", "p%40", "bWU6"].iter().any(|secret| text.contains(secret)), "{text}");
        let headers = requests(&server).await.pop().unwrap().headers;
        assert_eq!(headers["authorization"], "Basic bWU6cEA6cnk=");
        assert_eq!(headers.get("x-api-key").map(|key| key.to_str().unwrap()), key);
    }
    for builder in [basic().api_key(KEY), basic().without_key().native_url(&url)] {
        let error = builder.build().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        assert!(!format!("{error} {error:?}").contains("p%40"), "{error}");
    }
    assert!(basic().api_key(KEY).build().unwrap_err().to_string().contains("api_key_header"));
}

/// A SOCKS proxy that accepts one connection and forwards it to `target`, whatever target the client asks for. Returns its
/// address, and the client's bytes of the handshake.
async fn socks_proxy(version: u8, target: String) -> (String, JoinHandle<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let handshake = tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        let mut received = Vec::new();
        let replies = match version {
            4 => vec![vec![0, 90, 0, 0, 0, 0, 0, 0]],
            // User name and password, and success.
            _ => vec![vec![5, 2], vec![1, 0], vec![5, 0, 0, 1, 0, 0, 0, 0, 0, 0]],
        };
        for reply in replies {
            client.read_buf(&mut received).await.unwrap();
            client.write_all(&reply).await.unwrap();
        }
        let mut server = TcpStream::connect(target).await.unwrap();
        tokio::spawn(async move { copy_bidirectional(&mut client, &mut server).await });
        received
    });
    (address, handshake)
}

#[tokio::test]
async fn each_kind_of_socks_proxy_is_used() {
    let server = responding(json_response(200, ONE_URL)).await;
    for (scheme, host) in
        [("socks4", "127.0.0.1"), ("socks4a", "api.invalid"), ("socks5", "127.0.0.1"), ("socks5h", "api.invalid")]
    {
        for from_environment in [false, true] {
            let version = if scheme.starts_with("socks4") { 4 } else { 5 };
            let (address, handshake) = socks_proxy(version, server.address().to_string()).await;
            let user = if version == 5 { "user:p%40ss@" } else { "" };
            let (url, base) = (format!("{scheme}://{user}{address}"), format!("http://{host}:7/v1"));
            match from_environment {
                true => send_in_child_process(&base, ("ALL_PROXY", &url)).await,
                false => drop(generate(&builder(&base).proxy(&url).build().unwrap()).await.unwrap()),
            }
            let handshake = handshake.await.unwrap();
            let contains = |part: &[u8]| handshake.windows(part.len()).any(|window| window == part);
            assert_eq!(contains(b"api.invalid"), host == "api.invalid", "{scheme}");
            assert_eq!(contains(b"\x04user\x04p@ss"), version == 5, "{scheme}");
        }
    }
}

#[tokio::test]
async fn an_unsupported_proxy_in_the_environment_is_refused() {
    for name in PROXIES {
        send_in_child_process(UNSUPPORTED, (name, "quic://user:canary@host")).await;
    }
}

/// `docs/faults.md` shows that the default client does not follow redirects.
#[tokio::test]
async fn a_custom_http_client_is_used_but_its_redirects_do_not_send_the_key_to_another_host() {
    let other = with_image(ResponseTemplate::new(200).set_body_bytes(PNG)).await;
    let location = other.uri().replace("127.0.0.1", "localhost");
    let server = responding(ResponseTemplate::new(307).insert_header("location", location)).await;
    let custom = http_client().user_agent("mine").build().unwrap();
    let images = generate(&builder(&server.uri()).http_client(custom).build().unwrap()).await.unwrap();
    assert_eq!(images[0].download().await.unwrap(), PNG);
    for (server, count, has_key) in [(&server, 1, true), (&other, 2, false)] {
        let requests = requests(server).await;
        assert_eq!(requests.len(), count);
        assert!(requests.iter().all(|request| request.headers["user-agent"] == "mine"));
        assert!(requests.iter().all(|request| request.headers.contains_key("authorization") == has_key));
    }
}

#[tokio::test]
async fn each_mode_and_way_of_matching_of_the_recorder_has_its_headers() {
    let server = responding(json_response(200, ONE_URL)).await;
    let modes = [
        (Replay::off(), "off"),
        (Replay::mock(), "mock"),
        (Replay::record(), "record"),
        (Replay::replay_or_mock(), "replay-or-mock"),
        (Replay::replay_or_error(), "replay-or-error"),
        (Replay::replay_or_live(), "replay-or-live"),
        (Replay::replay_or_record(), "replay-or-record"),
    ];
    let fields = ("x-lumenfall-replay-fields", "prompt,size");
    let matching = [
        (Replay::mock().matching_standard(), "standard", None),
        (Replay::mock().matching_strictly(), "strict", None),
        (Replay::mock().matching_fields(["prompt", "size"]), "specific", Some(fields)),
        (Replay::mock().recording("rec_1"), "pinned", Some(("x-lumenfall-replay-recording", "rec_1"))),
    ];
    let modes = modes.map(|(replay, mode)| (replay, ("x-lumenfall-replay", mode), None)).into_iter();
    let matching = matching.map(|(replay, mode, other)| (replay, ("x-lumenfall-replay-match", mode), other));
    for (replay, (name, value), other) in modes.chain(matching) {
        generate(&builder(&server.uri()).replay(replay).build().unwrap()).await.unwrap();
        let requests = requests(&server).await;
        for (name, value) in [(name, value)].into_iter().chain(other) {
            assert_eq!(requests.last().unwrap().headers[name], value);
        }
    }
}

const PROXIES: [&str; 6] = ["ALL_PROXY", "all_proxy", "HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"];
const KEYS: [(&str, &str); 3] = [("LUMENFALL_API_KEY", "one"), ("FAL_KEY", "two"), ("REPLICATE_API_TOKEN", "three")];
const BASE_URL: &str = "LUMENFALL_TEST_BASE_URL";
/// In place of a base URL: the child process only builds a backend, which must be refused.
const UNSUPPORTED: &str = "unsupported proxy";

/// Sends a request to each service in a process with this environment variable, because variables are global to a process.
async fn send_in_child_process(base_url: &str, variable: (&str, &str)) {
    let mut child = Command::new(env::current_exe().unwrap());
    for name in PROXIES.iter().chain(&["NO_PROXY", "no_proxy", "REQUEST_METHOD"]) {
        child.env_remove(name);
    }
    child.args(["--exact", "configuration::child_process"]).envs(KEYS);
    let output = child.env(variable.0, variable.1).env(BASE_URL, base_url).output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// Does something only in the process that `send_in_child_process` starts.
#[tokio::test]
async fn child_process() {
    let Ok(url) = env::var(BASE_URL) else { return };
    if url == UNSUPPORTED {
        let error = RemoteBuilder::from_env().build().unwrap_err();
        assert_eq!((error.kind(), error.parameter()), (ErrorKind::Configuration, Some("proxy")));
        assert!(PROXIES.iter().any(|name| error.to_string().contains(name)) && !error.to_string().contains("canary"));
        return;
    }
    let gateway = RemoteBuilder::from_env().base_url(&url).retry(RetryPolicy::none()).build().unwrap();
    let fal = FalBuilder::from_env().base_url(&url).retry(RetryPolicy::none()).build().unwrap();
    let replicate = ReplicateBuilder::from_env().base_url(&url).retry(RetryPolicy::none()).build().unwrap();
    for backend in [&gateway as &dyn Backend, &fal, &replicate] {
        let _ = send(backend, generate_spec()).await;
    }
}

#[tokio::test]
async fn a_proxy_from_the_environment_is_used() {
    for name in PROXIES {
        let (base_url, request) = match name.to_lowercase().as_str() {
            "https_proxy" => ("https://api.invalid/v1", "CONNECT api.invalid:443"),
            _ => ("http://api.invalid/v1", "POST http://api.invalid/v1/images/generations"),
        };
        let proxy = RawServer::start([Act::Send(response("502 Bad Gateway", "", ""))]).await;
        send_in_child_process(base_url, (name, &proxy.uri)).await;
        assert!(proxy.count(request) > 0, "{name}");
    }
}

#[tokio::test]
async fn each_service_reads_its_own_key_from_the_environment() {
    let server = MockServer::start().await;
    send_in_child_process(&server.uri(), ("LUMENFALL_BASE_URL", "https://host.invalid")).await;
    let requests = requests(&server).await;
    let keys: Vec<_> = requests.iter().map(|request| request.headers["authorization"].to_str().unwrap()).collect();
    assert_eq!(keys, ["Bearer one", "Key two", "Bearer three"]);
}
