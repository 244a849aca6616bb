//! The client: it takes every path, prints every value that it gets, and logs all that there is to log.

use std::error::Error as _;
use std::fmt::Debug;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use futures_util::TryStreamExt;
use lumenfall::backend::{Backend, EditSpec, GenerateSpec, Output, Request, RequestContext};
use lumenfall::blocking::Wait;
use lumenfall::layers::{Cache, Fallback, Limit, Retry, SpendCap};
use lumenfall::remote::{ClientBuilder, Page, Replay, RequestFilter};
use lumenfall::stable_diffusion_3_5_medium::StableDiffusion35Medium;
use lumenfall::testing::{Fault, MockGateway, PIXEL};
use lumenfall::{Address, Client, Error, Images, Inline, Input, ResponseFormat, RetryPolicy};
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tokio::sync::Notify;
use tracing::{Instrument, Span};
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::layer::SubscriberExt;

use super::{KEY, PASSWORD, SIGNATURE, THE_END};

const MODEL: &str = "stable-diffusion-3.5-medium";

/// What becomes of a request, or of the file that it makes.
const SCENES: [&str; 6] = ["good", "moved", "round", "lost", "gone", "refusing"];

/// Logs everything, down to the level `trace`.
struct Everything;

impl log::Log for Everything {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        eprintln!("{} {}", record.target(), record.args());
    }

    fn flush(&self) {}
}

fn log_everything() {
    log::set_logger(&Everything).unwrap();
    log::set_max_level(log::LevelFilter::Trace);
    let spans = tracing_subscriber::fmt::layer().with_span_events(FmtSpan::NEW).with_ansi(false);
    let traces = tracing_opentelemetry::layer().with_tracer(SdkTracerProvider::builder().build().tracer("test"));
    let all = tracing_subscriber::registry().with(spans.with_writer(io::stderr)).with(traces);
    tracing::subscriber::set_global_default(all).unwrap();
}

fn print(value: impl Debug) {
    println!("{value:?}");
}

/// What is said of an error, down to its root.
fn print_error(error: &Error) {
    println!("{error} {error:?} {error:#?}");
    let mut source = error.source();
    while let Some(error) = source {
        println!("{error} {error:?}");
        source = error.source();
    }
}

fn print_result<T: Debug>(result: Result<T, Error>) -> Option<T> {
    print(&result);
    result.inspect_err(print_error).ok()
}

/// Within a span, so that each request carries it.
pub(crate) async fn client(plain: &str, tls: &str, folder: &Path) {
    log_everything();
    every_path(plain, tls, folder).instrument(tracing::info_span!("everything")).await;
    println!("{THE_END}");
}

async fn every_path(plain: &str, tls: &str, folder: &Path) {
    for base in [plain, tls] {
        for scene in SCENES {
            let builder = builder(base, scene);
            direct(&builder, &folder.join(scene)).await;
            of_the_gateway(&builder).await;
        }
        // A paid request that is led elsewhere.
        backend(Arc::new(builder(base, "elsewhere").backend().unwrap()), folder).await;
        through_a_proxy(plain, base).await;
        given_up(&builder(base, "waiting"), &builder(base, "late")).await;
        waited_for(builder(base, "good"), folder.join("waited.png")).await;
    }
    faults().await;
    malformed();
    panics(&builder(plain, "good")).await;
}

fn settings(base_url: String) -> ClientBuilder {
    Client::builder().api_key(KEY).base_url(base_url).header("x-further", KEY).retry(RetryPolicy::none())
}

/// The base address has the key in its query, too, as some services want it.
fn builder(base: &str, scene: &str) -> ClientBuilder {
    let replay = Replay::replay_or_record().recording("rec_1");
    print(&replay);
    settings(format!("{base}/{scene}/v1?key={KEY}")).native_url(format!("{base}/{scene}/v1?key={KEY}")).replay(replay)
}

/// Each backend by itself, and all of them under layers.
async fn direct(builder: &ClientBuilder, folder: &Path) {
    print(builder);
    let remote = builder.clone().backend().unwrap();
    let soon = Duration::from_millis(1);
    let fal = builder.clone().fal().unwrap().poll_interval(soon);
    let replicate = builder.clone().replicate().unwrap().poll_interval(soon);
    let all = Fallback::new(fal.clone()).then(replicate.clone()).then(remote.clone()).even_if_billed();
    let capped = SpendCap::new(Limit::new(Retry::new(all, RetryPolicy::none())), 1.0, "USD").per_image(0.01);
    let kept = Cache::new(capped.clone(), folder);
    backend(Arc::new(remote), folder).await;
    backend(Arc::new(fal), folder).await;
    backend(Arc::new(replicate), folder).await;
    backend(Arc::new(capped), folder).await;
    backend(Arc::new(kept), folder).await;
}

