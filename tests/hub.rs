//! Downloads of a model from a hub on the loopback interface.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may panic")]

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use lumenfall::backend::GenerateSpec;
use lumenfall::local::{HubBuilder, Local};
use lumenfall::{Client, ErrorKind, Size};
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

const REPOSITORY: &str = "stabilityai/stable-diffusion-3.5-medium";
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const TOKEN: &str = "hf_secret_of_this_test";
const LARGE: &str = "transformer/diffusion_pytorch_model.safetensors";

/// How the hub serves the file [`LARGE`].
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// Sends half of the remaining bytes and closes the connection.
    Truncate,
    /// Sends bytes that do not have the hash of the file.
    Corrupt,
    /// Refuses the token.
    Refuse,
}

/// A hub that serves the tiny model of the pipeline's tests, and large files from a second server.
struct TestHub {
    url: String,
    shared: Arc<Shared>,
    cache: TempDir,
}

#[derive(Default)]
struct Shared {
    /// The method, the path and the range of each request.
    requests: Mutex<Vec<String>>,
    /// The faults of the following requests for [`LARGE`].
    faults: Mutex<Vec<Fault>>,
    /// The URL of the server of large files.
    storage: Mutex<String>,
}

fn model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/lumenfall-diffusion/tests/golden/model")
}

impl TestHub {
    async fn start() -> Self {
        let shared = Arc::new(Shared::default());
        let url = serve(shared.clone(), true).await;
        *shared.storage.lock().unwrap() = serve(shared.clone(), false).await;
        Self { url, shared, cache: tempfile::tempdir().unwrap() }
    }

    fn builder(&self) -> HubBuilder {
        let builder = Local::from_hub(REPOSITORY).endpoint(&self.url).token(TOKEN).offline(false);
        builder.cache_folder(self.cache.path())
    }

    fn fail(&self, faults: &[Fault]) {
        *self.shared.faults.lock().unwrap() = faults.to_vec();
    }

    /// Returns the requests since the last call.
    fn requests(&self) -> Vec<String> {
        std::mem::take(&mut *self.shared.requests.lock().unwrap())
    }

    fn in_cache(&self, path: &str) -> PathBuf {
        self.cache.path().join("models--stabilityai--stable-diffusion-3.5-medium").join(path)
    }
}

/// Starts a server: the hub itself, or the server of large files, which must not receive the token.
async fn serve(shared: Arc<Shared>, is_hub: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(respond(stream, shared.clone(), is_hub));
        }
    });
    url
}

async fn respond(stream: TcpStream, shared: Arc<Shared>, is_hub: bool) {
    let mut stream = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).await.unwrap_or(0) == 0 {
            return;
        }
    }
    let header = |name: &str| {
        let line = head.lines().find(|line| line.to_lowercase().starts_with(&format!("{name}: ")))?;
        Some(line.split_once(": ").unwrap().1.to_owned())
    };
    let mut words = head.split(' ');
    let (method, path) = (words.next().unwrap().to_owned(), words.next().unwrap().to_owned());
    let range = header("range");
    shared.requests.lock().unwrap().push(format!("{method} {path} {}", range.as_deref().unwrap_or("")));
    let authorization = header("authorization");
    let response = if is_hub {
        match authorization.as_deref() {
            Some(value) if value == format!("Bearer {TOKEN}") => of_hub(&shared, &method, &path),
            // The body quotes the token, as a proxy may do.
            found => message("401 Unauthorized", "x-error-code: GatedRepo\r\n", format!("{found:?}").as_bytes()),
        }
    } else {
        assert_eq!(authorization, None, "the token was sent to another server");
        let mut faults = shared.faults.lock().unwrap();
        let fault = if faults.is_empty() { Fault::None } else { faults.remove(0) };
        of_storage(&path, range.as_deref(), fault)
    };
    let stream = stream.get_mut();
    let body = if method == "HEAD" { head_of(&response) } else { &response };
    stream.write_all(body).await.unwrap();
    stream.shutdown().await.unwrap();
    let _ = stream.read(&mut [0; 16]).await;
}

fn message(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status}\r\nconnection: close\r\n{headers}content-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn head_of(response: &[u8]) -> &[u8] {
    let end = response.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    &response[..end + 4]
}

