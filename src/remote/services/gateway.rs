//! The Lumenfall gateway and other OpenAI-compatible image servers.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use reqwest::header::HeaderMap;
use reqwest::{Method, Request as HttpRequest, Url};

use super::encoder::{self, Encoded};
use super::presets::{Images, Preset, ResponseFormats};
use super::requested::Requested;
use super::{ImageField, Replay, Server};
use crate::backend::{
    Backend, BoxFuture, ByteStream, Capabilities, Estimate, ModelApi, Output, Request, RequestContext, fetch,
};
use crate::error::{Error, ErrorKind};
use crate::remote::account::Account;
use crate::remote::account::models::Models;
use crate::remote::http::basic_auth::BasicAuth;
use crate::remote::http::download;
use crate::remote::http::settings::{Service, Settings, configuration, parse_base_url, settings_methods, variable};
use crate::remote::http::transport::{self, Billing, Call, Completed, Payload, Transport};
use crate::remote::redact;
use crate::remote::response::{estimate, images};
use crate::values::ResponseFormat;

/// The gateway's OpenAI-compatible base URL.
pub const DEFAULT_BASE_URL: &str = "https://api.lumenfall.ai/openai/v1";
const GATEWAY_HOST: &str = "api.lumenfall.ai";

const SERVICE: Service = Service { base_url: DEFAULT_BASE_URL, key_variable: "LUMENFALL_API_KEY", scheme: "Bearer" };

/// How long image URLs are valid, as the gateway and OpenAI document.
const URL_LIFETIME: Duration = Duration::from_secs(3600);

/// A backend for the Lumenfall gateway or any OpenAI-compatible image server.
///
/// Cloning is cheap: clones share connections.
///
/// ```no_run
/// use lumenfall::{Client, remote::Remote};
///
/// let client = Client::new(Remote::from_env()?); // LUMENFALL_API_KEY
/// # Ok::<(), lumenfall::Error>(())
/// ```
#[derive(Clone)]
pub struct Remote {
    transport: Arc<Transport>,
    /// A generation without its body, which is the same for each call.
    generations: Arc<HttpRequest>,
    model_name: Option<String>,
    preset: Arc<Preset>,
}

/// Configures a [`Remote`] backend. [`build`](Self::build) checks all settings.
///
/// ```
/// use std::time::Duration;
///
/// use lumenfall::{Client, RetryPolicy, remote::Remote};
///
/// let remote = Remote::builder()
///     .api_key("lmnfl_id.secret")
///     .base_url("http://localhost:8080/v1") // any OpenAI-compatible server
///     .timeout(Duration::from_secs(120))
///     .retry(RetryPolicy::default().max_retries(5))
///     .build()?;
/// let client = Client::new(remote);
/// # Ok::<(), lumenfall::Error>(())
/// ```
#[derive(Clone, Default)]
#[must_use]
pub struct RemoteBuilder {
    settings: Settings,
    native_url: Option<String>,
    replay: Option<Replay>,
    model_name: Option<String>,
    server: Server,
    image_field: Option<ImageField>,
    response_format: Option<bool>,
}

impl RemoteBuilder {
    /// Returns a builder with the settings from the environment: `LUMENFALL_API_KEY` and, if set,
    /// `LUMENFALL_BASE_URL` and `LUMENFALL_NATIVE_URL`.
    pub fn from_env() -> Self {
        let settings = Settings { base_url: variable("LUMENFALL_BASE_URL"), ..SERVICE.settings_from_env() };
        Self { settings, native_url: variable("LUMENFALL_NATIVE_URL"), ..Self::default() }
    }

    settings_methods!("https://api.lumenfall.ai/openai/v1", "LUMENFALL_API_KEY");

    /// Sets the base URL of the gateway's own API (account, schemas), for a gateway that is not at the default URL, such
    /// as `http://localhost:8080/v1`.
    ///
    /// This also declares that the server is the gateway. Only the gateway is asked for estimates: another server would
    /// ignore the dry-run parameter, generate the images and bill them.
    pub fn native_url(mut self, url: impl Into<String>) -> Self {
        self.native_url = Some(url.into());
        self
    }

    /// Sends this name of the model instead of the one of each request, for a server that knows the model under another name.
    /// A pinned provider is still sent as its prefix.
    pub fn model_name(mut self, name: impl Into<String>) -> Self {
        self.model_name = Some(name.into());
        self
    }

    /// Sets the kind of the server, which decides under which names and where parameters are sent, and which are refused. The
    /// default is [`Server::Gateway`]. Any other kind needs a [`base_url`](Self::base_url).
    ///
    /// ```
    /// use lumenfall::remote::{Remote, Server};
    ///
    /// let remote = Remote::builder().server(Server::VllmOmni).base_url("http://127.0.0.1:8000/v1").without_key().build()?;
    /// # Ok::<(), lumenfall::Error>(())
    /// ```
    pub fn server(mut self, server: Server) -> Self {
        self.server = server;
        self
    }

    /// Sets the form field of the images of an edit. The default follows the kind of the [server](Self::server).
    pub fn image_field(mut self, field: ImageField) -> Self {
        self.image_field = Some(field);
        self
    }