async fn backend(backend: Arc<dyn Backend>, folder: &Path) {
    print(&backend);
    println!("{}", backend.identity());
    let mut generate = GenerateSpec::new(MODEL, "a lighthouse");
    generate.options.sampling.seed = Some(7);
    let mut edit = EditSpec::new(MODEL, Input::bytes(PIXEL));
    edit.prompt = Some("stars".into());
    for request in [Request::Generate(generate), Request::Edit(edit)] {
        print_result(backend.estimate(request.clone(), RequestContext::default()).await);
        for format in [None, Some(ResponseFormat::B64Json)] {
            let mut request = request.clone();
            request.options_mut().response_format = format;
            let output = request.send(&*backend, RequestContext::default()).await;
            if let Some(output) = print_result(output) {
                images(&backend, output, folder).await;
            }
        }
    }
    let client = Client::new(backend);
    print(&client);
    print_result(client.images().generate("a lighthouse").send().await);
}

async fn images(backend: &Arc<dyn Backend>, output: Output, folder: &Path) {
    print(&output.metadata);
    print(&output.metadata.headers);
    let inline = Images::<Inline>::receive(Arc::clone(backend), output.clone()).await;
    print_result(inline);
    let Some(images) = print_result(Images::<Address>::receive(Arc::clone(backend), output).await) else { return };
    let client = Client::new(Arc::clone(backend));
    for image in &images {
        print(image);
        print_result(image.download().await.map(|bytes| bytes.len()));
        print_result(image.save(folder.with_extension("png")).await);
        print_result(image.save("/no/such/folder/1.png").await);
        if let Some(url) = image.url() {
            print_result(Input::fetch(&client, url).await);
        }
    }
}

/// What only the gateway answers.
async fn of_the_gateway(builder: &ClientBuilder) {
    let remote = builder.clone().backend().unwrap();
    let (account, models) = (remote.account(), remote.models());
    print((account, models));
    print_result(account.balance().await);
    let filter = RequestFilter::default();
    print_result(account.page(&filter, Page::First, true).await);
    print_result(account.requests(filter).try_collect::<Vec<_>>().await);
    print_result(account.request("req_1").await);
    print_result(account.request("none").await);
    print_result(account.purge("none").await);
    print_result(models.list().await);
    print_result(models.get("none").await);
    // As it came: whoever prints it prints what the service says.
    print_result(models.schema_json(MODEL).await.map(|json| json.is_object()));
    print_result(models.schema::<StableDiffusion35Medium>().await);
}

/// The proxy is the plain server: it answers for others, and makes no tunnels.
async fn through_a_proxy(proxy: &str, base: &str) {
    let proxy = proxy.replace("://", &format!("://user:{PASSWORD}@"));
    let builder = builder(base, "good").proxy(&proxy);
    print(&builder);
    let client = builder.build().unwrap();
    print(&client);
    if let Some(images) = print_result(client.images().generate("a lighthouse").send().await) {
        print_result(images[0].download().await.map(|bytes| bytes.len()));
    }
}

/// Backends whose calls are jobs.
fn providers(builder: &ClientBuilder) -> [Arc<dyn Backend>; 2] {
    let soon = Duration::from_millis(1);
    let fal = builder.clone().fal().unwrap().poll_interval(soon);
    let replicate = builder.clone().replicate().unwrap().poll_interval(soon);
    [Arc::new(fal), Arc::new(replicate)]
}