fn of_hub(shared: &Shared, method: &str, path: &str) -> Vec<u8> {
    if path.starts_with("/api/") {
        assert_eq!(path, format!("/api/models/{REPOSITORY}/revision/main"));
        let mut names = vec!["README.md".to_owned(), "sd3.5_medium.safetensors".into(), "vae/model.onnx".into()];
        for entry in std::fs::read_dir(model()).unwrap() {
            let path = entry.unwrap().path();
            let files = if path.is_dir() { list(&path) } else { vec![path] };
            names.extend(files.iter().map(|file| file.strip_prefix(model()).unwrap().to_str().unwrap().to_owned()));
        }
        let siblings: Vec<_> = names.iter().map(|name| serde_json::json!({ "rfilename": name })).collect();
        let body = serde_json::json!({ "sha": COMMIT, "siblings": siblings }).to_string();
        return message("200 OK", "", body.as_bytes());
    }
    // Only the commit is requested, because a branch can move between two files.
    let name = path.strip_prefix(&format!("/{REPOSITORY}/resolve/{COMMIT}/")).unwrap();
    let file = std::fs::read(model().join(name)).unwrap();
    let hash = format!("{:x}", Sha256::digest(&file));
    if name == LARGE {
        let location = format!("{}/{name}?signature=secret", shared.storage.lock().unwrap());
        let linked = format!("x-linked-etag: \"{hash}\"\r\nx-linked-size: {}\r\n", file.len());
        return message("302 Found", &format!("location: {location}\r\nx-repo-commit: {COMMIT}\r\n{linked}"), b"");
    }
    assert!(matches!(method, "HEAD" | "GET"));
    message("200 OK", &format!("x-repo-commit: {COMMIT}\r\netag: W/\"{}\"\r\n", &hash[..40]), &file)
}

fn of_storage(path: &str, range: Option<&str>, fault: Fault) -> Vec<u8> {
    let name = path.trim_start_matches('/').split('?').next().unwrap();
    let mut file = std::fs::read(model().join(name)).unwrap();
    if fault == Fault::Refuse {
        return message("403 Forbidden", "", b"expired");
    }
    if fault == Fault::Corrupt {
        *file.last_mut().unwrap() ^= 1;
    }
    let start: usize =
        range.map_or(0, |range| range.trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap());
    let content_range = format!("content-range: bytes {start}-{}/{}\r\n", file.len() - 1, file.len());
    let mut response = match start {
        0 => message("200 OK", "", &file),
        _ => message("206 Partial Content", &content_range, &file[start..]),
    };
    if fault == Fault::Truncate {
        response.truncate(response.len() - (file.len() - start) / 2);
    }
    response
}

fn list(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}

async fn generate(local: Local) -> Vec<u8> {
    let mut spec = GenerateSpec::new("stable-diffusion-3.5-medium", "a star");
    spec.options.size = Some(Size::Pixels { width: 32, height: 32 });
    (spec.options.sampling.steps, spec.options.sampling.seed) = (Some(1), Some(7));
    Client::new(local.metadata(false)).images().generate_spec(spec).inline().send().await.unwrap()[0].bytes().to_vec()
}

#[tokio::test]
async fn a_model_is_downloaded_once_and_works_offline() {
    let hub = TestHub::start().await;
    let events = Arc::new(Mutex::new(Vec::new()));
    let record = events.clone();
    let local = hub.builder().on_progress(move |progress| record.lock().unwrap().push(progress)).open().await.unwrap();
    let image = generate(local).await;
    assert_eq!(image, generate(Local::open(model()).unwrap()).await);

    let requests = hub.requests();
    assert!(!requests.iter().any(|request| request.contains("README") || request.contains("sd3.5_medium.safe")));
    assert!(!requests.iter().any(|request| request.contains("onnx")));
    let events = std::mem::take(&mut *events.lock().unwrap());
    let last = events.last().unwrap();
    assert_eq!(last.received, last.total);
    assert!(events.is_sorted_by_key(|event| event.received), "{events:?}");
    assert!(events.iter().any(|event| event.file == LARGE));

    // Python programs find the model under these names.
    assert_eq!(std::fs::read_to_string(hub.in_cache("refs/main")).unwrap(), COMMIT);
    let hash = format!("{:x}", Sha256::digest(std::fs::read(model().join(LARGE)).unwrap()));
    let blob = hub.in_cache(&format!("blobs/{hash}")).canonicalize().unwrap();
    let snapshot = hub.in_cache(&format!("snapshots/{COMMIT}"));
    assert_eq!(snapshot.join(LARGE).canonicalize().unwrap(), blob);

    // The second download asks for the commit only.
    assert_eq!(hub.builder().download().await.unwrap(), snapshot);
    assert_eq!(hub.requests(), [format!("GET /api/models/{REPOSITORY}/revision/main ")]);
    assert_eq!(generate(hub.builder().offline(true).open().await.unwrap()).await, image);
    assert_eq!(hub.requests(), [""; 0]);
    // A hub that cannot be reached: no server listens on the port.
    let unreachable = hub.builder().endpoint("http://127.0.0.1:1");
    assert_eq!(unreachable.clone().download().await.unwrap(), snapshot);
    let empty = tempfile::tempdir().unwrap();
    let error = unreachable.cache_folder(empty.path()).download().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connection, "{error}");
    let error = hub.builder().offline(true).cache_folder(empty.path()).download().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains(REPOSITORY) && error.to_string().contains("HF_HUB_OFFLINE"), "{error}");
}