    /// Sets whether the field `response_format` is sent. The default follows the kind of the [server](Self::server). A server
    /// may return the other form; both are read.
    pub fn send_response_format(mut self, send: bool) -> Self {
        self.response_format = Some(send);
        self
    }

    /// Sets what the gateway's recorder does with each request.
    pub fn replay(mut self, replay: Replay) -> Self {
        self.replay = Some(replay);
        self
    }

    /// Builds the backend.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] if the API key is missing or contains characters that are not allowed in a header,
    /// or if the base URL is malformed or missing, or a header, the proxy or the name of the model is malformed.
    pub fn build(self) -> Result<Remote, Error> {
        if self.server != Server::Gateway && self.settings.base_url.is_none() {
            let usual = self.server.usual_base_url();
            let message =
                format!("the base URL of {} is missing; call `.base_url(..)`, for example with {usual}", self.server);
            return Err(configuration(message).with_parameter("base_url"));
        }
        let preset = self.preset();
        let native = match &self.native_url {
            Some(url) => {
                let mut url = parse_base_url(url, "https://api.lumenfall.ai/v1")?;
                if BasicAuth::take(&mut url)?.is_some() {
                    let message = "the native URL has a user name or password; those of the base URL are sent to both";
                    return Err(configuration(message).with_parameter("native_url"));
                }
                Some(url)
            }
            None => native_url(&self.settings.base_url(&SERVICE)?.0),
        };
        if self.model_name.as_ref().is_some_and(|name| name.trim().is_empty()) {
            let message = "the name of the model is empty; pass the server's name, or do not call `.model_name(..)`";
            return Err(configuration(message).with_parameter("model_name"));
        }
        let headers = self.replay.map_or_else(|| Ok(HeaderMap::new()), |replay| replay.headers())?;
        let transport = self.settings.transport(&SERVICE, headers, native)?;
        Ok(Remote::new(transport, self.model_name, Arc::new(preset)))
    }

    /// Returns the preset of the server with the settings of this builder.
    fn preset(&self) -> Preset {
        let mut preset = self.server.preset().clone();
        if let Some(field) = self.image_field {
            let edits = preset.edit.iter_mut().chain(preset.masked_edit.iter_mut().map(|(edit, _)| edit));
            for images in edits.map(|edit| &mut edit.images) {
                if let Images::Form(preset_field) = images {
                    *preset_field = field;
                }
            }
        }
        preset.response_format = match self.response_format {
            Some(true) => ResponseFormats::BOTH,
            Some(false) => ResponseFormats::NONE,
            None => preset.response_format,
        };
        preset
    }
}

impl fmt::Debug for RemoteBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.settings.debug("RemoteBuilder", f)
    }
}

/// Returns the base URL of the gateway's own API: `/v1` next to `/openai/v1`. The host identifies the gateway; other
/// servers use the same paths.
fn native_url(base: &Url) -> Option<Url> {
    base.host_str().filter(|host| *host == GATEWAY_HOST)?;
    let path = base.path().trim_end_matches('/').strip_suffix("/openai/v1")?;
    let mut native = base.clone();
    native.set_path(&format!("{path}/v1"));
    Some(native)
}

impl Remote {
    fn new(transport: Arc<Transport>, model_name: Option<String>, preset: Arc<Preset>) -> Self {
        let generations = Arc::new(transport.json_request(transport.url(&["images", "generations"])));
        Self { transport, generations, model_name, preset }
    }

