//! The client: it uses every part of the crate, prints each value and error, and logs everything.

use std::error::Error as _;
use std::fmt::Debug;
use std::iter::successors;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use futures_util::TryStreamExt;
use futures_util::future::join_all;
use lumenfall::backend::{Backend, Cost, EditSpec, GenerateSpec, Output, Request, RequestContext};
use lumenfall::blocking::Wait;
use lumenfall::layers::{Cache, Fallback, Limit, Retry, SpendCap};
use lumenfall::remote::{Fal, Page, Remote, RemoteBuilder, Replay, Replicate, RequestFilter};
use lumenfall::testing::{Fault, MockGateway, PIXEL};
use lumenfall::{Client, Error, Hosted, Images, Inline, Input, ResponseFormat, RetryPolicy};
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;
use reqwest::redirect::Policy;
use tokio::sync::Notify;
use tracing::{Instrument, Span};
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use super::{END, KEY, PASSWORD, SIGNATURE};

const MODEL: &str = "stable-diffusion-3.5-medium";

fn log_everything() {
    let events = tracing_subscriber::fmt::layer().with_span_events(FmtSpan::NEW).with_ansi(false);
    let traces = tracing_opentelemetry::layer().with_tracer(SdkTracerProvider::builder().build().tracer("test"));
    tracing_subscriber::registry().with(events.with_writer(std::io::stderr)).with(traces).init();
}

/// Prints a result, and an error with all its sources.
fn print<T: Debug>(result: Result<T, Error>) -> Option<T> {
    println!("{result:?}");
    if let Err(error) = &result {
        println!("{error} {error:#?}");
        successors(error.source(), |&error| error.source()).for_each(|error| println!("{error} {error:?}"));
    }
    result.ok()
}

/// A server, and a client that speaks HTTP/2 with it instead of HTTP/1.1.
struct Server {
    url: String,
    http2: Option<reqwest::Client>,
}

/// All requests belong to a span, so each of them carries its id.
pub(crate) async fn client(url: String, folder: &Path) {
    log_everything();
    use_everything(url, folder).instrument(tracing::info_span!("everything")).await;
    println!("{END}");
}

async fn use_everything(url: String, folder: &Path) {
    rustls::crypto::ring::default_provider().install_default().unwrap();
    let http2 = reqwest::Client::builder().http2_prior_knowledge().redirect(Policy::none()).build().unwrap();
    let servers = [None, Some(http2)].map(|http2| Server { url: url.clone(), http2 });
    for server in &servers {
        for scene in ["good", "moved", "circular", "elsewhere", "gone", "rejecting"] {
            use_backends(server, scene, &folder.join(scene)).await;
            use_account(server, scene).await;
        }
        use_backend(Arc::new(gateway(server, "redirecting").build().unwrap()), folder).await;
        use_proxy(&url, server).await;
        block(gateway(server, "good").build().unwrap(), folder).await;
    }
    join_all(servers.iter().map(abandon_jobs)).await;
    cause_faults().await;
    reject_settings();
    panic(gateway(&servers[0], "good").build().unwrap()).await;
}

/// Applies the settings that all builders have. Some services expect the key in the query of the URL, too.
macro_rules! settings {
    ($service:ident, $url:expr) => {
        $service::builder().api_key(KEY).base_url($url).header("x-further", KEY).retry(RetryPolicy::none())
    };
    ($service:ident, $server:expr, $scene:expr) => {{
        let builder = settings!($service, format!("{}/{}/v1?key={KEY}", $server.url, $scene));
        $server.http2.iter().fold(builder, |builder, client| builder.http_client(client.clone()))
    }};
}

fn gateway(server: &Server, scene: &str) -> RemoteBuilder {
    let replay = Replay::replay_or_record().recording("rec_1");
    let builder = settings!(Remote, server, scene).native_url(format!("{}/{scene}/v1?key={KEY}", server.url));
    println!("{replay:?} {builder:?}");
    builder.replay(replay)
}

fn providers(server: &Server, scene: &str) -> [Arc<dyn Backend>; 2] {
    let fal = settings!(Fal, server, scene).poll_interval(Duration::from_millis(1));
    let replicate = settings!(Replicate, server, scene).poll_interval(Duration::from_millis(1));
    println!("{fal:?} {replicate:?}");
    [Arc::new(fal.build().unwrap()), Arc::new(replicate.build().unwrap())]
}

