//! The client connects to hosts that the system trusts, and to no others.
//!
//! A process reads the trusted certificates from `SSL_CERT_FILE` when it starts. So this program runs the server, and
//! starts itself again as the client.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::convert::Infallible;
use std::env;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use lumenfall::remote::Remote;
use lumenfall::{Client, ErrorKind, RetryPolicy};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

/// The environment variable that makes this program the client of a server.
const BASE_URL: &str = "LUMENFALL_TEST_HTTPS";
const IMAGE: &str = r#"{"data":[{"b64_json":"aGVsbG8="}]}"#;

#[tokio::main(flavor = "multi_thread")]
async fn main() {
    match env::var(BASE_URL) {
        Ok(base_url) => request(&base_url).await,
        Err(_) => {
            only_a_trusted_host_receives_the_request().await;
            println!("1 passed, 0 failed");
        }
    }
}

/// Sends one request, and prints the image or the error.
async fn request(base_url: &str) {
    let remote = Remote::builder().api_key("key").base_url(base_url).retry(RetryPolicy::none()).build().unwrap();
    match Client::new(remote).images().generate("a lighthouse").inline().send().await {
        Ok(images) => println!("{}", String::from_utf8_lossy(images[0].bytes())),
        Err(error) => {
            assert_eq!((error.kind(), error.maybe_billed()), (ErrorKind::Connection, false));
            println!("{error}");
        }
    }
}

async fn only_a_trusted_host_receives_the_request() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let (trusted, config) = authority();
    let (other, _) = authority();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let base_url = format!("https://localhost:{}/v1", listener.local_addr().unwrap().port());
    for (certificate, expected) in [(trusted, "hello"), (other, "cannot connect")] {
        std::fs::write(&file, certificate).unwrap();
        let mut client = Command::new(env::current_exe().unwrap());
        client.env(BASE_URL, &base_url).env("SSL_CERT_FILE", file.path()).env_remove("SSL_CERT_DIR");
        let client = client.stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let (stream, _) = timeout(Duration::from_secs(60), listener.accept()).await.unwrap().unwrap();
        // A client that does not trust this server aborts the handshake.
        let stream = acceptor.accept(stream).await;
        assert_eq!(stream.is_ok(), expected == "hello");
        if let Ok(stream) = stream {
            let response = |_| async { Ok::<_, Infallible>(hyper::Response::new(IMAGE.to_owned())) };
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(response)).await;
        }
        let output = client.wait_with_output().await.unwrap();
        let stdout = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && stdout.contains(expected), "{stdout}");
    }
}

/// Creates a certificate authority, and returns its certificate in PEM and the configuration of a server for `localhost`
/// whose certificate it has signed.
fn authority() -> (String, ServerConfig) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    // With equal names, the server's certificate would look self-signed.
    params.distinguished_name.push(DnType::CommonName, "authority");
    let authority = params.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(["localhost".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = config.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], key).unwrap();
    (authority, config)
}
