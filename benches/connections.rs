//! Counts the requests that a server loses because it closes idle connections, and measures the cost of new connections:
//! `cargo xtask bench connections`.
//!
//! The server of the first part is uvicorn, which closes connections after 5 idle seconds. It runs with the interpreter in
//! `LUMENFALL_BENCH_PYTHON` (default `python3`), which needs the package `uvicorn`.

use std::convert::Infallible;
use std::error::Error;
use std::net::TcpStream;
use std::process::{Child, Command, ExitCode};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use lumenfall::Client;
use lumenfall::remote::Remote;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio_rustls::TlsAcceptor;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Two calls with a pause, in each of these rounds.
const ROUNDS: usize = 2;
const PAIRS: usize = 200;
/// The shortest pause, and the difference of the longest one.
const PAUSE: Duration = Duration::from_micros(4_995_000);
const SPREAD: Duration = Duration::from_micros(12_000);
/// Between the starts of two pairs, so that the pairs do not delay each other.
const STAGGER: Duration = Duration::from_millis(10);
/// The number of requests per measurement of the second part.
const REQUESTS: u32 = 1000;

const UVICORN: &str = r#"
import sys, uvicorn

async def app(scope, receive, send):
    if scope["type"] == "http":
        while (await receive()).get("more_body"):
            pass
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b'{"data":[{"url":"https://media.example/1.png"}]}'})

uvicorn.run(app, port=int(sys.argv[1]), log_level="error", lifespan="off")
"#;