/// Uses each backend alone, and all of them under layers.
async fn use_backends(server: &Server, scene: &str, folder: &Path) {
    let remote = gateway(server, scene).build().unwrap();
    let [fal, replicate] = providers(server, scene);
    let all = Fallback::new(fal.clone()).then(replicate.clone()).then(remote.clone()).even_if_billed();
    let capped = SpendCap::new(Limit::new(Retry::new(all, RetryPolicy::none())), Cost::new(1.0, "USD"))
        .per_image(Cost::new(0.01, "USD"));
    let cached = Cache::new(capped.clone(), folder);
    for backend in [Arc::new(remote) as Arc<dyn Backend>, fal, replicate, Arc::new(capped), Arc::new(cached)] {
        use_backend(backend, folder).await;
    }
}

async fn use_backend(backend: Arc<dyn Backend>, folder: &Path) {
    println!("{backend:?} {}", backend.identity());
    let mut generate = GenerateSpec::new(MODEL, "a lighthouse");
    generate.options.sampling.seed = Some(7);
    let mut edit = EditSpec::new(MODEL, Input::bytes(PIXEL));
    edit.prompt = Some("stars".into());
    for request in [Request::Generate(generate), Request::Edit(edit)] {
        print(backend.estimate(request.clone(), RequestContext::default()).await);
        for format in [None, Some(ResponseFormat::B64Json)] {
            let mut request = request.clone();
            request.options_mut().response_format = format;
            if let Some(output) = print(backend.send(request, RequestContext::default()).await) {
                use_images(&backend, output, folder).await;
            }
        }
    }
    println!("{:?}", Client::new(backend));
}

async fn use_images(backend: &Arc<dyn Backend>, output: Output, folder: &Path) {
    println!("{:?} {:?}", output.metadata, output.metadata.headers);
    print(Images::<Inline>::receive(Arc::clone(backend), output.clone()).await);
    let Some(images) = print(Images::<Hosted>::receive(Arc::clone(backend), output).await) else { return };
    let client = Client::new(Arc::clone(backend));
    for image in &images {
        println!("{image:?}");
        print(image.download().await.map(|bytes| bytes.len()));
        print(image.save(folder.with_extension("png")).await);
        print(image.save("/no/such/folder/1.png").await);
        if let Some(url) = image.url() {
            print(Input::fetch(&client, url).await);
        }
    }
}

async fn use_account(server: &Server, scene: &str) {
    let remote = gateway(server, scene).build().unwrap();
    let (account, models) = (remote.account(), remote.models());
    println!("{account:?} {models:?}");
    print(account.balance().await);
    print(account.page(&RequestFilter::default(), Page::First, true).await);
    print(account.requests(RequestFilter::default()).try_collect::<Vec<_>>().await);
    print(account.request("req_1").await);
    print(account.request("none").await);
    print(account.purge("none").await);
    print(models.list().await);
    print(models.get("none").await);
    // The caller receives the JSON of the service unchanged.
    print(models.schema_json(MODEL).await.map(|json| json.is_object()));
}

/// Uses the plain server as a proxy, which responds in place of other servers and rejects tunnels.
async fn use_proxy(proxy: &str, server: &Server) {
    let builder = gateway(server, "good").proxy(proxy.replace("://", &format!("://user:{PASSWORD}@")));
    println!("{builder:?}");
    let client = Client::new(builder.build().unwrap());
    let images = print(client.images().generate("a lighthouse").send().await).unwrap();
    print(images[0].download().await.map(|bytes| bytes.len()));
}

/// Uses the gateway without an async runtime.
async fn block(remote: Remote, folder: &Path) {
    let (span, path) = (Span::current(), folder.join("blocking.png"));
    let call = move || {
        let images = print(Client::new(remote).images().generate("a lighthouse").send().wait()).unwrap();
        print(images[0].save(path).wait());
    };
    tokio::task::spawn_blocking(move || span.in_scope(call)).await.unwrap();
}

