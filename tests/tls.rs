//! A request over TLS, made with the TLS library that was chosen, and the refusal of a host that the system does not trust.
//!
//! Whom the system trusts is told by the environment (`SSL_CERT_FILE`), which a process reads when it starts: so this
//! program is the server, and starts itself again as the client.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::env;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use lumenfall::{Client, ErrorKind, RetryPolicy};
use rustls::ServerConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use self::authority::authority;

mod authority;

const BASE: &str = "LUMENFALL_TEST_HTTPS";
const ANSWER: &str = r#"{"data":[{"b64_json":"aGVsbG8="}]}"#;

#[tokio::main(flavor = "multi_thread")]
async fn main() {
    match env::var(BASE) {
        Ok(base) => request(&base).await,
        Err(_) => {
            a_trusted_host_is_answered_and_no_other().await;
            println!("1 passed, 0 failed");
        }
    }
}

/// The client: says what came of a request.
async fn request(base: &str) {
    let client = Client::builder().api_key("key").base_url(base).retry(RetryPolicy::none()).build().unwrap();
    match client.images().generate("a lighthouse").inline().send().await {
        Ok(images) => println!("{}", String::from_utf8_lossy(images[0].bytes())),
        Err(error) => {
            assert_eq!((error.kind(), error.maybe_billed()), (ErrorKind::Connection, false));
            println!("{error}");
        }
    }
}

async fn a_trusted_host_is_answered_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let (trusted, config) = authority();
    let (stranger, _) = authority();
    let requests = Arc::new(AtomicUsize::new(0));
    let base = serve(config, Arc::clone(&requests)).await;
    for (certificate, expected, received) in [(trusted, "hello", 1), (stranger, "cannot connect", 1)] {
        let file = folder.path().join("trusted.pem");
        std::fs::write(&file, certificate).unwrap();
        let mut client = Command::new(env::current_exe().unwrap());
        client.env(BASE, &base).env("SSL_CERT_FILE", &file).env_remove("SSL_CERT_DIR");
        let Output { status, stdout, stderr } =
            tokio::task::spawn_blocking(move || client.output()).await.unwrap().unwrap();
        let told = String::from_utf8_lossy(&stdout);
        assert!(status.success() && told.contains(expected), "{told} {}", String::from_utf8_lossy(&stderr));
        assert_eq!(requests.load(Ordering::SeqCst), received, "{told}");
    }
}

/// Answers each request with one image, and counts them.
async fn serve(config: ServerConfig, requests: Arc<AtomicUsize>) -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // A client that does not trust this server ends the handshake.
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut request = Vec::new();
            while !request.ends_with(b"}") {
                if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
                    break;
                }
            }
            requests.fetch_add(1, Ordering::SeqCst);
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", ANSWER.len());
            let _ = stream.write_all((head + ANSWER).as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });
    format!("https://localhost:{port}/v1")
}