#[tokio::test]
async fn a_truncated_response_is_continued() {
    let hub = TestHub::start().await;
    hub.fail(&[Fault::Truncate, Fault::Truncate]);
    let snapshot = hub.builder().skip_t5().download().await.unwrap();
    assert_eq!(std::fs::read(snapshot.join(LARGE)).unwrap(), std::fs::read(model().join(LARGE)).unwrap());
    let requests = hub.requests();
    assert!(!requests.iter().any(|request| request.contains("_3/")), "{requests:?}");
    let size = std::fs::metadata(model().join(LARGE)).unwrap().len();
    let from_storage = |range: String| format!("GET /{LARGE}?signature=secret {range}");
    let half = size - size / 2;
    let three_quarters = size - (size - half) / 2;
    for range in [String::new(), format!("bytes={half}-"), format!("bytes={three_quarters}-")] {
        assert!(requests.contains(&from_storage(range)), "{requests:?}");
    }
}

#[tokio::test]
async fn an_interrupted_download_is_continued_by_the_next_one() {
    let hub = TestHub::start().await;
    hub.fail(&[Fault::Truncate, Fault::Refuse]);
    let error = hub.builder().download().await.unwrap_err();
    assert_eq!((error.kind(), error.status()), (ErrorKind::Authentication, Some(403)));
    assert!(error.to_string().contains(LARGE) && !error.to_string().contains("signature"), "{error}");
    assert!(!hub.in_cache("refs/main").exists(), "the model is incomplete");
    hub.requests();
    hub.builder().download().await.unwrap();
    let downloads: Vec<_> = hub.requests().into_iter().filter(|request| request.starts_with("GET /trans")).collect();
    assert_eq!(downloads.len(), 1, "{downloads:?}");
    assert!(downloads[0].contains("bytes="), "{downloads:?}");
    // No file that was complete is downloaded again, and no part is left.
    assert!(!list(&hub.in_cache("blobs")).iter().any(|path| path.extension().is_some()));
}

#[tokio::test]
async fn a_corrupt_file_is_downloaded_again() {
    let hub = TestHub::start().await;
    hub.fail(&[Fault::Corrupt]);
    let error = hub.builder().download().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidResponse, "{error}");
    assert!(error.to_string().contains("hash"), "{error}");
    let snapshot = hub.builder().download().await.unwrap();
    assert_eq!(std::fs::read(snapshot.join(LARGE)).unwrap(), std::fs::read(model().join(LARGE)).unwrap());
}

#[tokio::test]
async fn a_refused_token_is_explained_and_not_printed() {
    let hub = TestHub::start().await;
    let builder = hub.builder().token("hf_another_secret");
    let error = builder.download().await.unwrap_err();
    assert_eq!((error.kind(), error.status()), (ErrorKind::Authentication, Some(401)));
    let text = format!("{error} {error:?} {builder:?}");
    assert!(!text.contains("hf_another_secret"), "{text}");
    for part in [REPOSITORY, &*format!("{}/{REPOSITORY}", hub.url), "licence", "HF_TOKEN", "has no access"] {
        assert!(text.contains(part), "`{part}` in {text}");
    }
    let error = hub.builder().token("hf_wrong\n").download().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert!(!error.to_string().contains("hf_wrong"), "{error}");
}

#[tokio::test]
async fn names_that_are_not_of_the_hub_are_rejected() {
    let hub = TestHub::start().await;
    for name in ["", "a", "a/b/c", "../b", "a/..", "a/b?c", "https://huggingface.co/a/b"] {
        let error = Local::from_hub(name).endpoint(&hub.url).download().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration, "{name}: {error}");
    }
    for revision in ["", "../main", "a//b", "a b"] {
        let error = hub.builder().revision(revision).download().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration, "{revision}: {error}");
    }
    assert_eq!(hub.requests(), [""; 0]);
}