/// Starts three jobs at each provider that are cancelled. The first call ends before the response to its submission, the second
/// one is dropped, and the third one ends before its job does, after the other jobs have been cancelled in the background.
async fn abandon_jobs(server: &Server) {
    let pairs = providers(server, "late").into_iter().zip(providers(server, "waiting"));
    let calls = pairs.map(async |(late, backend)| {
        let spec = || GenerateSpec::new(MODEL, "a lighthouse");
        let started = Arc::new(Notify::new());
        let notify = Arc::clone(&started);
        let mut context = RequestContext::default();
        context.progress = Some(Arc::new(move |_| notify.notify_one()));
        context.deadline = Some(Instant::now() + Duration::from_secs(2));
        print(late.send(spec().into(), context.clone()).await);
        context.deadline = Some(Instant::now() + Duration::from_secs(4));
        tokio::select! {
            result = backend.send(spec().into(), context.clone()) => panic!("{result:?}"),
            () = started.notified() => {}
        }
        print(backend.send(spec().into(), context).await);
    });
    join_all(calls).await;
}

/// Causes each fault of the mock gateway, and fails to connect.
async fn cause_faults() {
    let gateway = MockGateway::start().await.unwrap();
    let timeout = Duration::from_millis(300);
    let builder = gateway.builder().header("x-further", KEY).idle_timeout(timeout).first_byte_timeout(timeout);
    let client = Client::new(builder.clone().retry(RetryPolicy::none()).build().unwrap());
    let retry = RetryPolicy::default().max_retries(1).max_wait(Duration::from_millis(1)).may_bill_twice();
    let retrying = Client::new(builder.retry(retry).max_response_bytes(1000).build().unwrap());
    let failures = [Fault::Code(400, gateway.key().to_owned()), Fault::Reset, Fault::ResetInBody, Fault::Garbage];
    let others = [Fault::NoImages, Fault::Truncated, Fault::Oversize(1001), Fault::Hang, Fault::OtherDelivery];
    for fault in failures.into_iter().chain(others) {
        (0..3).for_each(|_| gateway.fault_next(fault.clone()));
        print(client.images().generate("a lighthouse").send().await);
        print(client.images().edit(Input::bytes(PIXEL)).send().await);
        print(retrying.images().generate("a lighthouse").inline().send().await);
    }
    // The mock gateway rejects this key, and does not understand TLS. Nothing listens at the other URLs.
    let rejected = gateway.builder().api_key(KEY);
    let no_tls = settings!(Remote, format!("{}?key={KEY}", gateway.base_url().replace("http:", "https:")));
    let urls = ["http", "https"].map(|scheme| format!("{scheme}://127.0.0.1:9/x?sig={SIGNATURE}"));
    let [plain, tls] = urls.clone().map(|url| settings!(Remote, url));
    for builder in [rejected, no_tls, plain, tls] {
        print(Client::new(builder.build().unwrap()).images().generate("a lighthouse").send().await);
    }
    for url in urls.into_iter().chain([format!("ftp://127.0.0.1:9/x?sig={SIGNATURE}")]) {
        print(Input::fetch(&client, &url).await);
    }
}

fn reject_settings() {
    let local = || settings!(Remote, "http://127.0.0.1:9");
    for builder in [
        local().api_key(format!("{KEY}\n")),
        settings!(Remote, format!("https://user:{PASSWORD}@host.example/v1?key={KEY}")),
        settings!(Remote, format!("host.example/v1?key={KEY}")),
        settings!(Remote, format!("https://host.example:port/v1?key={KEY}")),
        settings!(Remote, format!("ftp://host.example/v1?key={KEY}")),
        local().proxy(format!("http://user:{PASSWORD}@:port")),
        local().header("x-further", format!("{KEY}\n")),
        local().header("authorization", KEY),
    ] {
        println!("{builder:?}");
        assert!(print(builder.build()).is_none());
    }
}

/// Panics with each kind of value, as a program does that expects no error.
async fn panic(remote: Remote) {
    let client = Client::new(remote);
    let images = client.images().generate("a lighthouse").send().await.unwrap();
    let error = Input::fetch(&client, &format!("http://127.0.0.1:9/x?sig={SIGNATURE}")).await;
    assert!(thread::spawn(move || panic!("{client:?} {images:?}")).join().is_err());
    assert!(thread::spawn(move || error.unwrap()).join().is_err());
}