/// Jobs that do not end, and one that is taken late: nobody waits for the first, and the time of the others runs out. All are
/// cancelled, the last one in its own time.
async fn given_up(waiting: &ClientBuilder, late: &ClientBuilder) {
    for backend in providers(waiting) {
        let spec = GenerateSpec::new(MODEL, "a lighthouse");
        let told = Arc::new(Notify::new());
        let mut context = RequestContext::default();
        let tell = Arc::clone(&told);
        context.progress = Some(Arc::new(move |_| tell.notify_one()));
        tokio::select! {
            ended = backend.generate(spec.clone(), context) => panic!("{ended:?}"),
            () = told.notified() => {}
        }
        let mut context = RequestContext::default();
        context.deadline = Some(Instant::now() + Duration::from_secs(4));
        print_result(backend.generate(spec, context).await);
    }
    for backend in providers(late) {
        let mut context = RequestContext::default();
        context.deadline = Some(Instant::now() + Duration::from_secs(2));
        print_result(backend.generate(GenerateSpec::new(MODEL, "a lighthouse"), context).await);
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
}

/// Without a runtime of one's own.
async fn waited_for(builder: ClientBuilder, path: PathBuf) {
    let wait = move || {
        let client = builder.build().unwrap();
        if let Some(images) = print_result(client.images().generate("a lighthouse").send().wait()) {
            print_result(images[0].save(path).wait());
        }
    };
    let span = Span::current();
    tokio::task::spawn_blocking(move || span.in_scope(wait)).await.unwrap();
}

/// What breaks, against a gateway that breaks on demand.
async fn faults() {
    let gateway = MockGateway::start().await.unwrap();
    let silence = Duration::from_millis(300);
    let builder = gateway.builder().header("x-further", KEY).idle_timeout(silence).first_byte_timeout(silence);
    let client = builder.clone().retry(RetryPolicy::none()).build().unwrap();
    let stubborn = RetryPolicy::default().max_retries(1).max_wait(Duration::from_millis(1)).may_bill_twice();
    let stubborn = builder.clone().retry(stubborn).max_response_bytes(1000).build().unwrap();
    for fault in [
        Fault::Status(500),
        Fault::Code(400, gateway.key().to_owned()),
        Fault::RateLimited(Duration::ZERO),
        Fault::Reset,
        Fault::ResetInBody,
        Fault::Garbage,
        Fault::NoImages,
        Fault::Truncated,
        Fault::Oversize(1001),
        Fault::Drip(Duration::from_secs(60)),
        Fault::Hang,
        Fault::OtherDelivery,
    ] {
        gateway.fault_next(fault.clone());
        print_result(client.images().generate("a lighthouse").send().await);
        gateway.fault_next(fault.clone());
        print_result(client.images().edit(Input::bytes(PIXEL)).send().await);
        gateway.fault_next(fault);
        print_result(stubborn.images().generate("a lighthouse").inline().send().await);
    }
    // A server that speaks no TLS.
    let address = gateway.base_url().replace("http://", "https://");
    let secretly = settings(format!("{address}?key={KEY}")).build().unwrap();
    print_result(secretly.images().generate("a lighthouse").send().await);
    // A key that is refused, and addresses at which there is nobody.
    let stranger = gateway.builder().api_key(KEY).build().unwrap();
    print_result(stranger.images().generate("a lighthouse").send().await);
    for scheme in ["http", "https", "ftp"] {
        let address = format!("{scheme}://127.0.0.1:9/x?sig={SIGNATURE}");
        print_result(Input::fetch(&client, &address).await);
        print_result(
            settings(address).build().unwrap_or(client.clone()).images().generate("a lighthouse").send().await,
        );
    }
}

/// Settings that are refused.
fn malformed() {
    for builder in [
        settings("http://127.0.0.1:9".into()).api_key(format!("{KEY}\n")),
        settings(format!("https://user:{PASSWORD}@host.example/v1?key={KEY}")),
        settings(format!("host.example/v1?key={KEY}")),
        settings(format!("https://host.example:port/v1?key={KEY}")),
        settings("http://127.0.0.1:9".into()).proxy(format!("http://user:{PASSWORD}@:port")),
        settings("http://127.0.0.1:9".into()).header("x-further", format!("{KEY}\n")),
        settings("http://127.0.0.1:9".into()).header("authorization", KEY),
    ] {
        print(&builder);
        let refused = builder.build().unwrap_err();
        print_error(&refused);
    }
}

/// What the panic of a program says that expects no error.
async fn panics(builder: &ClientBuilder) {
    let client = builder.clone().build().unwrap();
    let images = client.images().generate("a lighthouse").send().await.unwrap();
    let builder = builder.clone();
    let in_a_thread = thread::spawn(move || panic!("{builder:?} {client:?} {images:?}"));
    assert!(in_a_thread.join().is_err());
    let gone = format!("http://127.0.0.1:9/x?sig={SIGNATURE}");
    let error = Input::fetch(&Client::new(settings(gone.clone()).backend().unwrap()), &gone).await;
    assert!(thread::spawn(move || error.unwrap()).join().is_err());
}