    /// Returns a backend with the headers and the retry policy of a call.
    fn for_call(&self, context: &RequestContext) -> Result<Cow<'_, Self>, Error> {
        let transport = self.transport.for_call(context)?;
        Ok(transport.map_or(Cow::Borrowed(self), |transport| {
            Cow::Owned(Self::new(transport, self.model_name.clone(), Arc::clone(&self.preset)))
        }))
    }

    /// Returns a builder for the gateway or any OpenAI-compatible server.
    pub fn builder() -> RemoteBuilder {
        RemoteBuilder::default()
    }

    /// Creates a backend for the gateway from the environment: `LUMENFALL_API_KEY` and, if set, `LUMENFALL_BASE_URL` and
    /// `LUMENFALL_NATIVE_URL`.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] if the key is missing or malformed, or a URL is malformed.
    pub fn from_env() -> Result<Self, Error> {
        RemoteBuilder::from_env().build()
    }

    /// Returns access to the models that the server offers.
    ///
    /// ```no_run
    /// # async fn run() -> Result<(), lumenfall::Error> {
    /// let remote = lumenfall::remote::Remote::from_env()?;
    /// for model in remote.models().list().await? {
    ///     println!("{}", model.id);
    /// }
    /// let client = lumenfall::Client::new(remote);
    /// # Ok(())
    /// # }
    /// ```
    pub fn models(&self) -> Models<'_> {
        Models(&self.transport)
    }

    /// Returns access to the caller's account at the gateway.
    ///
    /// ```no_run
    /// # async fn run() -> Result<(), lumenfall::Error> {
    /// let remote = lumenfall::remote::Remote::from_env()?;
    /// println!("{:?}", remote.account().balance().await?.available);
    /// # Ok(())
    /// # }
    /// ```
    pub fn account(&self) -> Account<'_> {
        Account(&self.transport)
    }

    /// Gives the parameters of a request the names that the server expects.
    fn encode(&self, mut request: Request, model: ModelApi) -> Result<Encoded, Error> {
        if let Some(name) = &self.model_name {
            request.set("model", name.as_str())?;
        }
        encoder::encode(&self.preset, request, model)
    }

    /// Returns the HTTP request for `request`, without its body, and its body.
    async fn prepare(&self, request: Request, model: ModelApi) -> Result<(Arc<HttpRequest>, Payload), Error> {
        let encoded = self.encode(request, model)?;
        let path = encoded.path;
        let payload = encoded.payload().await?;
        let request = match &payload {
            Payload::Form(_) => Arc::new(self.transport.request(Method::POST, self.transport.url(path))),
            _ => Arc::clone(&self.generations),
        };
        Ok((request, payload))
    }

    async fn run(&self, request: Request, context: RequestContext) -> Result<Output, Error> {
        let this = self.for_call(&context)?;
        let (response_format, requested) = (request.options().response_format, Requested::of(request.options()));
        let parameters = request.options().of_images();
        let (request, payload) = this.prepare(request, context.model).await?;
        let time = this.transport.start(context.deadline.map(Into::into));
        let call = Call { request: &request, payload: &payload, time, context: &context };
        let Completed { result: mut output, lost_bills, attempts } =
            this.transport.send(&call, Billing::Paid, images::read).await?;
        output.metadata.lost_bills = lost_bills;
        output.metadata.attempts = attempts;
        output.metadata.parameters = Some(parameters);
        if response_format == Some(ResponseFormat::B64Json) {
            output = Box::pin(fetch::all(&*this, output, Some(time.deadline.into())))
                .await
                .map_err(|error| error.with_attempts(attempts, time.started.elapsed()))?;
        }
        requested.compare(&mut output);
        output.metadata.urls_expire = expiry(output.metadata.created, SystemTime::now());
        output.metadata.backend = self.name().to_owned();
        output.metadata.elapsed = time.started.elapsed();
        Ok(output)
    }

    async fn dry_run(&self, request: Request, context: RequestContext) -> Result<Estimate, Error> {
        if self.transport.native.is_none() {
            let message = "estimates are supported by the gateway only: another server would ignore the dry-run parameter, \
                           generate the images and bill them; if this server is the gateway, set `.native_url(..)`";
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        let this = self.for_call(&context)?;
        let (request, payload) = this.prepare(request, context.model).await?;
        let mut request = transport::copy(&request, None);
        request.url_mut().query_pairs_mut().append_pair("dryRun", "true");
        let time = this.transport.start(context.deadline.map(Into::into));
        let call = Call { request: &request, payload: &payload, time, context: &context };
        Ok(this.transport.send(&call, Billing::Free, estimate::read).await?.result)
    }
}

/// Returns when the URLs of a response expire that was `created` at that Unix time and received at `now`. A time that is more
/// than a day off is ignored: some servers send 0 or milliseconds.
fn expiry(created: Option<u64>, now: SystemTime) -> Option<SystemTime> {
    const DAY: Duration = Duration::from_secs(24 * 3600);
    let created = created.and_then(|seconds| UNIX_EPOCH.checked_add(Duration::from_secs(seconds)));
    let distance = |time: &SystemTime| now.duration_since(*time).unwrap_or_else(|error| error.duration());
    created.filter(|time| distance(time) < DAY).unwrap_or(now).checked_add(URL_LIFETIME)
}

impl Backend for Remote {
    fn name(&self) -> &str {
        "remote"
    }

    fn identity(&self) -> String {
        let identity = self.transport.identity("remote");
        let identity = match self.preset.id {
            "gateway" => identity,
            server => format!("{identity} {server}"),
        };
        self.model_name.iter().fold(identity, |identity, name| format!("{identity} {name:?}"))
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { estimate: self.transport.native.is_some(), ..self.preset.capabilities() }
    }

    fn check(&self, request: &Request) -> Result<(), Error> {
        self.capabilities().check(self.name(), request)?;
        // Whether the model needs an image is checked when the request is sent.
        let model = ModelApi { optional_image: true, ..ModelApi::default() };
        match self.encode(request.clone(), model) {
            Err(error) if error.kind() == ErrorKind::Unsupported => Err(error),
            _ => Ok(()),
        }
    }

    fn send<'a>(&'a self, request: Request, context: RequestContext) -> BoxFuture<'a, Result<Output, Error>> {
        Box::pin(self.run(request, context))
    }

    fn estimate<'a>(&'a self, request: Request, context: RequestContext) -> BoxFuture<'a, Result<Estimate, Error>> {
        Box::pin(self.dry_run(request, context))
    }

    fn fetch<'a>(&'a self, url: &'a str) -> BoxFuture<'a, Result<ByteStream, Error>> {
        Box::pin(download::fetch(&self.transport, url))
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").field("base_url", &redact::url(&self.transport.base)).finish_non_exhaustive()
    }
}