fn main() -> ExitCode {
    let result = lost_requests().and_then(|lost| new_connections().map(|()| lost));
    match result {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

/// A client under comparison.
enum Subject {
    Ours(Client),
    Reqwest(reqwest::Client, String),
}

/// Creates a client for a base URL.
type Create = fn(&str) -> Result<Subject>;

impl Subject {
    fn ours(base: &str) -> Result<Self> {
        Ok(Self::Ours(Client::new(Remote::builder().without_key().base_url(base).build()?)))
    }

    fn reqwest(base: &str) -> Result<Self> {
        let client = reqwest_client(RootCertStore::empty(), usize::MAX)?;
        Ok(Self::Reqwest(client, format!("{base}/images/generations")))
    }

    async fn call(&self) -> Result<()> {
        match self {
            Self::Ours(client) => drop(client.images().generate("a red circle").send().await?),
            Self::Reqwest(client, url) => {
                client.post(url).body(r#"{"prompt":"a red circle"}"#).send().await?.error_for_status()?.bytes().await?;
            }
        }
        Ok(())
    }
}

fn reqwest_client(roots: RootCertStore, max_idle: usize) -> Result<reqwest::Client> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let config = config.with_root_certificates(roots).with_no_client_auth();
    Ok(reqwest::Client::builder()
        .no_proxy()
        .tls_backend_preconfigured(config)
        .pool_max_idle_per_host(max_idle)
        .build()?)
}

/// The runtimes that the calls of the first part use.
#[derive(Clone, Copy, Debug)]
enum Flavor {
    /// One runtime per client, in a thread that blocks during the pause. So the client cannot notice that the server closes
    /// the connection.
    CurrentThread,
    /// One runtime for all clients.
    MultiThread,
}

impl Flavor {
    /// Calls each subject twice, with a pause. Returns how many second calls failed.
    fn run(self, subjects: Vec<Subject>) -> Result<usize> {
        let pauses = (0..).map(|pair| (STAGGER * pair, PAUSE + SPREAD * pair / (PAIRS as u32 - 1)));
        let pairs = subjects.into_iter().zip(pauses);
        match self {
            Self::CurrentThread => {
                let run = |subject: Subject, start, pause| {
                    let runtime = Builder::new_current_thread().enable_all().build()?;
                    thread::sleep(start);
                    runtime.block_on(subject.call())?;
                    thread::sleep(pause);
                    Ok(runtime.block_on(subject.call()).is_err())
                };
                let threads: Vec<_> =
                    pairs.map(|(subject, (start, pause))| thread::spawn(move || run(subject, start, pause))).collect();
                let results: Result<Vec<bool>> =
                    threads.into_iter().map(|pair| pair.join().map_err(|_| "a thread panicked")?).collect();
                Ok(results?.into_iter().filter(|failed| *failed).count())
            }
            Self::MultiThread => Runtime::new()?.block_on(async {
                let run = |subject: Subject, start, pause| async move {
                    tokio::time::sleep(start).await;
                    subject.call().await?;
                    tokio::time::sleep(pause).await;
                    Ok(subject.call().await.is_err())
                };
                let tasks = pairs.map(|(subject, (start, pause))| tokio::spawn(run(subject, start, pause)));
                let mut failed = 0;
                for task in tasks.collect::<Vec<_>>() {
                    let result: Result<bool> = task.await?;
                    failed += usize::from(result?);
                }
                Ok(failed)
            }),
        }
    }
}

/// Calls uvicorn again while it closes the idle connection. Returns how many calls of ours failed.
fn lost_requests() -> Result<usize> {
    let server = Uvicorn::start()?;
    let clients = [("lumenfall", Subject::ours as Create), ("reqwest with its default pool", Subject::reqwest)];
    let mut lost = 0;
    println!("| runtime | client | calls after a pause | failed |\n|---|---|---|---|");
    for flavor in [Flavor::CurrentThread, Flavor::MultiThread] {
        for (client, create) in clients {
            let mut failed = 0;
            for _ in 0..ROUNDS {
                failed += flavor.run((0..PAIRS).map(|_| create(&server.base)).collect::<Result<_>>()?)?;
            }
            println!("| {flavor:?} | {client} | {} | {failed} |", ROUNDS * PAIRS);
            lost += if client == "lumenfall" { failed } else { 0 };
        }
    }
    Ok(lost)
}

/// The server of the first part. Stops when it is dropped.
struct Uvicorn {
    process: Child,
    base: String,
}

impl Uvicorn {
    fn start() -> Result<Self> {
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let python = std::env::var("LUMENFALL_BENCH_PYTHON").unwrap_or_else(|_| "python3".into());
        let process = Command::new(python).args(["-c", UVICORN, &port.to_string()]).spawn()?;
        let server = Self { process, base: format!("http://127.0.0.1:{port}/v1") };
        for _ in 0..100 {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Ok(server);
            }
            thread::sleep(Duration::from_millis(100));
        }
        Err("uvicorn did not start; install it with `pip install uvicorn`".into())
    }
}

impl Drop for Uvicorn {
    fn drop(&mut self) {
        let _ = self.process.kill();
    }
}

/// Measures requests on one connection and on a new connection each, without and with TLS. The server is on the same
/// machine, so this is the CPU time of both sides, without network latency.
fn new_connections() -> Result<()> {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()])?;
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone())?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let key = PrivateKeyDer::try_from(signing_key.serialize_der())?;
    let config = config.with_no_client_auth().with_single_cert(vec![cert.der().clone()], key)?;
    println!("\n| | on one connection | on a new connection each |\n|---|---|---|");
    for (protocol, tls) in [("http", None), ("https", Some(TlsAcceptor::from(Arc::new(config))))] {
        let port = serve(tls)?;
        let url = format!("{protocol}://localhost:{port}/");
        let mut row = format!("| {protocol} |");
        for max_idle in [usize::MAX, 0] {
            let client = reqwest_client(roots.clone(), max_idle)?;
            let elapsed = Builder::new_current_thread().enable_all().build()?.block_on(async {
                let request = || async { client.post(&url).send().await?.bytes().await };
                request().await?;
                let start = Instant::now();
                for _ in 0..REQUESTS {
                    request().await?;
                }
                Ok::<_, reqwest::Error>(start.elapsed() / REQUESTS)
            })?;
            row += &format!(" {:.3} ms |", elapsed.as_secs_f64() * 1000.0);
        }
        println!("{row}");
    }
    Ok(())
}

/// Starts a server in another thread, and returns its port.
fn serve(tls: Option<TlsAcceptor>) -> Result<u16> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let port = listener.local_addr()?.port();
    let runtime = Builder::new_current_thread().enable_all().build()?;
    thread::spawn(move || {
        runtime.block_on(async {
            let listener = TcpListener::from_std(listener)?;
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true)?;
                tokio::spawn(respond(stream, tls.clone()));
            }
            Result::Ok(())
        })
    });
    Ok(port)
}

async fn respond(stream: tokio::net::TcpStream, tls: Option<TlsAcceptor>) -> Result<()> {
    let response = service_fn(|_| async { Ok::<_, Infallible>(hyper::Response::new("image".to_owned())) });
    let server = http1::Builder::new();
    match tls {
        Some(tls) => server.serve_connection(TokioIo::new(tls.accept(stream).await?), response).await?,
        None => server.serve_connection(TokioIo::new(stream), response).await?,
    }
    Ok(())
}
